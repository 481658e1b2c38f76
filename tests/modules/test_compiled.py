"""Compilation: one for all blocks, modules unchanged, uncompiled after a failure."""

import copy
import logging
import pickle
import subprocess

import pytest
import torch

from eat_plugin.modules import compiled, decoders, transformer
from eat_plugin.modules.compiled import Compiled
from tests.layers import make_block, make_decoder
from tests.versions import compilation

GRID = (4, 2)
pytestmark = compilation


class Backend:
    """Compiles nothing; counts calls."""

    def __init__(self, error=None):
        self.error = error
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        if self.error is not None:
            raise self.error
        return graph.forward


@pytest.fixture
def set_backend(monkeypatch):
    """Set the compiler, after forgetting all compilations."""

    def set_it(backend):
        monkeypatch.setattr(compiled, "BACKEND", backend)
        return backend

    def forget():
        torch._dynamo.reset()
        for function in (transformer.COMPILED, decoders.COMPILED):
            function.reset()

    monkeypatch.setattr(Compiled, "warned", False)
    forget()
    yield set_it
    forget()


def make_blocks(number, **options):
    """Blocks with different weights, and drop path rising from 0.1."""
    torch.manual_seed(0)
    rates = [0.1 + 0.4 * i / number for i in range(number)]
    return torch.nn.ModuleList(make_block(rate, **options) for rate in rates)


def run_blocks(blocks, size=3):
    torch.manual_seed(1)
    x = first = torch.randn(size, 5, 8, requires_grad=torch.is_grad_enabled())
    targets = 0
    for block in blocks:
        x, target = block(x)
        targets = targets + target.sum()
    return first, x.square().sum() + targets


def gradients(run, module):
    x, loss = run(module)
    loss.backward()
    return [loss, x.grad, *(p.grad for p in module.parameters())]


def run_decoder(decoder):
    torch.manual_seed(1)
    x = torch.randn(2, 8, 8, requires_grad=True)
    return x, decoder(x, GRID, torch.tensor([0, 9])).square().sum()


def assert_close(first, second, tolerance=1e-5):
    for a, b in zip(first, second):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_blocks__share_one_compilation(set_backend, caplog):
    backend = set_backend(Backend())
    blocks, plain = make_blocks(12, compile=True), make_blocks(12)
    assert_close(gradients(run_blocks, blocks), gradients(run_blocks, plain))
    assert backend.count == 1
    run_blocks(blocks)
    assert backend.count == 1
    run_blocks(blocks, size=2)  # another shape takes another compilation
    assert backend.count == 2
    assert warnings(caplog) == []


def test_block__of_the_last_tokens_with_a_gate(set_backend, caplog):
    backend = set_backend(Backend())
    blocks = [make_blocks(1, compile=each, attention_gate=True)[0] for each in (True, False)]
    results = []
    for block in blocks:
        torch.manual_seed(1)
        x = torch.randn(3, 5, 8, requires_grad=True)
        output, _ = block(x, None, 2)
        output.square().sum().backward()
        results.append([output, x.grad, *(p.grad for p in block.parameters())])
    assert results[0][0].shape == (3, 2, 8)
    assert_close(*results)
    assert backend.count == 1
    assert warnings(caplog) == []


def test_blocks__compile_evaluation_for_a_teacher_only(set_backend):
    backend = set_backend(Backend())
    blocks = make_blocks(3, compile=True).eval()
    with torch.no_grad():
        _, expected = run_blocks(blocks)
        assert backend.count == 0
        for block in blocks:
            block.compiled_in_evaluation = True
        _, loss = run_blocks(blocks)
    assert backend.count == 1
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("recompute", ["none", "gelu", "blocks"])
def test_decoder__layers_share_one_compilation(set_backend, recompute):
    backend = set_backend(Backend())
    results = []
    for is_compiled in (True, False):
        torch.manual_seed(0)
        decoder = make_decoder({"decoder_layers": 4}, recompute=recompute, compile=is_compiled)
        results.append(gradients(run_decoder, decoder))
    assert_close(*results)
    assert backend.count == 1


@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("recompute", ["gelu", "blocks"])
def test_blocks__compile_with_recompute(set_backend, recompute, has_gate):
    backend = set_backend(Backend())
    options = {"attention_gate": has_gate}
    blocks = make_blocks(3, compile=True, recompute=recompute, **options)
    expected = gradients(run_blocks, make_blocks(3, **options))
    assert_close(gradients(run_blocks, blocks), expected)
    assert backend.count == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no C++ compiler"), ImportError("no Triton"), OSError("no space left"),
        subprocess.SubprocessError("gcc failed"),
    ],
)  # fmt: skip
def test_failure__continues_uncompiled_with_one_warning(set_backend, caplog, error):
    backend = set_backend(Backend(error))
    blocks = make_blocks(4, compile=True)
    plain = gradients(run_blocks, make_blocks(4))
    for _ in range(2):
        blocks.zero_grad()
        assert all(torch.equal(a, b) for a, b in zip(gradients(run_blocks, blocks), plain))
    decoder = make_decoder(compile=True)
    gradients(run_decoder, decoder)
    assert backend.count == 2  # once for the blocks, once for the decoder
    (message,) = warnings(caplog)
    assert message == (
        "model.compile: the transformer blocks run uncompiled, slower, with the same result: "
        f"{type(error).__name__}: {error}"
    )


