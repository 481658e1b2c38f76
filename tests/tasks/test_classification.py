"""The task of fine-tuning: consistent data, metrics of a split, published flags."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from fairseq.logging import metrics
from omegaconf import OmegaConf

from eat_plugin.data.events import EventReader
from eat_plugin.metrics import METRICS, metric_names, summarize
from eat_plugin.ranking import RankedScores
from eat_plugin.tasks.classification import ClassificationConfig, EatClassificationTask
from eat_plugin.tasks.option_checks import check_metric
from eat_plugin.tasks.published import MaeImageClassificationConfig, translate_classification
from eat_plugin.tasks.run_config import RunConfig
from eat_plugin.tasks.skipped_clips import check_share

RATE = 16000


@pytest.fixture
def make_task(tmp_path):
    """A task on five clips of two classes, and copies of them held out, with options changed."""
    rng = np.random.default_rng(0)
    (tmp_path / "audio").mkdir()
    names = [f"{number}.wav" for number in range(5)]
    for name in names:
        soundfile.write(tmp_path / "audio" / name, rng.uniform(-0.5, 0.5, 4000), RATE)
    shutil.copytree(tmp_path / "audio", tmp_path / "held_out")
    for split, folder in (("train", "audio"), ("eval", "held_out")):
        rows = "".join(f"{name}\t4000\n" for name in names)
        (tmp_path / f"{split}.tsv").write_text(f"{tmp_path / folder}\n{rows}")
        rows = "".join(f"{name}\t{'ab'[int(name[0]) % 2]}\n" for name in names)
        (tmp_path / f"{split}.lbl").write_text(rows)
    (tmp_path / "label_descriptors.csv").write_text("0,a,Alpha\n1,b,Beta\n")

    def make(**options):
        base = ClassificationConfig(data=str(tmp_path), seed=1, single_label=True, target_length=32)
        return EatClassificationTask(OmegaConf.merge(OmegaConf.structured(base), options))

    return make


class Criterion(torch.nn.Module):
    """Returns the scores in the sample."""

    def forward(self, model, sample):
        number = len(sample["id"])
        log = {
            "loss": torch.tensor(1.0), "sample_size": number, "ntokens": number,
            "nsentences": number, "_predictions": sample["scores"],
            "_targets": sample["net_input"]["label"],
        }  # fmt: skip
        return log["loss"], number, log

    @staticmethod
    def reduce_metrics(logs):
        metrics.log_scalar("loss", sum(log["loss"] for log in logs))


def evaluate(task, batches, scores):
    dataset = task.dataset("eval")
    criterion = Criterion().eval()
    task.get_batch_iterator(dataset, max_sentences=2, required_batch_size_multiple=8)
    with metrics.aggregate(new_root=True) as total:
        for ids in batches:
            sample = dataset.collater([dataset[number] for number in ids])
            sample["scores"] = scores[ids]
            _, _, log = task.valid_step(sample, torch.nn.Module(), criterion)
            task.reduce_metrics([log], criterion)
    return total.get_smoothed_values()


SCORES = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8], [0.45, 0.55]])
TARGETS = np.eye(2)[[0, 1, 0, 1, 0]]


@pytest.mark.parametrize(
    "batches",
    [[[0, 1, 2, 3, 4]], [[4, 3], [2], [1, 0]], [[0, 1], [0, 1], [2, 3], [4, 4]]],
    ids=["one", "other-order", "repeated"],
)
def test_validation__counts_each_clip_once(make_task, batches):
    task = make_task()
    task.load_dataset("eval")
    found = evaluate(task, batches, SCORES)
    expected = summarize(RankedScores(SCORES.numpy(), TARGETS), True)
    assert expected["accuracy"] == 0.6
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
        assert type(found[name]) is float
    assert found["skipped_clips"] == 0
    assert not {"clips", "_listed_clips"} & found.keys()


def test_validation__starts_without_old_scores(make_task):
    task = make_task()
    task.load_dataset("eval")
    first = evaluate(task, [[0, 1, 2, 3, 4]], SCORES)
    second = evaluate(task, [[0, 1, 2, 3, 4]], SCORES.flip(1))
    assert second["accuracy"] == pytest.approx(1 - first["accuracy"])


def test_validation__ignores_replaced_clips(make_task, tmp_path):
    (tmp_path / "held_out" / "2.wav").write_bytes(b"")
    task = make_task()
    task.load_dataset("eval")
    found = evaluate(task, [[0, 1, 2], [3, 4]], SCORES)
    assert found["accuracy"] == 0.75
    assert (found["skipped_clips"], found["clips"]) == (1, 4)


def test_batches__evaluation_has_every_clip(make_task):
    task = make_task()
    for split in ("train", "eval"):
        task.load_dataset(split)
    iterator = task.get_batch_iterator(
        task.dataset("eval"), max_sentences=4, required_batch_size_multiple=4
    )
    clips = [clip for batch in iterator.frozen_batches for clip in batch]
    assert sorted(clips) == [0, 1, 2, 3, 4]


def test_load_dataset__only_training_is_shuffled_and_augmented(make_task):
    task = make_task(crop="random", roll_gain=True, noise=True)
    for split in ("train", "eval"):
        task.load_dataset(split)
    train, held_out = task.dataset("train"), task.dataset("eval")
    assert (train.shuffle, train.reader.crop) == (True, "random")
    assert (train.reader.roll_gain, train.reader.noise) == (True, True)
    assert (held_out.shuffle, held_out.reader.crop) == (False, "start")
    assert (held_out.reader.roll_gain, held_out.reader.noise) == (False, False)


def test_load_dataset__only_training_on_events_is_augmented(make_task, tmp_path):
    for split in ("train", "eval"):
        rows = "".join(f"{number}.wav\t0.05\t0.2\tdog\n" for number in range(5))
        (tmp_path / f"{split}.events").write_text(f"filename\tonset\toffset\tevent_label\n{rows}")
    task = make_task(crop="random", roll_gain=True, events=True, single_label=False)
    for split, is_training in (("train", True), ("eval", False)):
        task.load_dataset(split)
        reader = task.dataset(split).reader
        assert isinstance(reader, EventReader)
        assert (reader.roll_gain, reader.crop == "random") == (is_training, is_training)


def test_load_dataset__weights_require_rebuild_batches(make_task, tmp_path):
    (tmp_path / "weights.csv").write_text("1\n" * 5)
    options = {"weights_file": "weights.csv", "num_samples": 3}
    task = make_task(**options, rebuild_batches=False)
    with pytest.raises(ValueError, match=r"task.rebuild_batches is false, .* task.weights_file"):
        task.load_dataset("train")
    task.load_dataset("eval")  # has no weights
    task = make_task(**options)
    task.load_dataset("train")
    assert task.dataset("train").epoch_size == 3


def test_build_model__number_of_classes_comes_from_the_data(make_task, monkeypatch):
    task = make_task()
    built = torch.nn.Module()
    built.pretrained_model_args = {"model": {"depth": 1}}
    monkeypatch.setattr("fairseq.models.build_model", lambda cfg, *args: built)
    cfg = OmegaConf.create({"num_classes": None, "pretrained_model_args": None})
    task.build_model(cfg)
    assert cfg.num_classes == 2
    assert cfg.pretrained_model_args == {"model": {"depth": 1}}
    cfg = OmegaConf.create({"num_classes": 3, "pretrained_model_args": None})
    with pytest.raises(ValueError, match=r"num_classes is 3, but label_descriptors.csv has 2"):
        task.build_model(cfg)


def test_state__checkpoints_hold_the_labels(make_task, tmp_path):
    task = make_task()
    task.load_dataset("eval")
    state = task.state_dict()
    assert state == {"labels": {"a": "0", "b": "1"}, "label_names": ["Alpha", "Beta"]}
    restored = make_task(data=str(tmp_path / "gone"))
    restored.load_state_dict(state)
    assert restored.label_set.ids == ("a", "b")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, {"norm_mean": -4.268, "single_label": False, "weights_file": None}),
        ({"esc50_eval": True}, {"norm_mean": -6.627, "norm_std": 5.359, "single_label": True}),
        ({"spcv2_eval": True}, {"norm_mean": -6.846, "norm_std": 5.565, "single_label": True}),
        ({"AS2M_finetune": True, "weights_file": "/w"}, {"weights_file": "/w"}),
        ({"roll_aug": True, "noise": True}, {"roll_gain": True, "noise": True}),
    ],
)
def test_published__flags_are_translated(flags, expected):
    cfg = MaeImageClassificationConfig(data="/d", audio_mae=True, seed=1, **flags)
    translated = translate_classification(cfg)
    for name, value in expected.items():
        assert getattr(translated, name) == value, name


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"subsample": 0.5}, "task.subsample is 0.5; .* in fine-tuning, .* is 1.0"),
        ({"audio_mae": False}, "task.audio_mae is False"),
        ({"key": "source"}, "task.key is 'source'"),
    ],
)
def test_published__unimplemented_flags_are_refused(flags, problem):
    cfg = MaeImageClassificationConfig(data="/d", **{"audio_mae": True, "seed": 1, **flags})
    with pytest.raises(ValueError, match=problem):
        translate_classification(cfg)


def test_published__checkpoint_loads_for_any_data_storage():
    cfg = MaeImageClassificationConfig(data="/d", audio_mae=True, seed=1, subsample=0.5)
    assert translate_classification(cfg, from_checkpoint=True).data == "/d"


def test_skipped_share__is_relative_to_the_drawn_clips(make_task):
    task = make_task()
    assert not check_share(11, 2000, task.cfg.max_skipped_share)  # at most 20
    reason = check_share(11, 1000, task.cfg.max_skipped_share)
    assert reason.startswith("11 of the 1000 clips of this epoch cannot be used; at most 10 ")
    skipped = [("a.wav", "is empty"), ("b.wav", "is empty"), ("a.wav", "is empty")]
    assert task._name_skipped({"skipped": skipped}) == 2


@pytest.mark.parametrize(
    ("metric", "criterion", "works"),
    [
        ("mAP", "eat_classification", True),
        ("loss", "eat_classification", True),
        ("mAp", "eat_classification", False),
        ("accuracy", "eat_classification", False),
        ("accuracy", "model", False),
        ("correct", "model", True),  # this criterion may log it
    ],
)
def test_metric__unavailable_one_is_refused(metric, criterion, works):
    def look(**dataset):
        parts = {"checkpoint": {"best_checkpoint_metric": metric}, "dataset": dataset}
        root = OmegaConf.create({"task": {}, "criterion": {"_name": criterion}, **parts})
        names = metric_names(single_label=False)
        check_metric(RunConfig(root.task), "eat_classification", names, METRICS)

    look(disable_validation=True)
    if works:
        look()
        return
    with pytest.raises(ValueError, match=f"is '{metric}', .* choose one of mAP, .*loss"):
        look()
