"""The data folder at start: missing, relative, moved, or with held-out clips in train."""

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from eat_plugin.data.statistics import Statistics, write_statistics
from eat_plugin.tasks.classification import ClassificationConfig, EatClassificationTask
from eat_plugin.tasks.data_checks import check_folder, check_manifest
from eat_plugin.tasks.pretraining import EatPretrainingTask, PretrainingConfig
from eat_plugin.tasks.run_config import RunConfig

EAT_MANIFEST = "absolute path of a folder made by eat manifest"


def run_config(data, **dataset):
    root = {"task": {"data": str(data)}, "dataset": {"train_subset": "train", **dataset}}
    return RunConfig(OmegaConf.create(root).task)


@pytest.fixture
def data(tmp_path):
    """A folder with ``train.tsv`` of four clips."""
    for number in range(4):
        samples = np.random.default_rng(number).normal(0, 0.1, 8_000)
        soundfile.write(tmp_path / f"{number}.wav", samples, 16_000)
    lines = "".join(f"{number}.wav\t8000\n" for number in range(4))
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\n{lines}")
    return tmp_path


def test_checks__a_folder_with_a_manifest(data, monkeypatch):
    monkeypatch.chdir(data.parent)
    no_run = RunConfig(OmegaConf.create({"task": {"data": "/nowhere"}}).task)
    for run in (run_config(data), run_config(data.name), no_run):
        check_folder(run)
        check_manifest(run)


def test_checks__name_value_and_remedy(data, tmp_path, monkeypatch):
    for given, problem in (
        ("???", "task.data is not set"),
        (data / "gone", rf"task.data is '{data}/gone', which does not exist"),
        (data / "train.tsv", r"task.data is '\S+train.tsv', which is not a folder"),
    ):
        with pytest.raises(ValueError, match=f"^{problem}; set it to the {EAT_MANIFEST}$"):
            check_folder(run_config(given))
    with pytest.raises(
        ValueError, match=f"^task.data is '{data}', and has no more.tsv; .*{EAT_MANIFEST}$"
    ):
        check_manifest(run_config(data, train_subset="more"))


def test_check_folder__relative_path_is_one_in_the_folder_of_the_run(data, monkeypatch):
    (data / "run").mkdir()
    monkeypatch.chdir(data / "run")
    monkeypatch.setenv("PWD", str(data.parent))  # hydra changes the folder, not the variable
    message = (
        f"^task.data is '{data.name}', which does not exist in the folder of the run, {data}/run: "
        f"give the absolute path, {data}$"
    )
    with pytest.raises(ValueError, match=message):
        check_folder(run_config(data.name))
    with pytest.raises(ValueError, match="give the absolute path$"):
        check_folder(run_config("gone"))
    with pytest.raises(
        ValueError, match=f"is '.' in the folder of the run, {data}/run, and has no"
    ):
        check_manifest(run_config("."))


def test_check_manifest__moved_clips(data):
    text = (data / "train.tsv").read_text()
    (data / "train.tsv").write_text(text.replace(str(data), f"{data}/gone", 1))
    message = f"^{data}/train.tsv:1: the root '{data}/gone' is not an .*, run eat manifest again"
    with pytest.raises(ValueError, match=message):
        check_manifest(run_config(data))


def make_task(data, **dataset):
    cfg = OmegaConf.create({"common": {"seed": 1}, "dataset": {"train_subset": "train", **dataset}})
    cfg.task = OmegaConf.structured(PretrainingConfig(data=str(data), seed=1, patch_size=16))
    return EatPretrainingTask(cfg.task)


def hold_out(data, split):
    lines = (data / "train.tsv").read_text().splitlines()
    (data / f"{split}.tsv").write_text("\n".join([lines[0], *lines[2:4]]) + "\n")


@pytest.mark.parametrize("kind", [EatPretrainingTask, EatClassificationTask])
def test_build_model__needs_the_manifest(data, kind):
    cfg = {"common": {"seed": 1}, "dataset": {"train_subset": "train"}, "model": {}}
    cfg = OmegaConf.create({**cfg, "criterion": {}})
    cfg.task = OmegaConf.structured(
        {EatPretrainingTask: PretrainingConfig, EatClassificationTask: ClassificationConfig}[kind](
            data=str(data), seed=1, patch_size=16
        )
    )
    task = kind(cfg.task)
    (data / "train.tsv").unlink()
    with pytest.raises(ValueError, match=f"task.data is '{data}', and has no train.tsv"):
        task.build_model(cfg.model)


@pytest.mark.parametrize(
    ("split", "dataset", "refused"),
    [
        ("eval", {}, True), ("valid", {"disable_validation": True}, True), ("test", {}, True),
        ("subset", {}, False), ("subset", {"valid_subset": "eval,subset"}, True),
        ("subset", {"valid_subset": "subset", "disable_validation": True}, False),
    ],
)  # fmt: skip
def test_load_dataset__held_out_clips_in_train_are_refused(data, split, dataset, refused):
    hold_out(data, split)
    task = make_task(data, **dataset)
    task.load_dataset(split)
    if not refused:
        task.load_dataset("train")
        return
    message = f"train.tsv has 2 of the clips that {data}/{split}.tsv holds out, .*{data}/1.wav'"
    with pytest.raises(ValueError, match=message):
        task.load_dataset("train")


def test_task__statistics_of_other_clips_are_refused(data):
    write_statistics(data, Statistics(-5.0, 4.0, 9, 4, "train", 0))
    assert make_task(data).front_end.mean == -5.0
    with open(data / "train.tsv", "a") as file:
        file.write("4.wav\t8000\n")
    with pytest.raises(ValueError, match=rf"stats.json .* of other clips .*run eat stats {data}"):
        make_task(data)