def test_failure__out_of_memory_is_raised(set_backend, caplog):
    error = torch.cuda.OutOfMemoryError("no memory")
    backend = set_backend(Backend(error))
    blocks = make_blocks(2, compile=True)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="no memory"):
        gradients(run_blocks, blocks)
    assert not transformer.COMPILED.is_in_use
    backend.error = None
    torch._dynamo.reset()
    gradients(run_blocks, blocks)  # the next batch runs compiled
    assert transformer.COMPILED.is_in_use
    assert not warnings(caplog)


@pytest.mark.parametrize("error", [RuntimeError, subprocess.SubprocessError])
def test_failure__of_backward_is_found_before_training(set_backend, caplog, error):
    def fail_in_backward(graph, inputs):
        from functorch.compile import make_boxed_func
        from torch._dynamo.backends.common import aot_autograd

        def refuse(graph, inputs):
            raise error("backward cannot be compiled")

        forward = aot_autograd(
            fw_compiler=lambda graph, _: make_boxed_func(graph.forward), bw_compiler=refuse
        )
        return forward(graph, inputs)

    set_backend(fail_in_backward)
    results = [gradients(run_blocks, make_blocks(2, compile=flag)) for flag in (True, False)]
    assert all(torch.equal(a, b) for a, b in zip(*results))
    assert "backward cannot be compiled" in warnings(caplog)[0]


def test_failure__old_pytorch(set_backend, caplog, monkeypatch):
    backend = set_backend(Backend())
    monkeypatch.setattr(compiled, "OLDEST_TORCH", "99.0")
    gradients(run_blocks, make_blocks(2, compile=True))
    assert backend.count == 0
    assert "it needs PyTorch 99.0 or later" in warnings(caplog)[0]


def test_shapes__limit_of_compilations(set_backend, caplog, monkeypatch):
    backend = set_backend(Backend())
    monkeypatch.setattr(compiled, "MAX_SIGNATURES", 2)
    blocks = make_blocks(2, compile=True)
    for size in (1, 2, 3, 4, 2):
        run_blocks(blocks, size)
    assert backend.count == 2
    (message,) = warnings(caplog)
    assert "more than 2 input shapes" in message


def test_shapes__pytorchs_own_limit_is_not_reached(set_backend, monkeypatch):
    backend = set_backend(Backend())
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    monkeypatch.setattr(config, limit, 2)
    blocks = make_blocks(1, compile=True)
    for size in range(1, 5):
        run_blocks(blocks, size)
    assert backend.count == 4


def test_trial__has_no_side_effects(set_backend):
    set_backend(Backend())
    blocks = make_blocks(1, compile=True, encoder_dropout=0.5)
    state = torch.get_rng_state()
    x = torch.randn(2, 5, 8, requires_grad=True)
    torch.set_rng_state(state)
    transformer.COMPILED.choose(blocks[0], x, None, None, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is None
    assert all(p.grad is None for p in blocks.parameters())


def test_modules__keep_names_copies_and_pickles(set_backend):
    set_backend(Backend())
    block, plain = make_blocks(1, compile=True), make_blocks(1)
    run_blocks(block)
    assert list(block.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in block.named_modules()] == [n for n, _ in plain.named_modules()]
    for copied in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(run_blocks(copied)[1], run_blocks(block)[1])
        assert copied[0].compiled


def test_tracing__uses_the_plain_function(set_backend):
    backend = set_backend(Backend())
    block = make_block(compile=True)
    x = torch.randn(2, 5, 8)
    exported = torch.export.export(block, (x,), strict=False).module()
    assert backend.count == 0
    assert_close(exported(x), block(x))


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "gelu", "blocks"])
def test_inductor__same_results(set_backend, caplog, recompute):
    options = {"recompute": recompute, "compile": True}
    for has_gate in (False, True):
        gate = {"attention_gate": has_gate}
        results = [gradients(run_blocks, make_blocks(2, **gate, **o)) for o in (options, {})]
        assert_close(*results)
    results = []
    for option in (options, {}):
        torch.manual_seed(0)
        results.append(gradients(run_decoder, make_decoder(**option)))
    assert_close(*results)
    assert warnings(caplog) == []
