"""Updates on a GPU: no synchronisation, the CPU's losses, flash attention, compilation.

The tests also run on the CPU if it supports the feature.
"""

import contextlib
import warnings

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import trainer
from benchmarks.timing import Place
from benchmarks.training import load_config
from eat_plugin.modules import decoders, transformer
from eat_plugin.modules.replay import CALLS_BEFORE
from tests.gpu.test_bench import SMALL_RUN
from tests.versions import compilation, half_on_cpu

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu", CUDA]
HALF_DEVICES = [pytest.param("cpu", marks=half_on_cpu), CUDA]
HALVES = [torch.bfloat16, torch.float16]


@contextlib.contextmanager
def no_synchronisation(device):
    """Raise if the host waits for a GPU."""
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_no_synchronisation__raises():
    value = torch.ones((), device="cuda")
    with pytest.raises(RuntimeError, match="synchroniz"), no_synchronisation("cuda"):
        value.item()
    assert torch.cuda.get_sync_debug_mode() == 0


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("device", HALF_DEVICES)
@pytest.mark.parametrize(
    "options",
    [
        {"recompute": "none"}, {"recompute": "gelu"}, {"recompute": "blocks"},
        {"retention_loss": 1.0, "cls_target": "last_targets"},
    ],
)  # fmt: skip
def test_update__does_not_synchronise(make_step, device, dtype, options):
    step = make_step(device, dtype, **options)
    losses = [step()]  # creates states, loads libraries
    with no_synchronisation(device):
        losses += [step() for _ in range(3)]
    losses = [float(loss) for loss in losses]
    assert losses[-1] < losses[0]


@pytest.mark.gpu
def test_trainer__waits_once_in_an_update(tmp_path):
    place = Place(tmp_path, torch.device("cuda"))
    cfg = load_config("base", [*trainer.run_options(place, 2), *SMALL_RUN])
    task = trainer.tasks.setup_task(cfg.task)
    batch = trainer.make_batch(cfg, task, tmp_path)
    batch = trainer.apply_to_sample(lambda tensor: tensor.pin_memory(), batch)
    ours = trainer.TrainerUpdate(cfg, task, batch)
    for _ in range(3):
        ours.step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours.trainer.train_step([batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(one.message) for one in caught if "synchroniz" in str(one.message)]
    assert len(waits) == 1, waits


@pytest.mark.parametrize("device", DEVICES)
def test_losses__equal_the_cpus(make_step, full_precision, device):
    expected = make_step("cpu", torch.float32, noise=False)
    found = make_step(device, torch.float32, noise=False)
    assert float(found()) == pytest.approx(float(expected()), rel=1e-4)
    # Adam's first step depends on the signs of gradients; some of them are rounding errors.
    assert float(found()) == pytest.approx(float(expected()), rel=1e-3)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("device", HALF_DEVICES)
def test_losses__half_precision_is_close_to_float32(make_step, device, dtype):
    expected = make_step("cpu", torch.float32, noise=False)()
    found = make_step(device, dtype, noise=False)()
    assert float(found) == pytest.approx(float(expected), rel=0.01)


@pytest.mark.gpu
def test_attention__is_flash_attention(make_step):
    attention = pytest.importorskip("torch.nn.attention")
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("flash attention needs compute capability 8.0")
    step = make_step("cuda", torch.bfloat16)
    # Other backends raise here.
    with attention.sdpa_kernel(attention.SDPBackend.FLASH_ATTENTION):
        loss = step()
    assert torch.isfinite(loss)


BAT = {
    "target_length": 128, "embed_dim": 128,
    "decoder": {"decoder_kind": "vit", "decoder_dim": 128, "hidden_share": 0.5},
}  # fmt: skip
GRAPHED = {
    "eat": {},
    "dropout": {"encoder_dropout": 0.1, "attention_dropout": 0.1},
    "gelu": {"recompute": "gelu"},
    "blocks": {"recompute": "blocks"},
    "mixtures": {"retention_loss": 1.0, "cls_target": "last_targets"},
    "bat": {"attention_gate": True, "modalities": {"image": BAT}},
    "compiled": {"compile": True},
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("name", GRAPHED)
def test_cuda_graph__equals_eager(make_step, full_precision, request, device, dtype, name):
    if device == "cpu":
        if dtype != torch.float32 or name == "compiled":
            pytest.skip("on a GPU only")
        request.getfixturevalue("recordings")
    losses = []
    for cuda_graph in (False, True):
        step = make_step(device, dtype, cuda_graph=cuda_graph, **GRAPHED[name])
        # DistributedDataParallel keeps these nodes, and with them the stream of the host.
        kept = [p.view_as(p).grad_fn for p in step.model.parameters()]
        torch.manual_seed(0)
        losses.append([])
        for update in range(CALLS_BEFORE + 4):
            step.sample["net_input"]["source"].mul_(0.9)  # another batch
            step.sample["net_input"]["noise_seed"] = update
            losses[-1].append(float(step()))
        del kept
    assert step.model.replayed.is_in_use
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if dtype == torch.float32 else 0.01)


@pytest.mark.gpu
def test_cuda_graph__launches_less_and_does_not_synchronise(make_step):
    launches = []
    for cuda_graph in (False, True):
        step = make_step("cuda", torch.bfloat16, cuda_graph=cuda_graph)
        for _ in range(CALLS_BEFORE + 2):
            step()
        with no_synchronisation("cuda"):
            step()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            step()
        names = [event.key for event in profiled.key_averages() for _ in range(event.count)]
        launches.append(sum("LaunchKernel" in name for name in names))
    assert launches[1] < launches[0] / 2


@compilation
@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), CUDA])
def test_compiled__equals_eager_within_rounding(make_step, device):
    eager = make_step(device, torch.bfloat16, noise=False)
    compiled = make_step(device, torch.bfloat16, noise=False, compile=True)
    for function in (transformer.COMPILED, decoders.COMPILED):
        function.reset()
    losses = [(float(eager()), float(compiled())) for _ in range(3)]
    for expected, found in losses:
        assert found == pytest.approx(expected, rel=0.01)
    assert transformer.COMPILED.is_in_use
    assert decoders.COMPILED.is_in_use
