"""Checkpoints in each way that fairseq has to use them again."""

import os
import shutil

import pytest
import torch
from fairseq import checkpoint_utils

from eat_plugin.registered.models import EatClassifier
from tests.training.in_process import load, train


@pytest.fixture
def pretrained(labelled):
    folder = labelled / "pretrained"
    train("pretrain", labelled, f"checkpoint.save_dir={folder}")
    return folder / "checkpoint_last.pt"


def test_finetune_from_model__classifier_starts_as_with_model_path(
    labelled, pretrained, assert_same
):
    for name, option in (("a", "model.model_path"), ("b", "checkpoint.finetune_from_model")):
        train(
            "finetune", labelled, f"{option}={pretrained}",
            f"checkpoint.save_dir={labelled / name}",
        )  # fmt: skip
    first, second = (load(labelled / name) for name in "ab")
    assert_same(first["model"], second["model"])
    # The same command resumes.
    train(
        "finetune", labelled, f"checkpoint.finetune_from_model={pretrained}",
        f"checkpoint.save_dir={labelled / 'b'}", "optimization.max_update=3",
    )  # fmt: skip
    assert load(labelled / "b")["optimizer_history"][-1]["num_updates"] == 3


def test_finetune_from_model__classifier_takes_all_weights_of_another(labelled, assert_same):
    train("finetune", labelled, f"checkpoint.save_dir={labelled / 'first'}")
    start = labelled / "first" / "checkpoint_last.pt"
    train(
        "finetune", labelled, f"checkpoint.finetune_from_model={start}", "optimization.lr=[1e-9]",
        "lr_scheduler.min_lr=0", "model.model_path='???'", "model.depth=4",
        f"checkpoint.save_dir={labelled / 'second'}",
    )  # fmt: skip
    assert_same(load(labelled / "first")["model"], load(labelled / "second")["model"], 1e-6)
    with (labelled / "label_descriptors.csv").open("a") as file:
        file.write("3,wolf,A wolf\n")
    with pytest.raises(ValueError, match="a classifier of 3 classes, .* has 4; with model.model_p"):
        train(
            "finetune", labelled, f"checkpoint.finetune_from_model={start}",
            f"checkpoint.save_dir={labelled / 'third'}",
        )  # fmt: skip


def test_continued_classifier__has_the_inputs_and_the_pooling_that_it_was_trained_on(labelled):
    start = labelled / "first" / "checkpoint_last.pt"
    pooling = "model.prediction_mode=MEAN_POOLING"
    train("finetune", labelled, pooling, f"checkpoint.save_dir={start.parent}")
    assert load(start.parent)["cfg"]["task"]["frontend"] == "db"  # of short clips
    for number, option in enumerate(("model.model_path", "checkpoint.finetune_from_model")):
        folder = labelled / str(number)
        train("finetune", labelled, f"{option}={start}", f"checkpoint.save_dir={folder}")
        cfg = load(folder)["cfg"]
        assert (cfg["task"]["frontend"], cfg["task"]["norm"]) == ("db", "bins")
    assert cfg["model"]["prediction_mode"] == "MEAN_POOLING"
    given = [f"checkpoint.finetune_from_model={start}", f"checkpoint.save_dir={labelled / 'other'}"]
    message = "which has model.prediction_mode=MEAN_POOLING, this run .*=CLS_TOKEN: give the same"
    with pytest.raises(ValueError, match=message):
        train("finetune", labelled, *given, "model.prediction_mode=CLS_TOKEN")
    with pytest.raises(ValueError, match="task.frontend is kaldi.* was trained with db: set it"):
        train("finetune", labelled, *given, "task.frontend=kaldi")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pt", "missing.pt', which does not exist"),
        ("damaged.pt", "damaged.pt', which is not a fairseq checkpoint"),
        ("pretrained.pt", "give one of them"),
    ],
)
def test_finetune_from_model__mistake_is_refused(labelled, make_checkpoint, name, message):
    (labelled / "damaged.pt").write_bytes(b"no checkpoint")
    shutil.copy(make_checkpoint("pretraining"), labelled / "pretrained.pt")
    with pytest.raises(ValueError, match=message):
        train(
            "finetune", labelled, f"checkpoint.finetune_from_model={labelled / name}",
            "model.model_path=/other.pt", f"checkpoint.save_dir={labelled / 'run'}",
        )  # fmt: skip


