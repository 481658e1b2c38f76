"""Pre-training on real recordings reduces the losses and does not collapse."""

import json
import re
from statistics import mean

import pytest

FACTOR = 1.5  # least decrease of the regression loss per patch
# Targets have variance 1 in each of 192 channels: predicting 0 costs 192 / sqrt(192) per patch.
BEST_GUESS = 192**0.5
LEAST_TARGET_VAR = 0.5
LOSSES = ("loss", "loss_regression", "loss_cls", "loss_recon")


def pretrain_tiny(trainer, shared, *overrides, name="run"):
    """Train on ESC-10 in float32 unless overridden; return the logged records."""
    from eat_plugin.cli import main

    data = trainer.folder / "esc10"
    assert main(["manifest", str(shared / "data" / "esc10" / "audio"), "--out", str(data)]) == 0
    process = trainer.start(
        "common.cpu=true", "common.fp16=false", f"task.data={data}", *overrides,
        config=("pretrain", "size=tiny"), name=name,
    )  # fmt: skip
    output, _ = process.communicate(timeout=3600)  # bfloat16 is slow on some CPUs
    assert process.returncode == 0, output[-5000:]
    found = re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)
    return [json.loads(line) for line in found]


@pytest.mark.slow
def test_esc10__tiny_learns_without_collapse(trainer, shared):
    lines = pretrain_tiny(trainer, shared, "optimization.max_update=400")
    assert int(lines[-1]["num_updates"]) == 400
    first, last = (float(lines[i]["loss_regression"]) for i in (0, -1))
    assert first / last > FACTOR, (first, last)
    assert last < 0.85 * BEST_GUESS
    assert min(float(line["target_var"]) for line in lines) > LEAST_TARGET_VAR
    assert lines[-1]["skipped_clips"] == "0"


@pytest.mark.slow
def test_esc10__bfloat16_reaches_the_losses_of_float32(trainer, shared):
    """The mean of the last 20 of 80 updates, of the loss and of each of its terms."""
    options = ["optimization.max_update=80", "common.log_interval=1", "checkpoint.no_save=true"]
    precise = pretrain_tiny(trainer, shared, *options, name="float32")
    rounded = pretrain_tiny(trainer, shared, *options, "common.bf16=true", name="bfloat16")
    assert [int(line["num_updates"]) for line in rounded] == list(range(1, 81))
    assert len(precise) == len(rounded)
    for name in LOSSES:
        expected, found = ([float(line[name]) for line in lines] for lines in (precise, rounded))
        assert found != expected, name  # the precision differs
        assert mean(found[-20:]) == pytest.approx(mean(expected[-20:]), rel=0.02), name
        assert mean(expected[-20:]) < 0.95 * expected[0], name
