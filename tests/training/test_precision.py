"""Every precision of fairseq trains through the command line."""

import json
import re
from pathlib import Path

import pytest
from fairseq.dataclass.initialize import add_defaults
from omegaconf import OmegaConf

import eat_plugin  # noqa: F401, registers the names
from tests.composing import compose
from tests.versions import half_on_cpu

ROOT = Path(__file__).resolve().parents[2]
COPIES = ["common.memory_efficient_fp16=false", "common.memory_efficient_bf16=false"]
# Options, and fairseq's wrapper of the optimizer.
MODES = {
    "fp16": (["common.fp16=true", "common.fp16_init_scale=1"], "MemoryEfficientFP16Optimizer"),
    "fp16_copies": (
        ["common.fp16=true", "common.fp16_init_scale=1", *COPIES], "FP16Optimizer",
    ),
    "bf16": (["common.bf16=true"], "MemoryEfficientFP16Optimizer"),
    "bf16_copies": (["common.bf16=true", *COPIES], "FP16Optimizer"),
    "amp": (["common.amp=true"], "AMPOptimizer"),
}  # fmt: skip


@pytest.mark.parametrize(
    "mode", ["fp16", *(pytest.param(mode, marks=pytest.mark.slow) for mode in list(MODES)[1:])]
)
@half_on_cpu
def test_precision__trains(trainer, mode):
    options, optimizer = MODES[mode]
    output = trainer.succeed(*options, "optimization.max_update=8", "lr_scheduler.warmup_updates=1")
    found = re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)
    losses = [float(json.loads(line)["loss_regression"]) for line in found]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    assert trainer.checkpoint()["optimizer_history"][-1]["optimizer_name"] == optimizer


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@half_on_cpu
def test_precision__both_float32_weight_modes_train_equally(trainer, precision):
    ends = {}
    for mode in (precision, f"{precision}_copies"):
        options = [*MODES[mode][0], "optimization.max_update=8", "lr_scheduler.warmup_updates=1"]
        output = trainer.succeed(*options, name=mode)
        (*_, last) = re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)
        ends[mode] = json.loads(last)
    first, second = ends.values()
    for name in ("loss", "gnorm"):
        assert float(first[name]) == pytest.approx(float(second[name]), rel=2e-3)


# The precision that an override asks for is what it gets: fairseq looks at either of the
# memory-efficient options before it looks at amp.
@pytest.mark.parametrize(
    "name", ["pretrain", "sslam", "bat", "finetune", "image_pretrain", "image_finetune"]
)
def test_config__memory_efficient_option_matches_the_precision(name):
    composed = compose(name, [])
    add_defaults(composed)
    for changes, expected in (
        ({}, (True, False)),
        ({"fp16": False, "bf16": True}, (False, True)),
        ({"cpu": True, "fp16": False}, (False, False)),
        ({"fp16": False, "amp": True}, (False, False)),
        ({"memory_efficient_fp16": False}, (False, False)),
    ):
        common = OmegaConf.merge(composed, {"common": changes}).common
        found = (common.memory_efficient_fp16, common.memory_efficient_bf16)
        assert found == expected, changes
