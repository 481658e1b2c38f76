"""Runs with the losses of whole clips: resumed, accumulated, of clips of different length."""

import logging

import pytest

from tests.training.in_process import load, logged_updates, train
from tests.versions import half_on_cpu

ON = [
    "model.cls_target=layers", "model.dino_loss=1", "model.dino_prototypes=16",
    "optimization.max_update=4",
]  # fmt: skip


@half_on_cpu
@pytest.mark.parametrize("precision", [[], ["common.bf16=true", "model.recompute=blocks"]])
def test_resume__equals_one_run(clips, assert_same, precision):
    options = [*ON, *precision, "checkpoint.save_interval_updates=2"]
    options += ["checkpoint.keep_interval_updates=-1", "checkpoint.no_epoch_checkpoints=false"]
    train("pretrain", clips, *options, f"checkpoint.save_dir={clips / 'one'}")
    (middle,) = (clips / "one").glob("checkpoint_*_2.pt")
    resumed = [f"checkpoint.save_dir={clips / 'two'}", f"checkpoint.restore_file={middle}"]
    train("pretrain", clips, *options, *resumed)
    one, two = load(clips / "one"), load(clips / "two")
    assert two["optimizer_history"][-1]["num_updates"] == 4
    assert_same(one["model"], two["model"])
    assert "dino_head.prototypes" in one["model"]["_ema"]


@pytest.mark.parametrize(
    "options",
    [
        ["task.length=mask", "optimization.update_freq=[2]", "model.compile=false"],
        ["criterion._name=model"],
        ["model.cls_target=cls", "dataset.batch_size=1"],
    ],
)
def test_run__logs_finite_losses(clips, caplog, options):
    caplog.set_level(logging.INFO)
    train("pretrain", clips, *ON, "common.log_interval=1", *options)
    records = logged_updates(caplog)
    assert len(records) == 4
    for record in records:
        assert 0 < float(record["loss"]) < 1e4
        if "criterion._name=model" not in options:
            assert abs(float(record["loss_dino"])) < 100
            assert 0 < float(record["dino_entropy"]) <= float(record["dino_log_prototypes"]) + 1e-3
    if "criterion._name=model" not in options:
        assert float(records[-1]["dino_log_prototypes"]) == pytest.approx(2.773, abs=1e-3)


@pytest.mark.parametrize(("target", "times"), [("targets", 1), ("layers", 0)])
def test_published_dino__warns_once_of_uniform_targets(clips, caplog, target, times):
    options = ["model.utterance_level=true", f"model.cls_target={target}"]
    train("pretrain", clips, *options, "optimization.max_update=2")
    found = [r for r in caplog.records if "targets of all clips are nearly the same" in r.message]
    assert len(found) == times
