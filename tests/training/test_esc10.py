"""Pre-training on real recordings through the command line learns, and does not collapse."""

import json
import re

import pytest

FACTOR = 1.5  # by which the regression loss of one patch falls
# Targets have variance 1 in each of 192 channels: predicting 0 costs 192 / sqrt(192) a patch.
BEST_GUESS = 192**0.5
LEAST_TARGET_VAR = 0.5


@pytest.mark.slow
def test_esc10__tiny_learns_without_collapse(trainer, shared):
    from eat_plugin.cli import main

    data = trainer.folder / "esc10"
    assert main(["manifest", str(shared / "data" / "esc10" / "audio"), "--out", str(data)]) == 0
    output = trainer.succeed(
        "common.cpu=true", "common.fp16=false", f"task.data={data}", "optimization.max_update=400",
        config=("pretrain", "size=tiny"),
    )  # fmt: skip
    found = re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)
    lines = [json.loads(line) for line in found]
    assert int(lines[-1]["num_updates"]) == 400
    first, last = (float(lines[i]["loss_regression"]) for i in (0, -1))
    assert first / last > FACTOR, (first, last)
    assert last < 0.85 * BEST_GUESS
    assert min(float(line["target_var"]) for line in lines) > LEAST_TARGET_VAR
    assert lines[-1]["skipped_clips"] == "0"
