"""Every precision of fairseq trains through the command line."""

import json
import re

import pytest

MODES = {
    "fp16": ["common.fp16=true", "common.fp16_init_scale=1"],
    "memory_efficient_fp16": [
        "common.fp16=true", "common.memory_efficient_fp16=true", "common.fp16_init_scale=1",
    ],
    "amp": ["common.amp=true"],
}  # fmt: skip


@pytest.mark.parametrize(
    "mode", ["fp16", *(pytest.param(mode, marks=pytest.mark.slow) for mode in list(MODES)[1:])]
)
def test_precision__trains(trainer, mode):
    output = trainer.succeed(
        *MODES[mode], "optimization.max_update=8", "lr_scheduler.warmup_updates=1"
    )
    found = re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)
    losses = [float(json.loads(line)["loss_regression"]) for line in found]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
