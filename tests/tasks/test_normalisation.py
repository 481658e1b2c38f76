"""The statistics of log-mel values of a task, and its warnings."""

import logging

import numpy as np
import pytest
import soundfile
from fairseq.tasks import TASK_DATACLASS_REGISTRY, setup_task
from omegaconf import OmegaConf

from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.statistics import Moments, Statistics, sum_up, write_statistics
from eat_plugin.prepare.measure import measure_all
from eat_plugin.tasks import normalisation
from eat_plugin.tasks.checks import ResumedRun
from eat_plugin.tasks.image_options import ImagesConfig
from eat_plugin.tasks.pretraining import EatPretrainingTask, PretrainingConfig
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


def test_resolve_norm__uses_audiosets_without_a_file(data, caplog):
    cfg = root(data)
    with caplog.at_level(logging.INFO):
        task = setup_task(cfg.task)
    assert (task.front_end.mean, task.front_end.std) == AUDIOSET
    assert (cfg.task.norm_mean, cfg.task.norm_std) == AUDIOSET
    assert "AudioSet's, there is no" in caplog.text


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


def test_warn_of_audioset__warns_once_with_numbers_and_command(data, caplog):
    task = setup_task(root(data).task)
    task.load_dataset("train")
    task.load_dataset("train")
    (warning,) = warnings_of(caplog)
    assert "mean -4.268 and standard deviation 4.569" in warning
    assert "a sample of 12 clips has " in warning
    assert f"eat stats {data}" in warning


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
    assert not warnings_of(caplog)


def test_warn_of_audioset__no_warning_from_a_small_sample(data, caplog, monkeypatch):
    near = Moments(128, -4.9, 128 * 4.569**2)
    for errors, count in (((0.3, 0.0), 0), ((0.1, 0.0), 1)):
        sample = normalisation.measure_some(read_manifest(data / "train.tsv"), 1)
        sample = type(sample)(near, 48, *errors)
        monkeypatch.setattr(normalisation, "measure_some", lambda *_, found=sample, **__: found)
        setup_task(root(data).task).load_dataset("train")
        assert len(warnings_of(caplog)) == count
        monkeypatch.undo()


def test_warn_of_audioset__damage_does_not_end_the_run(data, caplog):
    (data / "stats.json").write_text("{")
    for number in range(11):
        (data / f"{number}.wav").write_text("no audio")
    explicit = {"norm_mean": -4.268, "norm_std": 4.569}
    setup_task(root(data, **explicit).task).load_dataset("train")
    assert "a sample of 1 clips" in warnings_of(caplog)[0]
    (data / "11.wav").unlink()
    caplog.clear()
    setup_task(root(data, **explicit).task).load_dataset("train")
    assert not warnings_of(caplog)


def test_warn_of_audioset__only_for_sound_in_the_first_process(data, monkeypatch):
    def fail(*_):
        raise AssertionError("measured")

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
    assert normalisation.measure_some(manifest, 48).moments == sum_up(measure_all(manifest, 1))


def test_resolve_norm__a_resumed_run_keeps_its_statistics(data):
    (data / "stats.json").write_text("invalid, and not read")
    resumed = ResumedRun("last.pt", {"norm_mean": -5.0, "norm_std": 3.0}, {})
    for given, expected in ((None, (-5.0, 3.0)), ((-4.0, 4.0), (-4.0, 4.0))):
        cfg = root(data)
        cfg.task.norm_mean, cfg.task.norm_std = given or (None, None)
        normalisation.resolve_norm(cfg.task, RunConfig(cfg.task), resumed=resumed)
        assert (cfg.task.norm_mean, cfg.task.norm_std) == expected
