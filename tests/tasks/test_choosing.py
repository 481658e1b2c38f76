"""Options that are chosen at start, and the rules of the recipes."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf

from eat_plugin import cli
from eat_plugin.tasks.choosing import Known, Rule, choose_options
from eat_plugin.tasks.recipe import (
    FINETUNING,
    LENGTH_OF_FINETUNING,
    LENGTH_OF_PRETRAINING,
    OWN_CLIPS,
)
from eat_plugin.tasks.resumed import ResumedRun
from eat_plugin.tasks.run_config import RunConfig

OPEN = {
    "common": {"log_interval": -1},
    "checkpoint": {"save_interval_updates": -1, "save_interval": 1},
    "lr_scheduler": {"warmup_updates": -1},
    "model": {
        "depth": 12, "ema_decay": -1, "ema_end_decay": -1.0, "ema_anneal_end_step": -1,
    },
}  # fmt: skip


def make(*parts):
    cfg = OmegaConf.merge({"task": {"data": "x"}}, *parts)
    OmegaConf.set_struct(cfg, True)
    return RunConfig(cfg.task)


def choose(rules, *parts, resumed=None):
    run = make(*parts)
    choose_options(run, rules, resumed)
    return run


@pytest.mark.parametrize(
    ("updates", "depth", "expected"),
    [
        (400_000, 12, (53_333, 0.9998, 0.99999, 100_000, 10_000, 200)),  # base, as published
        (400_000, 24, (53_333, 0.9998, 0.99999, 150_000, 10_000, 200)),  # large
        (400, 4, (53, 0.99, 0.999, 400, 100, 10)),
        (7, 4, (0, 0.99, 0.999, 7, 7, 1)),
    ],
)
def test_length__published_values_at_the_published_length(updates, depth, expected):
    length = {"optimization": {"max_update": updates}, "model": {"depth": depth}}
    run = choose(LENGTH_OF_PRETRAINING, OPEN, length)
    names = (
        "lr_scheduler.warmup_updates", "model.ema_decay", "model.ema_end_decay",
        "model.ema_anneal_end_step", "checkpoint.save_interval_updates", "common.log_interval",
    )  # fmt: skip
    assert [run.get(name) for name in names] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("updates", "reports", "expected"),
    [(400, 10, 100), (400, 30, 120), (20_000, 10, 200), (400_000, 200, 1000), (400_000, -1, 1000)],
)
def test_length__measurements_are_at_reports(updates, reports, expected):
    parts = {"optimization": {"max_update": updates}, "common": {"log_interval": reports}}
    run = choose(LENGTH_OF_PRETRAINING, OPEN, {"task": {"monitor": {"interval": -1}}}, parts)
    assert run.get("task.monitor.interval") == expected


@pytest.mark.parametrize("updates", [4000, 40_000, 300_000])
def test_length__fine_tuning_warms_up_for_a_tenth_as_published(updates):
    run = choose(LENGTH_OF_FINETUNING, OPEN, {"optimization": {"max_update": updates}})
    assert run.get("lr_scheduler.warmup_updates") == updates // 10


def test_choose__leaves_given_values_and_says_what_it_chose(caplog):
    caplog.set_level(logging.INFO)
    given = {"model": {"ema_decay": 0.5}, "optimization": {"max_update": 1000}}
    run = choose(LENGTH_OF_PRETRAINING, OPEN, given)
    assert run.get("model.ema_decay") == 0.5
    assert "lr_scheduler.warmup_updates=133" in run.choices
    assert not any(choice.startswith("model.ema_decay") for choice in run.choices)
    assert "set an option to fix it: common.log_interval=25" in caplog.text


def test_choose__copies_follow_unless_they_are_given():
    rules = {"a.x": Rule(lambda known: 7, ("a.y", "b.z", "b.list"))}
    run = choose(rules, {"a": {"x": -1, "y": -1}, "b": {"z": 3, "list": [-1]}})
    assert OmegaConf.to_container(run.root) == {
        "task": {"data": "x"}, "a": {"x": 7, "y": 7}, "b": {"z": 3, "list": 7},
    }  # fmt: skip


def test_choose__sets_the_copy_of_the_task_too():
    run = make({"task": {"target_length": -1, "precompute_mask_config": {"patch_size": -1}}})
    task = OmegaConf.create(OmegaConf.to_container(run.root.task))
    rules = {
        "task.target_length": Rule(lambda known: 64, ("task.precompute_mask_config.patch_size",))
    }
    choose_options(run, rules, None, task)
    assert task.target_length == task.precompute_mask_config.patch_size == 64
    assert run.get("task.target_length") == 64


@pytest.mark.parametrize("optimizer", ["EatAdamW", ""])
def test_resumed__keeps_its_choices_unless_the_optimizer_is_new(optimizer):
    """A checkpoint's choices of shapes hold in any case."""
    saved = {"lr_scheduler": {"warmup_updates": 5}, "model": {"shape": 3}}
    resumed = ResumedRun("last.pt", saved, {}, optimizer)
    rules = {
        "lr_scheduler.warmup_updates": Rule(lambda known: 9),
        "model.shape": Rule(lambda known: 9, shapes=True),
    }
    run = choose(rules, OPEN, {"model": {"shape": -1}}, resumed=resumed)
    assert run.get("lr_scheduler.warmup_updates") == (5 if optimizer else 9)
    assert run.get("model.shape") == 3


