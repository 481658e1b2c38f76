"""fairseq's half precision modes: with which optimizer, and after which run."""

import pytest
import torch
from omegaconf import OmegaConf

from eat_plugin.tasks import precision as modes
from eat_plugin.tasks.precision import check
from eat_plugin.tasks.pretraining import EatPretrainingTask, PretrainingConfig
from eat_plugin.tasks.resume import EarlierRun
from tests.versions import fairseq_main, half_on_cpu

COPIES, MASTERS = "FP16Optimizer", "MemoryEfficientFP16Optimizer"


def make(optimizer="eat_adamw", **common):
    return OmegaConf.create(
        {"common": common, "optimizer": {"_name": optimizer}, "task": {"data": "x"}}
    ).task


@fairseq_main
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("begun", [COPIES, MASTERS, "EatAdamW", ""])
@pytest.mark.parametrize("efficient", [False, True])
def test_check__a_run_goes_on_in_its_own_mode(precision, begun, efficient, caplog):
    cfg = make(**{precision: True, f"memory_efficient_{precision}": efficient})
    earlier = EarlierRun("last.pt", {}, {}, begun)
    if begun == (COPIES if efficient else MASTERS):
        advice = f"common.memory_efficient_fp16={str(not efficient).lower()}"
        with pytest.raises(ValueError, match=f"last.pt was written .*{advice}"):
            check(cfg, earlier)
    else:
        check(cfg, earlier)
    assert not caplog.text


def test_check__copies_that_lose_options_are_refused(monkeypatch):
    check(make("adam", bf16=True), None)
    check(make(bf16=True, memory_efficient_bf16=True), None)
    monkeypatch.setattr(modes, "_copies_keep_overrides", lambda: False)
    check(make("adam", bf16=True), None)
    check(make(bf16=True, memory_efficient_bf16=True), None)
    with pytest.raises(ValueError, match="fairseq .* loses, .*; set common.memory_efficient_fp16="):
        check(make(bf16=True), None)


@half_on_cpu
def test_task__refuses_to_go_on_in_the_other_mode(tmp_path):
    history = [{"optimizer_name": COPIES}]
    saved = {"cfg": {"task": {"norm_mean": -5.0, "norm_std": 3.0}}, "optimizer_history": history}
    torch.save(saved, tmp_path / "checkpoint_last.pt")
    checkpoint = {"save_dir": str(tmp_path), "restore_file": "checkpoint_last.pt"}

    def begin(**options):
        cfg = OmegaConf.create(
            {
                "common": {"cpu": True, "fp16": True, "memory_efficient_fp16": True, "seed": 1},
                "optimizer": {"_name": "eat_adamw"},
                "checkpoint": {**checkpoint, **options},
                "task": OmegaConf.structured(
                    PretrainingConfig(data=str(tmp_path), patch_size=16, seed=1)
                ),
            }
        )
        return EatPretrainingTask(cfg.task)

    with pytest.raises(ValueError, match=r"checkpoint_last\.pt was written"):
        begin()
    begin(reset_optimizer=True)  # nothing of its state is used


def test_check__float32_has_no_modes(caplog):
    earlier = EarlierRun("last.pt", {}, {}, COPIES)
    check(make("adam", memory_efficient_fp16=True), earlier)
    check(make(), None)
    check(OmegaConf.create({"data": "x"}), earlier)
    assert not caplog.text


@pytest.mark.parametrize("optimizer", ["adam", "composite"])
def test_check__warns_of_optimizers_without_float32_weights(optimizer, caplog):
    check(make(optimizer, fp16=True, memory_efficient_fp16=False), None)
    assert not caplog.text
    check(make(optimizer, fp16=True, memory_efficient_fp16=True), None)
    assert f"optimizer {optimizer} keeps no float32 weights" in caplog.text
