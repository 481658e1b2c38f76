"""The statistics of log-mel values of a task, and its warnings."""

import logging
import pickle

import numpy as np
import pytest
import soundfile
import torch
from fairseq.tasks import TASK_DATACLASS_REGISTRY, setup_task
from omegaconf import OmegaConf

from eat_plugin import cli
from eat_plugin.data.clip_sample import measure_some
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.statistics import (
    Moments,
    Statistics,
    sum_up,
    write_statistics,
)
from eat_plugin.inputs.images import ImagesConfig
from eat_plugin.prepare.measure import measure_all
from eat_plugin.tasks import normalisation
from eat_plugin.tasks.pretraining import EatPretrainingTask, PretrainingConfig
from eat_plugin.tasks.resumed import ResumedRun
from eat_plugin.tasks.run_config import RunConfig

OWN = Statistics(-7.0, 3.0, 100, 4, "train", 0)
AUDIOSET = (-4.268, 4.569)


@pytest.fixture
def data(tmp_path):
    """Twelve clips of noise, much louder than AudioSet's."""
    lines = [str(tmp_path)]
    for number in range(12):
        samples = np.random.default_rng(number).normal(0, 0.2, 8_000).clip(-1, 1)
        soundfile.write(tmp_path / f"{number}.wav", samples, 16_000)
        lines.append(f"{number}.wav\t8000")
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def root(data, kind="eat_pretraining", **options):
    """A whole configuration of fairseq."""
    schema = OmegaConf.structured(TASK_DATACLASS_REGISTRY[kind]())
    task = OmegaConf.merge(schema, {"_name": kind, "data": str(data), **options})
    model = {"modalities": {"image": {"patch_size": 16}}}
    cfg = OmegaConf.create({"common": {"seed": 1}, "model": model})
    cfg.task = task
    OmegaConf.set_struct(cfg, True)
    return cfg


def warnings_of(caplog):
    found = [record for record in caplog.records if "AudioSet's statistics" in record.message]
    return [record.getMessage() for record in found if record.levelno == logging.WARNING]


def fail(*_):
    raise AssertionError("measured")


@pytest.mark.parametrize("kind", ["eat_pretraining", "eat_classification"])
def test_resolve_norm__uses_and_saves_the_data_sets_statistics(data, kind, caplog):
    write_statistics(data, OWN)
    cfg = root(data, kind)
    with caplog.at_level(logging.INFO):
        task = setup_task(cfg.task)
    assert (task.front_end.mean, task.front_end.std) == (-7.0, 3.0)
    # fairseq saves cfg, not the options of the task.
    assert (cfg.task.norm_mean, cfg.task.norm_std) == (-7.0, 3.0)
    said = [record.getMessage() for record in caplog.records if "norm_mean" in record.message]
    source = f"from {data / 'stats.json'}, of 4 clips of the split 'train'"
    assert said == [f"task.norm_mean=-7.0000 task.norm_std=3.0000: {source}"]