@pytest.mark.parametrize("option", ["finetune_from_model", "restore_file"])
def test_pre_training__starts_from_another_run_with_another_window(labelled, pretrained, option):
    resets = [f"checkpoint.reset_{name}=true" for name in (
        "optimizer", "lr_scheduler", "meters", "dataloader"
    )]  # fmt: skip
    train(
        "pretrain", labelled, f"checkpoint.{option}={pretrained}", "task.target_length=96",
        "optimization.lr=[1e-9]", f"checkpoint.save_dir={labelled / 'second'}",
        *(resets if option == "restore_file" else []),
    )  # fmt: skip
    before, after = (load(folder) for folder in (pretrained.parent, labelled / "second"))
    assert after["optimizer_history"][-1]["num_updates"] == 2  # counted from 0
    name = "blocks.0.mlp.fc1.weight"
    torch.testing.assert_close(before["model"][name], after["model"][name], atol=1e-6, rtol=0)


def test_load_model_ensemble__two_classifiers_with_overrides(labelled):
    for seed in (1, 2):
        train(
            "finetune", labelled, f"common.seed={seed}",
            f"checkpoint.save_dir={labelled / str(seed)}",
        )  # fmt: skip
    paths = [str(labelled / str(seed) / "checkpoint_last.pt") for seed in (1, 2)]
    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task(
        paths, arg_overrides={"max_skipped_share": 0.5, "model": {"mask_ratio": 0.3}}
    )
    assert (cfg.model.mask_ratio, task.cfg.max_skipped_share) == (0.3, 0.5)
    spectrogram = torch.zeros(1, 1, 64, 128)
    first, second = (model.eval()(spectrogram) for model in models)
    assert first.shape == second.shape == (1, 3)
    assert not torch.equal(first, second)


def test_from_pretrained__folder_of_a_run(labelled):
    train("finetune", labelled, f"checkpoint.save_dir={labelled / 'run'}")
    hub = EatClassifier.from_pretrained(
        str(labelled / "run"), checkpoint_file="checkpoint_last.pt",
        data_name_or_path=str(labelled),
    )  # fmt: skip
    (model,) = hub.models
    expected = load(labelled / "run")["model"]["head.weight"]
    assert torch.equal(model.head.weight, expected)
    assert hub.task.label_set.ids == ("dog", "rain", "clock")


def test_finished_run__is_not_trained_further(labelled):
    train("finetune", labelled, "checkpoint.save_dir=run")
    before = os.stat("run/checkpoint_last.pt").st_mtime_ns
    with pytest.raises(SystemExit) as end:
        train("finetune", labelled, "checkpoint.save_dir=run")
    assert end.value.code == 0
    assert os.stat("run/checkpoint_last.pt").st_mtime_ns == before
    checkpoint_utils.load_model_ensemble_and_task(["run/checkpoint_last.pt"])


def test_pre_training__does_not_start_from_a_classifier(labelled):
    train("finetune", labelled, "checkpoint.save_dir=run")
    with pytest.raises(ValueError, match="checkpoint_last.pt', a classifier; pre-training starts"):
        train("pretrain", labelled, "checkpoint.finetune_from_model=run/checkpoint_last.pt")


def test_pre_training__does_not_start_from_an_encoder_alone(labelled, make_checkpoint):
    path = make_checkpoint("pretraining", model_skip_ema=True)
    with pytest.raises(ValueError, match="pt', an encoder without decoder and teacher, as eat imp"):
        train("pretrain", labelled, f"checkpoint.finetune_from_model={path}")


def test_pre_training__metric_that_is_not_computed(labelled):
    with pytest.raises(ValueError, match="is 'mAP', which is not computed; choose one of loss_reg"):
        train(
            "pretrain", labelled, "dataset.disable_validation=false", "dataset.valid_subset=eval",
            "checkpoint.best_checkpoint_metric=mAP",
        )  # fmt: skip
