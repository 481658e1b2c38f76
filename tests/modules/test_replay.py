"""CUDA graphs, recorded and replayed on the CPU: results, gradients, and ways back without one."""

import copy
import logging
import pickle

import pytest
import torch
from torch.nn import functional as F

from eat_plugin.modules import replay
from eat_plugin.modules.replay import CALLS_BEFORE, Replayed


class Layers(torch.nn.Module):
    """Outputs with and without gradient, and None; overwrites its input; draws random numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 4)
        self.unused = torch.nn.Linear(2, 2)

    def forward(self, x, rows, canvas, nothing):
        assert nothing is None
        hidden = F.dropout(self.first(x).relu(), 0.5)
        with torch.no_grad():
            target = hidden.cumsum(0)
        canvas += 1
        canvas.index_put_((rows,), self.second(hidden).index_select(0, rows))
        return hidden, None, target, canvas


def draw(number, rows=6):
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(rows, 4, generator=generator)
    return x, torch.randperm(rows, generator=generator)[:3], torch.zeros(rows, 4), None


def train(replayed, layers, batches, micro_batches=1):
    """Return outputs and gradients of updates, and the weights after them."""
    found = []
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1)
    torch.manual_seed(7)
    for number in batches:
        optimizer.zero_grad()
        for part in range(micro_batches):
            inputs = draw(micro_batches * number + part)
            outputs = replayed(layers, inputs, layers, [])
            hidden, none, target, x = outputs
            assert none is None
            assert not target.requires_grad
            found += [y.detach().clone() for y in (hidden, target, x)]
            (hidden.square().sum() + (3 + part) * x.sum()).backward()
        found += [p.grad.clone() for p in layers.parameters() if p.grad is not None]
        optimizer.step()
    return [*found, *(p.detach() for p in layers.parameters())]


def eager(function, inputs, module, others):
    return function(*inputs)


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_replayed__is_the_same(recordings, micro_batches):
    replayed = Replayed()
    found = train(replayed, Layers(), range(8), micro_batches)
    assert_same(found, train(eager, Layers(), range(8), micro_batches))
    assert replayed.is_in_use
    assert not any(x.requires_grad for x in replayed._recording._inputs if x is not None)
    forward, backward = recordings
    assert forward.plays == backward.plays == 1 + 8 * micro_batches - CALLS_BEFORE


def test_replayed__without_the_gradient_of_an_output(recordings):
    replayed, layers = Replayed(), Layers()
    for use in (0, 3, 0, 3, 0, 3):
        torch.manual_seed(use)
        replayed(layers, draw(use), layers, [])[use].sum().backward()
        found = [p.grad for p in layers.parameters() if p.grad is not None]
        layers.zero_grad()
        torch.manual_seed(use)
        layers(*draw(use))[use].sum().backward()
        expected = [p.grad for p in layers.parameters() if p.grad is not None]
        layers.zero_grad()
        for one, other in zip(found, expected):
            assert torch.equal(one, other)
    assert replayed.is_in_use


def test_replayed__other_shapes_run_without(recordings):
    replayed, layers = Replayed(), Layers()
    for _ in range(CALLS_BEFORE + 1):
        replayed(layers, draw(0), layers, [])
    plays = recordings[0].plays
    for rows in (5, 7):
        for _ in range(CALLS_BEFORE + 1):
            torch.manual_seed(3)
            found = replayed(layers, draw(1, rows), layers, [])
            torch.manual_seed(3)
            assert torch.equal(found[0], layers(*draw(1, rows))[0])
    assert len(recordings) == 2
    assert recordings[0].plays == plays


def test_replayed__evaluation_runs_without(recordings):
    replayed, layers = Replayed(), Layers()
    with torch.no_grad():
        for _ in range(2 * CALLS_BEFORE):
            replayed(layers, draw(0), layers, [])
    assert not recordings


def test_replayed__weights_elsewhere_are_recorded_again(recordings, caplog):
    replayed, layers = Replayed(), Layers()
    for time in range(replay.MOST_RECORDINGS + 1):
        layers.first.weight.data = layers.first.weight.data + time
        for _ in range(CALLS_BEFORE + 2):
            torch.manual_seed(time)
            found = replayed(layers, draw(time), layers, [])
            torch.manual_seed(time)
            assert torch.equal(found[3], layers(*draw(time))[3])
    assert len(recordings) == 2 * replay.MOST_RECORDINGS
    assert "weights moved or were frozen 3 times" in caplog.text
    assert not replayed.is_in_use


def test_replayed__a_frozen_weight_is_recorded_again(recordings):
    replayed, layers = Replayed(), Layers()
    train(replayed, layers, range(CALLS_BEFORE + 1))
    layers.first.requires_grad_(False)
    layers.zero_grad()
    hidden, *_, x = replayed(layers, draw(0), layers, [])
    assert not hidden.requires_grad
    x.sum().backward()
    assert len(recordings) == 4
    assert layers.first.weight.grad is None
    assert layers.second.weight.grad is not None


def test_replayed__only_the_last_forward_has_a_backward(recordings):
    replayed, layers = Replayed(), Layers()
    outputs = [replayed(layers, draw(n), layers, []) for n in range(6)]
    outputs[-1][0].sum().backward()
    for y in outputs[-2:]:
        with pytest.raises(RuntimeError, match="only the last forward can have a backward, once"):
            y[3].sum().backward()


@pytest.mark.parametrize(
    ("part", "name"), [(0, "relu"), (1, "threshold_backward"), (1, "mm"), (0, "index_put_")]
)
def test_replayed__a_wrong_graph_is_not_used(recordings, monkeypatch, caplog, part, name):
    record = replay.record

    def record_wrong(function, before):
        recording, result = record(function, before)
        if (before is not None) == bool(part):
            kept = [c for c in recording.calls if c[0].overloadpacket.__name__ != name]
            assert len(kept) < len(recording.calls)
            recording.calls = kept
        return recording, result

    monkeypatch.setattr(replay, "record", record_wrong)
    replayed = Replayed()
    found = train(replayed, Layers(), range(8))
    assert_same(found, train(eager, Layers(), range(8)))
    assert not replayed.is_in_use
    assert caplog.text.count("model.cuda_graph: updates run without") == 1
    assert "the results of the graph differ" in caplog.text


def test_replayed__a_wrong_graph_behind_a_norm_is_not_used(recordings, monkeypatch, caplog):
    record, layers = replay.record, Layers()

    def record_wrong(function, before):
        recording, result = record(function, before)
        if before is not None:
            recording.calls = [c for c in recording.calls if c[3] and c[3][0].shape != (8, 4)]
        return recording, result

    def compute(x):
        hidden = F.layer_norm(layers.first(x), (8,), eps=1e-12)
        return hidden, layers.second(hidden.detach())

    monkeypatch.setattr(replay, "record", record_wrong)
    replayed = Replayed()
    for number in range(CALLS_BEFORE + 1):
        replayed(compute, draw(number)[:1], layers, [])
    assert "the results of the graph differ" in caplog.text


@pytest.mark.parametrize(("dtype", "is_used"), [(torch.float32, False), (torch.bfloat16, True)])
def test_replayed__accepts_what_the_precision_of_weights_does(
    recordings, monkeypatch, dtype, is_used
):
    record, layers = replay.record, torch.nn.Linear(4, 4).to(dtype)

    def record_other(function, before):
        recording, result = record(function, before)
        if before is None:
            recording.calls.append((torch.ops.aten.mul_.Scalar, (result[0], 1.01), {}, []))
        return recording, result

    monkeypatch.setattr(replay, "record", record_other)
    replayed = Replayed()
    for _ in range(CALLS_BEFORE + 1):
        replayed(lambda x: (layers(x).float(),), (torch.ones(2, 4, dtype=dtype),), layers, [])
    assert replayed.is_in_use == is_used


def test_replayed__a_missing_gradient_is_found(recordings, monkeypatch, caplog):
    record = replay.record

    def record_less(function, before):
        recording, result = record(function, before)
        return recording, result if before is None else (None, *result[1:])

    monkeypatch.setattr(replay, "record", record_less)
    replayed = Replayed()
    assert_same(train(replayed, Layers(), range(6)), train(eager, Layers(), range(6)))
    assert "the results of the graph differ by inf" in caplog.text


def test_replayed__continues_if_memory_does_not_suffice(recordings, monkeypatch, caplog):
    def fail(function, before):
        raise torch.cuda.OutOfMemoryError("full\nof tensors")

    monkeypatch.setattr(replay, "record", fail)
    found = train(Replayed(), Layers(), range(8))
    assert_same(found, train(eager, Layers(), range(8)))
    assert caplog.text.count("model.cuda_graph: updates run without") == 1
    assert "the same result: full\n" in caplog.text


def hide_context(error):
    """Return an error as `raise ... from None` makes it."""
    error.__context__, error.__suppress_context__ = KeyError("hidden"), True
    return error


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (RuntimeError("not permitted\nwhile capturing"), "not permitted"),
        (ValueError(), "ValueError"),
        (hide_context(TypeError("a reason")), "a reason"),
        # fairseq would take these words for a batch to leave out.
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried"),
            "CUDA memory does not suffice. T",
        ),
    ],
)
def test_replayed__what_a_graph_cannot_hold_is_an_error(recordings, monkeypatch, cause, reason):
    def fail(function, before):
        try:
            raise cause
        finally:
            raise RuntimeError("a previous error")  # as PyTorch does, at the end of the recording

    monkeypatch.setattr(replay, "record", fail)
    layers = Layers()
    weights = list(layers.parameters())
    with pytest.raises(
        RuntimeError, match=f"record this model: {reason}.*set model.cuda_graph=false"
    ):
        train(Replayed(), layers, range(CALLS_BEFORE + 1))
    assert all(one is other for one, other in zip(weights, layers.parameters()))


def leaves_of(outputs):
    """Return the nodes that add up gradients behind tensors."""
    nodes = [y.grad_fn for y in outputs if y is not None and y.grad_fn is not None]
    seen = set(nodes)
    for node in nodes:  # grows
        found = [one for one, _ in node.next_functions if one is not None and one not in seen]
        seen.update(found)
        nodes += found
    return {node for node in seen if node.name().endswith("AccumulateGrad")}


def test_replayed__does_not_record_what_ddp_keeps(recordings, monkeypatch):
    record, leaves = replay.record, set()

    def record_and_look(function, before):
        recording, result = record(function, before)
        leaves.update(leaves_of(result))
        return recording, result

    monkeypatch.setattr(replay, "record", record_and_look)
    layers, replayed = Layers(), Replayed()
    weights = list(layers.parameters())
    kept = leaves_of([weight.view_as(weight) for weight in weights])
    assert len(kept) == 6
    train(replayed, layers, range(CALLS_BEFORE + 1))
    assert replayed.is_in_use
    assert len(leaves) == 4
    assert not leaves & kept
    assert all(one is other for one, other in zip(weights, layers.parameters()))


def test_replayed__gradients_that_are_zero(recordings):
    layers, replayed = torch.nn.Linear(4, 4), Replayed()
    for _ in range(CALLS_BEFORE + 1):
        (y,) = replayed(lambda x: (layers(x).sub(100).relu(),), (torch.ones(2, 4),), layers, [])
    y.sum().backward()
    assert replayed.is_in_use
    assert not layers.weight.grad.any()


def test_replayed__gradients_stay_after_the_next(recordings):
    layers, replayed = Layers(), Replayed()
    weights = list(layers.first.parameters())
    for number in range(CALLS_BEFORE + 1):
        hidden = replayed(layers, draw(number), layers, [])[0]
        gradients = torch.autograd.grad(hidden.sum(), weights)
    expected = [one.clone() for one in gradients]
    torch.autograd.grad(replayed(layers, draw(9), layers, [])[0].square().sum(), weights)
    assert_same(gradients, expected)


def test_replayed__needs_a_gpu(caplog):
    train(Replayed(), Layers(), range(CALLS_BEFORE))
    assert not caplog.text
    train(Replayed(), Layers(), range(CALLS_BEFORE + 1))
    assert "it needs a GPU" in caplog.text


def test_replayed__does_not_go_with_autocast(recordings, monkeypatch, caplog):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: True)
    train(Replayed(), Layers(), range(CALLS_BEFORE + 1))
    assert "common.amp=true" in caplog.text


def test_replayed__says_that_it_is_in_use(recordings, caplog):
    caplog.set_level(logging.INFO)
    train(Replayed(), Layers(), range(CALLS_BEFORE + 1))
    assert "model.cuda_graph: in use; the results differ by 0 of the limit" in caplog.text


def test_replayed__copies_begin_anew(recordings):
    replayed = Replayed()
    train(replayed, Layers(), range(CALLS_BEFORE + 1))
    assert replayed.is_in_use
    for other in (copy.deepcopy(replayed), pickle.loads(pickle.dumps(replayed))):
        assert not other.is_in_use