@pytest.mark.parametrize("norm", ["whole", "bins"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_measure_norm__of_the_training_clips_without_a_file(data, caplog, norm, split):
    manifest = read_manifest(data / "train.tsv")
    (data / "valid.tsv").write_text(f"{data}\ngone.wav\t8000\n")  # not measured
    expected = Statistics.from_moments(sum_up(measure_all(manifest, 1)), 12, "train", 0)
    cfg = root(data, norm=norm)
    with caplog.at_level(logging.INFO):
        task = setup_task(cfg.task)
        assert cfg.task.norm_mean is None  # nothing is read yet
        task.load_dataset(split)
        task.load_dataset("train")
    mean, std = expected.numbers(norm)
    assert (task.front_end.mean, task.front_end.std) == (mean, std)
    assert task.dataset(split).reader.front_end == task.front_end
    assert isinstance(mean, tuple) is (norm == "bins")
    for options in (cfg.task, task.cfg):  # fairseq saves the first
        found = OmegaConf.to_container(options)
        assert (found["norm_mean"], found["norm_std"]) == (
            (mean, std) if norm == "whole" else (list(mean), list(std))
        )
        assert {type(number) for number in np.ravel(found["norm_mean"]).tolist()} == {float}
    said = [record.getMessage() for record in caplog.records if "norm_mean" in record.message]
    (line,) = said
    assert ": measured on 12 of 12 clips of the split 'train' in 0." in line
    assert line.endswith(f" s; eat stats {data} measures all")
    if norm == "whole":
        assert line.startswith(f"task.norm_mean={mean:.4f} task.norm_std={std:.4f}: ")
    else:
        ranges = f"norm_mean {min(mean):.4f} to {max(mean):.4f}, task.norm_std {min(std):.4f} to "
        assert line.startswith(f"task.norm=bins task.{ranges}{max(std):.4f}: ")


def test_measure_norm__a_sample_is_the_same_in_every_run(data, monkeypatch):
    monkeypatch.setattr(normalisation, "CLIPS_AT_START", 3)
    found = []
    for seed in (1, 2):
        cfg = root(data)
        cfg.common.seed = seed
        found.append(setup_task(cfg.task).front_end)
    assert found[0] == found[1]
    sample = normalisation.measure_some(read_manifest(data / "train.tsv"), 3)
    assert (found[0].mean, found[0].std) == (sample.moments.mean, sample.moments.std)


def test_measure_norm__names_the_split_to_train_on(data):
    (data / "train.tsv").rename(data / "mine.tsv")
    cfg = root(data)
    OmegaConf.set_struct(cfg, False)
    cfg.dataset = {"train_subset": "mine"}
    assert setup_task(cfg.task).front_end.mean > -4
    with pytest.raises(ValueError, match=r"there is no \S+/train\.tsv"):
        assert setup_task(root(data).task).front_end


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "none of 12 clips can be used: .*/0.wav: "),
        (0.0, "all .* log-mel values of the split 'train' are the same .*silence"),
    ],
)
def test_measure_norm__clips_that_tell_nothing_are_an_error(data, content, problem):
    for number in range(12):
        (data / f"{number}.wav").unlink()
        if content is not None:
            soundfile.write(data / f"{number}.wav", np.full(8_000, content), 16_000)
    task = setup_task(root(data).task)
    message = f"^task.norm_mean and task.norm_std are null and cannot be measured: .*{problem}"
    with pytest.raises(ValueError, match=message) as error:
        task.load_dataset("train")
    assert str(error.value).endswith("AudioSet's are task.norm_mean=-4.268 task.norm_std=4.569")
    assert "\n" not in str(error.value)
    assert "train" not in task.datasets


def test_measure_norm__a_cache_of_other_channels_is_named(data):
    out = data / "cache"
    assert cli.main(["cache", str(data), "--out", str(out), "--channels", "first"]) == 0
    with pytest.raises(ValueError, match=r"^\S+: the cache was made with channels=first, but"):
        setup_task(root(out).task).load_dataset("train")
    assert setup_task(root(out, channels="first").task).front_end.mean > -4


def send(result):
    """In place of a broadcast: the objects of the first process."""
    return lambda objects, src: objects.__setitem__(slice(None), result)


def test_measure_norm__other_processes_take_the_first_ones_numbers(data, monkeypatch):
    first = setup_task(root(data, norm="bins").task)
    expected = first.front_end
    measured = normalisation._measure(data / "train.tsv", "mean", "kaldi", 998, "bins")
    monkeypatch.setattr(normalisation, "_measure", fail)
    for name, value in (
        ("is_initialized", lambda: True), ("get_rank", lambda: 1),
        ("broadcast_object_list", send([pickle.loads(pickle.dumps(measured)), ""])),
    ):  # fmt: skip
        monkeypatch.setattr(torch.distributed, name, value)
    assert setup_task(root(data, norm="bins").task).front_end == expected


