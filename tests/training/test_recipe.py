"""Runs that leave open what they can: the choices made at start are trained, saved and resumed."""

import logging

import pytest

from eat_plugin.cli import main
from eat_plugin.data.manifest import read_manifest
from eat_plugin.inference import load_checkpoint
from tests.training.in_process import load, train

OPEN = ["task.target_length=-1", "lr_scheduler.warmup_updates=-1", "optimization.max_update=20"]
OPEN_CLASSIFIER = [*OPEN, "dataset.batch_size=-1"]


def sections(folder):
    cfg = load(folder)["cfg"]
    return cfg["task"], cfg["model"], cfg["optimization"], cfg["lr_scheduler"]


def test_recipe__pretrained_fine_tuned_resumed_and_evaluated(labelled, caplog):
    """The longest of the clips, which are shorter than 2 s, is the window."""
    pretrained, folder = labelled / "pretrained", labelled / "fine_tuned"
    train("pretrain", labelled, *OPEN, f"checkpoint.save_dir={pretrained}")
    task, model, _, schedule = sections(pretrained)
    longest = read_manifest(labelled / "train.tsv").sizes.max()
    window = -(-(1 + longest // 160) // 4) * 4
    assert task["target_length"] == model["modalities"]["image"]["target_length"] == window
    assert task["patch_size"] == model["modalities"]["image"]["patch_size"] == [4, 128]
    assert (task["frontend"], task["norm"], len(task["norm_mean"])) == ("db", "bins", 128)
    assert (schedule["warmup_updates"], model["ema_decay"]) == (2, pytest.approx(0.99))

    start = f"model.model_path={pretrained / 'checkpoint_last.pt'}"
    options = [*OPEN_CLASSIFIER, start, f"checkpoint.save_dir={folder}"]
    train("finetune", labelled, *options)
    task, model, optimization, schedule = sections(folder)
    assert (task["target_length"], task["patch_size"]) == (window, [4, 128])
    assert (task["frontend"], task["norm"], task["roll_gain"]) == ("db", "bins", False)
    assert (model["prediction_mode"], model["target_length"]) == ("MEAN_MAX_POOLING", window)
    assert (optimization["lr"], schedule["warmup_updates"]) == ([1e-3], 2)
    assert load(folder)["cfg"]["dataset"]["batch_size"] == 16
    assert load(folder)["model"]["head.weight"].shape == (3, 2 * 32)

    caplog.set_level(logging.INFO, "eat_plugin")
    train("finetune", labelled, *options, "optimization.max_update=30")
    assert "chosen earlier" in caplog.text
    again = sections(folder)
    assert again[0] == task
    for name in ("prediction_mode", "layer_decay", "drop_path_rate", "modalities"):
        assert again[1][name] == model[name]
    assert again[3]["warmup_updates"] == 2  # a new run of this length would have 3
    assert load_checkpoint(folder / "checkpoint_last.pt").patch == 4
    data = ["--data", str(labelled), "--device", "cpu"]
    assert main(["evaluate", "--checkpoint", str(folder / "checkpoint_last.pt"), *data]) == 0


def test_recipe__from_random_weights(labelled):
    train("finetune", labelled, *OPEN_CLASSIFIER, f"checkpoint.save_dir={labelled}")
    task, model, optimization, _ = sections(labelled)
    assert (task["patch_size"], task["norm"]) == ([4, 128], "bins")
    assert (model["prediction_mode"], model["layer_decay"]) == ("MEAN_MAX_POOLING", 1)
    assert optimization["lr"] == [1e-3]
