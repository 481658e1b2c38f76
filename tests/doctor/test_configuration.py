"""Numbers of a run, against hand computations and measurements."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.training import load_config
from eat_plugin.doctor import configuration, cost
from eat_plugin.doctor.configuration import Batches, check_balance, check_disk, check_memory
from eat_plugin.launch.trial import build_without_values
from eat_plugin.models.eat import EatModel

GIB = 2**30


def run_config(size="base", **common):
    cfg = load_config(size)
    half = {"cpu": False, "fp16": False, "bf16": True, "amp": False, **common}
    return OmegaConf.merge(cfg, {"common": half})


def build(cfg):
    task = SimpleNamespace(build_model=EatModel)
    return build_without_values(task, cfg)


def test_weigh__base_takes_what_was_measured_on_an_h100():
    cfg = run_config()
    model = build(cfg)
    assert next(model.parameters()).is_meta
    found = cost.weigh(cfg, model)
    assert found.trained == 87_840_000
    assert found.flops == pytest.approx(1077.1e9, rel=1e-3)
    # docs/performance.md: 11,008 and 38,684 MiB at 12 and 48 clips.
    assert found.memory(12) / 2**20 == pytest.approx(11_008, rel=0.05)
    assert found.memory(48) / 2**20 == pytest.approx(38_684, rel=0.05)
    # docs/sizing.md, computed from both.
    assert found.fixed / GIB == pytest.approx(1.8, rel=0.03)
    assert found.per_clip / GIB == pytest.approx(0.75, rel=0.03)
    # Weights in bfloat16, master and moments of Adam, averages of the teacher.
    averaged = sum(each.numel() for each in model.teacher.averages.values())
    extra = found.checkpoint - 87_840_000 * (2 + 4 + 8) - averaged * 4
    assert extra == 768 * 8 * 768 * 2  # the table of positions, of the longest window


def test_weigh__recomputation_and_float32():
    cfg = run_config()
    model = build(cfg)
    kept = cost.weigh(cfg, model).per_clip / cost.PEAK
    assert kept / 2**20 == pytest.approx(712, rel=0.02)
    model.cfg.recompute = "gelu"
    assert cost.weigh(cfg, model).per_clip / cost.PEAK / 2**20 == pytest.approx(524, rel=0.02)
    # Of 12 blocks and 6 layers of the decoder; in fp16 a layer has 1 of 3 values of 512 patches.
    model.cfg.recompute = "blocks"
    inputs = 16 * 2 * 768 * (12 * 103 + 6 * 512)
    again = 16 * 2 * 768 * max(103 * (9 + 2 * 4), 512 * 3)
    assert cost.weigh(cfg, model).per_clip == pytest.approx(cost.PEAK * (inputs + again))
    single = run_config(bf16=False)
    model.cfg.recompute = "none"
    assert cost.weigh(single, model).per_clip == pytest.approx(2 * kept * cost.PEAK)
    # On a CPU what is freed stays in fragments, and GELU computed again saves next to nothing.
    for recompute in ("none", "gelu"):
        model.cfg.recompute = recompute
        found = cost.weigh(single, model, is_gpu=False).per_clip
        assert found == pytest.approx(2 * kept * cost.PEAK_IN_MAIN_MEMORY)


# Peak bytes of pre-training of `tiny` by 48 clips in float32 on a CPU, as in docs/sizing.md.
@pytest.mark.parametrize(
    ("name", "recompute", "measured"),
    [
        ("pretrain", "none", 1.71), ("pretrain", "gelu", 1.52), ("pretrain", "blocks", 1.03),
        ("bat", "none", 2.86), ("bat", "gelu", 2.80), ("bat", "blocks", 1.43),
    ],
)  # fmt: skip
def test_weigh__tiny_takes_about_what_was_measured_on_a_cpu(name, recompute, measured):
    half = {"cpu": True, "fp16": False, "bf16": False, "amp": False}
    cfg = OmegaConf.merge(load_config("tiny", name=name), {"common": half})
    model = build(cfg)
    model.cfg.recompute = recompute
    found = cost.weigh(cfg, model, is_gpu=False).memory(48) + cost.LIBRARIES
    assert found / 1e9 == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        # The last two intervals, checkpoint_last.pt, and the one being written.
        ({}, 4),
        ({"keep_interval_updates": 1}, 3),
        ({"keep_interval_updates": -1}, 42),
        ({"keep_interval_updates": 100}, 42),
        ({"save_interval_updates": 0}, 2),
        ({"keep_interval_updates_pattern": 20_000}, 24),
        ({"no_epoch_checkpoints": False}, 13),
        ({"no_epoch_checkpoints": False, "keep_last_epochs": 4}, 8),
        ({"no_epoch_checkpoints": False, "save_interval": 2}, 8),
        ({"no_last_checkpoints": True}, 3),
        ({"no_save": True}, 0),
    ],
)
def test_count_checkpoints__as_fairseq_keeps_them(changes, number):
    assert run_config().checkpoint.save_interval_updates == 10_000
    cfg = OmegaConf.merge(run_config(), {"checkpoint": changes})
    assert cost.count_checkpoints(cfg, 400_000, 9.6) == number


def test_count_checkpoints__best():
    best = {"keep_best_checkpoints": 3, "save_interval_updates": 0}
    cfg = OmegaConf.merge(
        run_config(), {"checkpoint": best, "dataset": {"disable_validation": False}}
    )
    assert cost.count_checkpoints(cfg, 100, 1) == 1 + 3 + 1 + 1


def test_measure_products__is_a_speed():
    assert 1e8 < cost.measure_products("cpu", torch.float32, 0.01) < 1e14


def test_count_batches__of_the_published_run():
    cfg = OmegaConf.merge(run_config(), {"distributed_training": {"distributed_world_size": 4}})
    found = configuration.count_batches(cfg, 2_000_000)
    assert (found.size, found.per_update, found.per_epoch) == (12, 48, 41_667)
    seen = configuration.describe_batches(found).seen
    assert seen == (
        "an update has 48 clips (12 clips x 4 processes), an epoch 41667 updates (2000000 clips), "
        "the run 400000 updates: 9.6 epochs"
    )
    cfg.optimization.max_epoch = 2
    assert configuration.count_batches(cfg, 2_000_000).updates == 83_334
    cfg.dataset.batch_size, cfg.dataset.max_tokens = None, 10 * 1024
    assert configuration.count_batches(cfg, 0).size == 10
    cut = configuration.count_batches(cfg, 7)
    assert (cut.size, cut.per_update, cut.per_epoch) == (7, 7, 1)


def test_describe_batches__less_than_an_epoch():
    found = configuration.describe_batches(Batches(12, 1, 2, 100, 10_000))
    assert found.level == "warning"
    assert found.fix == "optimization.max_update=417 for one epoch"


def test_describe__model_and_losses():
    cfg = run_config()
    model = build(cfg)
    seen = configuration.describe_model(cfg, model, cost.weigh(cfg, model)).seen
    assert seen == (
        "12 blocks of width 768, 87,840,000 trained parameters; a window of 10.24 s is 512 patches "
        "of 16 x 16, seen under 16 masks"
    )
    losses, balance = configuration.describe_losses(model, Batches(12, 4, 1, 100, 0))
    assert losses.seen == "losses: cls x 1 (model.cls_loss), regression x 1 (model.d2v_loss)"
    assert balance.level == "ok"
    assert "weighs 1 times what it does in the published run" in balance.seen


@pytest.mark.parametrize(
    ("weight", "clips", "clones", "level", "factor", "balanced"),
    [
        (1.0, 12, 16, "ok", "weighs 1 times", None),
        (1.0, 48, 16, "warning", "weighs 4 times", "model.cls_loss=0.25"),
        (0.25, 48, 16, "ok", "weighs 1 times", None),
        (0.01, 12, 8, "ok", "weighs 0.005 times", "model.cls_loss=2"),
        (1.0, 16, 16, "ok", "weighs 1.33 times", "model.cls_loss=0.75"),
    ],
)
def test_check_balance__grows_with_the_batch(weight, clips, clones, level, factor, balanced):
    found = check_balance(weight, clips, clones)
    assert found.level == level
    assert factor in found.seen
    assert (balanced or "balance") in f"{found.seen} {found.fix} balance"


def test_check_time__hours_and_devices():
    cfg = run_config()
    batches = Batches(12, 4, 1, 400_000, 0)
    found = configuration.check_time(cfg, batches, 40.0, "timed", 768)
    # 19.2 million clips at 160 per second.
    assert (found.level, "33.3 hours in all (timed)" in found.seen) == ("ok", True)
    cfg.common.cpu = True
    found = configuration.check_time(cfg, batches, 40.0, "timed", 768)
    assert (found.level, found.fix) == ("warning", "a GPU; --size tiny is for CPUs")
    assert configuration.check_time(cfg, batches, 40.0, "timed", 192).level == "ok"


@pytest.mark.parametrize(
    ("needed", "level"), [(10 * GIB, "ok"), (15 * GIB, "warning"), (17 * GIB, "error")]
)
def test_check_memory(needed, level):
    found = check_memory(needed, 16 * GIB, True, "estimated", "none")
    assert found.level == level
    assert ("recompute" in found.fix) == (level != "ok")
    assert check_memory(needed, None, True, "estimated", "none").level == "ok"


@pytest.mark.parametrize(
    ("recompute", "fix"),
    [("none", "model.recompute=gelu, or a "), ("gelu", "model.recompute=blocks, or a "),
     ("blocks", "a smaller dataset.batch_size")],
)  # fmt: skip
def test_check_memory__the_next_step_of_recomputation(recompute, fix):
    assert check_memory(17 * GIB, 16 * GIB, True, "estimated", recompute).fix.startswith(fix)
    on_a_cpu = check_memory(17 * GIB, 16 * GIB, False, "estimated", recompute).fix
    assert on_a_cpu.startswith(fix.replace("gelu", "blocks"))


@pytest.mark.parametrize(("free", "level"), [(50, "ok"), (41, "warning"), (39, "error")])
def test_check_disk(free, level):
    cfg, batches = run_config(), Batches(12, 1, 1, 400_000, 4_000_000)
    found = check_disk(cfg, batches, 10 * 10**9, free * 10**9, "/runs")
    assert found.level == level
    assert "up to 40.00 GB (4 x 10.00 GB" in found.seen
    assert f"/runs has {free}.00 GB free" in found.seen


def test_expect_rate__is_higher_in_bfloat16_on_cpus_that_multiply_it_fast(monkeypatch):
    monkeypatch.setattr(cost, "measure_products", lambda *_: 1e9)
    work = cost.Cost(1, 0.0, 0.0, 0.0, flops=1e6)
    rates = {}
    for gain, half in ((2.5, True), (2.5, False), (1.0, True)):
        monkeypatch.setattr(cost, "bfloat16_gain", lambda gain=gain: gain)
        rates[gain, half], _ = cost.expect_rate(work, run_config(cpu=True, bf16=half))
    assert rates[2.5, True] == pytest.approx(2.5 * rates[2.5, False])
    assert rates[1.0, True] == rates[2.5, False]