def test_resolve_norm__of_each_bin_from_the_file(data, caplog):
    bins = Statistics.from_moments(sum_up(measure_all(read_manifest(data / "train.tsv"), 1)), 12,
                                   "train", 0)  # fmt: skip
    write_statistics(data, bins)
    cfg = root(data, norm="bins")
    with caplog.at_level(logging.INFO):
        task = setup_task(cfg.task)
    assert (task.front_end.mean, task.front_end.std) == bins.numbers("bins")
    assert list(cfg.task.norm_std) == list(bins.numbers("bins")[1])
    assert f"from {data / 'stats.json'}, of 12 clips" in caplog.text
    # As a checkpoint has them, without the folder.
    saved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    (data / "stats.json").unlink()
    assert setup_task(saved.task, from_checkpoint=True).front_end == task.front_end


def test_resolve_norm__an_older_file_has_no_bins(data):
    write_statistics(data, OWN)
    message = rf"stats.json is of an earlier version, .*; run eat stats {data} again"
    with pytest.raises(ValueError, match=message):
        setup_task(root(data, norm="bins").task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "bin"}, "task.norm is 'bin'; choose one of whole, bins"),
        ({"norm": "bins", "norm_mean": -4.0, "norm_std": 4.0},
         "task.norm_mean is one number, but task.norm=bins needs a list of 128; with"),
        ({"norm_mean": [-4.0] * 128, "norm_std": [4.0] * 128},
         "task.norm_mean is a list of 128, but task.norm=whole needs one number; with"),
        ({"norm": "bins", "norm_mean": [-4.0] * 128, "norm_std": [4.0] * 127},
         "task.norm_std is a list of 127, but task.norm=bins needs a list of 128; with"),
        ({"norm_mean": "loud", "norm_std": 4.0}, "task.norm_mean is 'loud'; give a number, or nul"),
        ({"norm": "bins", "images": {}}, "task.norm is bins, .* for sound, but task.images is set"),
    ],
)  # fmt: skip
def test_resolve_norm__other_numbers_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        setup_task(root(data, **options).task)


def test_resolve_norm__images_are_not_measured(data):
    cfg = root(data, images={})
    task = setup_task(cfg.task)
    assert (cfg.task.norm_mean, cfg.task.norm_std) == AUDIOSET  # in checkpoints, without a use
    assert (task.front_end.mean, task.front_end.std) == AUDIOSET


def test_resolve_norm__integers_are_numbers(data):
    front_end = setup_task(root(data, norm_mean=-5, norm_std=4).task).front_end
    assert (type(front_end.mean), front_end.mean, front_end.std) == (float, -5.0, 4.0)


def test_resolve_norm__explicit_numbers_have_priority(data):
    write_statistics(data, OWN)
    cfg = root(data, norm_mean=-5.0, norm_std=4.0)
    assert setup_task(cfg.task).front_end.mean == -5.0
    assert (cfg.task.norm_mean, cfg.task.norm_std) == (-5.0, 4.0)


@pytest.mark.parametrize("options", [{"norm_mean": -5.0}, {"norm_std": 4.0}])
def test_resolve_norm__mean_or_deviation_alone_is_refused(data, options):
    with pytest.raises(ValueError, match=r"task.norm_mean is \S+ and task.norm_std is .*set both"):
        setup_task(root(data, **options).task)


def test_resolve_norm__checkpoint_does_not_read_the_folder(data):
    write_statistics(data, OWN)
    task = setup_task(root(data).task, from_checkpoint=True)
    assert (task.front_end.mean, task.front_end.std) == AUDIOSET


def test_resolve_norm__does_not_change_other_tasks_options(data):
    cfg = root(data)
    other = OmegaConf.create({"task": {"_name": "eat_classification", "norm_mean": None}})
    cfg.task.__dict__["_parent"] = other
    EatPretrainingTask(cfg.task)
    assert other.task.norm_mean is None