CUSTOM = {
    "task": {
        "norm": "auto", "target_length": -1, "roll_gain": None, "patch_size": -1,
        "weights_file": None,
    },
    "dataset": {"batch_size": -1, "train_subset": "train", "validate_interval": -1},
    "optimization": {"max_update": -1, "lr": [-1]},
    "checkpoint": {"save_interval": -1},
    "model": {
        "model_path": None, "depth": 4, "embed_dim": 192, "prediction_mode": None,
        "layer_decay": -1, "drop_path_rate": -1, "target_length": -1,
        "modalities": {"image": {"patch_size": -1, "target_length": -1}},
    },
}  # fmt: skip


@pytest.fixture
def clips(tmp_path):
    """A folder of 30 clips of so many seconds, at 8 kHz."""

    def write(seconds):
        names = []
        for number in range(30):
            samples = np.zeros(round(8000 * seconds))
            soundfile.write(tmp_path / f"{number}.wav", samples, 8000)
            names.append((f"{number}.wav", len(samples)))
        lines = [str(tmp_path), *(f"{name}\t{size}" for name, size in names)]
        (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
        return {"task": {"data": str(tmp_path)}}

    return write


def values(run, *names):
    return [run.get(name) for name in names]


def test_own_clips__words_from_random_weights(clips):
    """0.845 s are 83 frames: 21 patches of 4."""
    run = choose(FINETUNING, OPEN, CUSTOM, clips(0.845))
    assert values(run, "task.target_length", "model.modalities.image.target_length") == [84, 84]
    assert run.get("model.modalities.image.patch_size") == run.get("task.patch_size") == [4, 128]
    assert values(run, "task.norm", "task.roll_gain", "model.prediction_mode") == [
        "bins", False, "MEAN_MAX_POOLING",
    ]  # fmt: skip
    assert values(run, "dataset.batch_size", "optimization.max_update") == [16, 400]
    # 2 updates an epoch, 400 updates: 40 validations are one every 5 epochs.
    assert values(run, "dataset.validate_interval", "checkpoint.save_interval") == [5, 5]
    assert values(run, "model.layer_decay", "model.drop_path_rate") == [1, 0]
    assert run.get("optimization.lr") == [1e-3]  # thrice the scaled rate, 2.4e-3, is too much
    assert run.get("lr_scheduler.warmup_updates") == 40


def test_own_clips__long_ones_with_a_published_model(clips, tmp_path):
    encoder = {"depth": 12, "embed_dim": 768, "modalities": {"image": {"patch_size": 16}}}
    path = tmp_path / "base.pt"
    torch.save({"model": {}, "cfg": {"model": encoder, "task": {"norm_mean": -4.268}}}, path)
    start = {"model": {"model_path": str(path)}}
    run = choose(FINETUNING, OPEN, CUSTOM, clips(5), start)
    assert run.get("optimization.lr") == [5e-5]
    assert values(run, "task.target_length", "task.norm", "task.roll_gain") == [512, "whole", True]
    assert values(run, "model.prediction_mode", "model.layer_decay") == ["CLS_TOKEN", 0.65]
    assert run.get("model.drop_path_rate") == 0.1
    assert run.get("model.modalities.image.patch_size") == [16, 16]


def test_own_clips__those_of_a_checkpoint_with_two_sides(clips, tmp_path):
    encoder = {"depth": 4, "embed_dim": 192, "modalities": {"image": {"patch_size": [8, 32]}}}
    path = tmp_path / "tiny.pt"
    cfg = {"model": encoder, "task": {"norm": "bins"}}
    torch.save({"model": {}, "cfg": cfg}, path)
    run = choose(OWN_CLIPS, OPEN, CUSTOM, clips(0.845), {"model": {"model_path": str(path)}})
    assert run.get("model.modalities.image.patch_size") == [8, 32]
    assert values(run, "task.target_length", "task.norm") == [88, "bins"]
    assert run.get("optimization.lr") == [pytest.approx(8e-4)]


def test_own_clips__a_cache_has_no_waveforms_to_roll(clips, tmp_path):
    data, rule = clips(5), {"task.roll_gain": OWN_CLIPS["task.roll_gain"]}
    assert choose(rule, OPEN, CUSTOM, data).get("task.roll_gain") is True
    cache = str(tmp_path / "cache")
    assert cli.main(["cache", str(tmp_path), "--out", cache, "--workers", "1"]) == 0
    assert choose(rule, OPEN, CUSTOM, {"task": {"data": cache}}).get("task.roll_gain") is False


def test_known__longest_windows_and_epochs(clips):
    data = clips(12)
    run = make(data, {"dataset": {"train_subset": "train", "batch_size": 4}})
    known = Known(run)
    assert (known.clips, known.updates_per_epoch) == (30, 8)
    assert known.typical_frames == 1 + math.floor((12 * 16000 - 400) / 160)
    run = choose({"task.target_length": OWN_CLIPS["task.target_length"]}, OPEN, CUSTOM, data, {
        "model": {"modalities": {"image": {"patch_size": 16}}}
    })  # fmt: skip
    assert run.get("task.target_length") == 1024


def test_known__epochs_of_batches_that_max_tokens_limits(clips):
    window = {"target_length": 200, "length": "mask"}
    patch = {"model": {"modalities": {"image": {"patch_size": 16}}}}
    options = {"train_subset": "train", "batch_size": 48, "max_tokens": 400}
    run = make(clips(1), {"task": window, "dataset": options}, patch)
    assert Known(run).updates_per_epoch == 10  # 112 frames in whole patches: 3 clips
    run.root.task.length = "pad"
    assert Known(run).updates_per_epoch == 15
    run.root.dataset.batch_size, run.root.dataset.max_tokens = None, 2000
    assert Known(run).updates_per_epoch == 3
    of_images = {"target_length": None, "images": {"size": [50, 70]}}
    run = make(clips(1), {"task": of_images, "dataset": options})
    assert Known(run).updates_per_epoch == 4  # of 8 images, in rows


def test_known__one_clip_of_ten_times_the_length_does_not_decide(clips):
    data = clips(1)
    run = make(data, {"dataset": {"train_subset": "train"}})
    assert Known(run).typical_frames == 98
    manifest = Path(run.get("task.data"), "train.tsv")
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:-1], lines[-1].split("\t")[0] + "\t80000"]) + "\n")
    assert Known(run).typical_frames == 98
    manifest.write_text("\n".join([*lines[:-1], lines[-1].split("\t")[0] + "\t10000"]) + "\n")
    assert Known(run).typical_frames == 123


def test_known__no_manifest_is_said_as_always(tmp_path):
    with pytest.raises(ValueError, match=r"has no train.tsv; set it to the absolute path"):
        choose(FINETUNING, OPEN, CUSTOM, {"task": {"data": str(tmp_path)}})