def test_resolve_norm__broken_file_is_an_error(data):
    (data / "stats.json").write_text("{")
    with pytest.raises(ValueError, match=r"stats\.json does not hold statistics"):
        setup_task(root(data).task)


EXPLICIT = {"norm_mean": -4.268, "norm_std": 4.569}


def test_warn_of_audioset__warns_once_with_numbers_and_advice(data, caplog):
    task = setup_task(root(data, **EXPLICIT).task)
    task.load_dataset("train")
    task.load_dataset("train")
    (warning,) = warnings_of(caplog)
    assert "mean -4.268 and standard deviation 4.569" in warning
    assert "a sample of 12 clips has " in warning
    assert warning.endswith("for a new run, set task.norm_mean=null task.norm_std=null")


@pytest.mark.parametrize(
    ("mean", "std", "warns"),
    [
        (-4.268, 4.569, False), (-4.268 + 0.45, 4.569, False), (-4.268 + 0.47, 4.569, True),
        (-4.268 - 0.47, 4.569, True), (-4.268, 4.569 * 1.09, False), (-4.268, 4.569 * 1.11, True),
        (-4.268, 4.569 * 0.89, True),
    ],
)  # fmt: skip
def test_warn_of_audioset__explicit_numbers_unlike_the_file(data, caplog, mean, std, warns):
    write_statistics(data, Statistics(mean, std, 100, 4, "train", 0))
    setup_task(root(data, norm_mean=-4.268, norm_std=4.569).task).load_dataset("train")
    found = warnings_of(caplog)
    assert len(found) == warns
    if warns:
        assert f"{data / 'stats.json'} has {mean:.3f} and {std:.3f}; " in found[0]
        assert "task.norm_mean=null task.norm_std=null" in found[0]


def test_warn_of_audioset__no_warning_for_other_numbers_or_the_file(data, caplog):
    setup_task(root(data, norm_mean=-5.0, norm_std=4.0).task).load_dataset("train")
    write_statistics(data, OWN)
    setup_task(root(data).task).load_dataset("train")
    (data / "stats.json").unlink()
    for norm in ("whole", "bins"):  # measured
        setup_task(root(data, norm=norm).task).load_dataset("train")
    assert not warnings_of(caplog)


def test_warn_of_audioset__no_warning_from_a_small_sample(data, caplog, monkeypatch):
    near = Moments(128, -4.9, 128 * 4.569**2)
    for errors, count in (((0.3, 0.0), 0), ((0.1, 0.0), 1)):
        sample = normalisation.measure_some(read_manifest(data / "train.tsv"), 1)
        sample = type(sample)(near, 48, *errors)
        monkeypatch.setattr(normalisation, "measure_some", lambda *_, found=sample, **__: found)
        setup_task(root(data, **EXPLICIT).task).load_dataset("train")
        assert len(warnings_of(caplog)) == count
        monkeypatch.undo()


def test_warn_of_audioset__damage_does_not_end_the_run(data, caplog):
    (data / "stats.json").write_text("{")
    for number in range(11):
        (data / f"{number}.wav").write_text("no audio")
    setup_task(root(data, **EXPLICIT).task).load_dataset("train")
    assert "a sample of 1 clips" in warnings_of(caplog)[0]
    (data / "11.wav").unlink()
    caplog.clear()
    setup_task(root(data, **EXPLICIT).task).load_dataset("train")
    assert not warnings_of(caplog)


def test_warn_of_audioset__only_for_sound_in_the_first_process(data, monkeypatch):
    monkeypatch.setattr(normalisation, "measure_some", fail)
    manifest = read_manifest(data / "train.tsv")
    cfg = OmegaConf.structured(PretrainingConfig(data=str(data), seed=1))
    cfg.norm_mean, cfg.norm_std = AUDIOSET
    monkeypatch.setattr(normalisation, "_is_first", lambda: False)
    normalisation.warn_of_audioset(cfg, manifest)
    monkeypatch.undo()
    monkeypatch.setattr(normalisation, "measure_some", fail)
    cfg.images = ImagesConfig()
    normalisation.warn_of_audioset(cfg, manifest)


def test_published_tasks__warn_too(data, caplog):
    cfg = root(data, "mae_image_pretraining", audio_mae=True, key="source")
    setup_task(cfg.task).load_dataset("train")
    assert len(warnings_of(caplog)) == 1
    caplog.clear()
    cfg = root(data, "mae_image_pretraining", audio_mae=True, key="source", esc50_eval=True)
    setup_task(cfg.task).load_dataset("train")
    assert not warnings_of(caplog)


def test_sample__of_few_clips_equals_the_whole(data):
    manifest = read_manifest(data / "train.tsv")
    found, whole = measure_some(manifest, 48).moments, sum_up(measure_all(manifest, 1))
    assert found == whole
    assert np.array_equal(found.bins.mean, whole.bins.mean)
    assert np.array_equal(found.bins.squares, whole.bins.squares)


def test_resolve_norm__a_resumed_run_keeps_its_statistics(data):
    (data / "stats.json").write_text("invalid, and not read")
    resumed = ResumedRun("last.pt", {"task": {"norm_mean": -5.0, "norm_std": 3.0}}, {})
    for given, expected in ((None, (-5.0, 3.0)), ((-4.0, 4.0), (-4.0, 4.0))):
        cfg = root(data)
        cfg.task.norm_mean, cfg.task.norm_std = given or (None, None)
        normalisation.resolve_norm(cfg.task, RunConfig(cfg.task), resumed=resumed)
        assert (cfg.task.norm_mean, cfg.task.norm_std) == expected


def test_resolve_norm__a_resumed_run_keeps_those_of_its_bins(data, caplog):
    numbers = {"norm_mean": [-5.0] * 128, "norm_std": [3.0] * 128}
    resumed = ResumedRun("last.pt", {"task": {"norm": "bins", **numbers}}, {}, "EatAdamW")
    cfg = root(data, norm="bins")
    normalisation.resolve_norm(cfg.task, RunConfig(cfg.task), resumed=resumed)
    assert list(cfg.task.norm_std) == [3.0] * 128
    message = "last.pt has task.norm=bins, this run whole: choose another run folder"
    for given in ({}, EXPLICIT):
        cfg = root(data, **given)
        with pytest.raises(ValueError, match=message):
            normalisation.resolve_norm(cfg.task, RunConfig(cfg.task), resumed=resumed)
    older = ResumedRun("last.pt", {"task": EXPLICIT}, {}, "EatAdamW")  # without the option
    cfg = root(data, norm="bins")
    with pytest.raises(ValueError, match="has task.norm=whole, this run bins"):
        normalisation.resolve_norm(cfg.task, RunConfig(cfg.task), resumed=older)
    # With checkpoint.reset_optimizer another training begins: its own statistics.
    other = older._replace(optimizer="")
    normalisation.resolve_norm(cfg.task, RunConfig(cfg.task), resumed=other)
    assert cfg.task.norm_mean is None
    assert "inputs change: " in caplog.text
    assert "last.pt has task.norm=whole, this run bins" in caplog.text


@pytest.mark.parametrize("given", [{"norm_mean": -4.0, "norm_std": 3.0}, {"channels": "first"}])
def test_resolve_norm__other_numbers_of_a_resumed_run(data, caplog, given):
    before = {"norm_mean": -5.0, "norm_std": 3.0}
    optimizer = "EatAdamW" if "norm_mean" in given else ""  # else other channels are refused
    resumed = ResumedRun("last.pt", {"task": before}, {}, optimizer)
    for options, changes in ((given, True), (before, False)):
        cfg = root(data, **options)
        caplog.clear()
        normalisation.resolve_norm(cfg.task, RunConfig(cfg.task), resumed=resumed)
        assert cfg.task.norm_mean == options.get("norm_mean")  # of other channels: to be measured
        assert ("inputs change: last.pt" in caplog.text) == (changes and "norm_mean" in given)
