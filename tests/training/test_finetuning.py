"""Real runs of fine-tuning: from checkpoints, resumed, in several processes, as published."""

import argparse
import json
import re
import socket
from pathlib import Path

import pytest
import torch
import yaml
from fairseq import checkpoint_utils, utils
from fairseq.trainer import Trainer

from tests.training.conftest import KINDS
from tests.training.in_process import train
from tests.versions import fairseq_main, half_on_cpu

ROOT = Path(__file__).resolve().parents[2]
SIZE = [
    "size=tiny", "common.cpu=true", "common.fp16=false", "common.log_interval=1",
    "dataset.num_workers=0", "dataset.batch_size=4", "task.target_length=64",
    "task.single_label=true", "model.loss=ce", "lr_scheduler.warmup_updates=1",
    "optimization.max_update=4", "optimization.lr=[0.001]",
]  # fmt: skip
SCRATCH = [
    *SIZE, "model.model_path=null", "model.depth=2", "model.embed_dim=32", "model.num_heads=4",
    "model.average_top_k_layers=2",
]  # fmt: skip


def metrics_of(output):
    """The metrics of the last validation."""
    found = re.findall(r"\[eval\]\[INFO\] - (\{.*\})", output)
    return {name: float(value) for name, value in json.loads(found[-1]).items()}


def load(path):
    utils.import_user_module(argparse.Namespace(user_dir=str(ROOT / "eat_plugin")))
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    return models[0].eval(), task


def test_finetune__checkpoint_is_self_contained(trainer, labelled):
    trainer.succeed("optimization.max_update=3", name="before")
    before = labelled / "before" / "checkpoints" / "checkpoint_last.pt"
    output = trainer.succeed(f"model.model_path={before}", config=("finetune", *SIZE), name="after")
    result = metrics_of(output)
    assert {"eval_mAP", "eval_mAUC", "eval_d_prime", "eval_accuracy"} < result.keys()
    state = trainer.checkpoint("after", "checkpoint_best.pt")
    assert state["task_state"]["labels"] == {"dog": "0", "rain": "1", "clock": "2"}
    assert state["task_state"]["label_names"] == ["A dog", "A rain", "A clock"]
    assert state["cfg"]["model"]["num_classes"] == 3

    kept = labelled / "after" / "checkpoints" / "checkpoint_last.pt"
    for path in (before, labelled / "label_descriptors.csv"):
        path.unlink()
    model, task = load(kept)
    assert task.label_set.ids == KINDS
    assert model(torch.zeros(1, 1, 64, 128)).shape == (1, 3)
    assert len(model.model.blocks) == 2


def test_finetune__does_not_resume_with_other_classes(trainer, labelled):
    trainer.succeed("optimization.max_update=2", config=("finetune", *SCRATCH))
    for name in ("label_descriptors.csv", "train.lbl", "eval.lbl"):
        path = labelled / name
        path.write_text(path.read_text().replace("dog", "wolf"))
    status, output = trainer.run("optimization.max_update=4", config=("finetune", *SCRATCH))
    assert status != 0
    assert "the classes in label_descriptors.csv differ from those of" in output


def test_finetune__resumed_equals_one_run(trainer, labelled, assert_same):
    augment = ["model.mixup=0.8", "model.specaug=true", "task.noise=true", "task.roll_gain=true"]
    options = {"config": ("finetune", *SCRATCH, *augment)}
    saved = trainer.succeed(
        "optimization.max_update=7", "checkpoint.save_interval_updates=4",
        "checkpoint.keep_interval_updates=-1", name="straight", **options,
    )  # fmt: skip
    assert "checkpoint_2_4.pt" in saved
    restored = labelled / "straight" / "checkpoints" / "checkpoint_2_4.pt"
    trainer.succeed(
        f"checkpoint.restore_file={restored}", "optimization.max_update=7", "dataset.num_workers=1",
        name="resumed", **options,
    )  # fmt: skip
    one, two = trainer.checkpoint("straight"), trainer.checkpoint("resumed")
    assert_same(one["model"], two["model"])
    assert_same(one["last_optimizer_state"], two["last_optimizer_state"])


def test_finetune__two_processes_count_each_clip_once(trainer, labelled):
    # Without random numbers in the model, which equal seeds repeat in each process.
    options = {"config": ("finetune", *SCRATCH, "model.drop_path_rate=0", "model.specaug=false")}
    accumulate = ["optimization.update_freq=[2]", "dataset.batch_size=3"]
    one = metrics_of(trainer.succeed(*accumulate, name="one", **options))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    processes = [
        trainer.start(
            "dataset.batch_size=3", f"distributed_training.distributed_rank={rank}",
            "distributed_training.distributed_world_size=2", "distributed_training.device_id=0",
            f"distributed_training.distributed_init_method=tcp://127.0.0.1:{port}",
            "distributed_training.distributed_no_spawn=true",
            "distributed_training.distributed_backend=gloo",
            "distributed_training.ddp_backend=legacy_ddp", name="two", **options,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs[0][-3000:]
    two = metrics_of(next(output for output in outputs if "[eval][INFO]" in output))
    for name in ("mAP", "mAUC", "accuracy", "loss"):
        assert two[f"eval_{name}"] == pytest.approx(one[f"eval_{name}"], abs=1e-4), name


def test_finetune__a_process_without_a_batch_repeats_one_of_training(labelled, monkeypatch):
    """fairseq keeps one for it; a validation within the epoch has batches of other splits."""
    kept, given = [], Trainer.train_step

    def train_step(trainer, *arguments, **options):
        kept.append(trainer._dummy_batch)
        return given(trainer, *arguments, **options)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    options = ["dataset.validate_interval_updates=1", "dataset.batch_size=2"]
    train("finetune", labelled, *options, f"checkpoint.save_dir={labelled / 'run'}")
    assert len(kept) == 2
    assert kept[0] is kept[1]


def test_finetune__damaged_clips_are_not_scored(trainer, labelled):
    (labelled / "held_out" / "01.wav").write_bytes(b"no audio")
    output = trainer.succeed(config=("finetune", *SCRATCH))
    result = metrics_of(output)
    assert (result["eval_clips"], result["eval_skipped_clips"]) == (6, 1)
    assert output.count("clip '01.wav' cannot be used and was replaced") == 1
    # Six of seven clips are scored.
    right = result["eval_accuracy"] * 6
    assert right == pytest.approx(round(right), abs=1e-4)


def test_finetune__balanced_sampling_uses_the_weights(trainer, labelled):
    (labelled / "train.weights.csv").write_text("1\n0\n0\n" * 4)
    output = trainer.succeed(
        "task.weights_file=train.weights.csv", "task.num_samples=4", config=("finetune", *SCRATCH)
    )
    assert "num_updates: 4 >= max_update: 4" in output
    assert '"epoch": 4' in output  # one batch per epoch
    status, output = trainer.run(
        "task.weights_file=train.weights.csv", "task.num_samples=5", name="second",
        config=("finetune", *SCRATCH),
    )  # fmt: skip
    assert status != 0
    assert "only 4 clips can be drawn" in output


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("train.lbl", "00.wav\tdog\n", "{path} has the labels of 1 clips, but .*train.tsv has 12"),
        ("train.lbl", "00.wav\tcat\n", "{path}:1: unknown label 'cat'; 3 are known"),
        ("eval.lbl", None, "{path}: cannot be read: No such file"),
        ("label_descriptors.csv", "0,dog,A dog\n1,rain,Rain\n", ".*lbl:3: unknown label 'clock'"),
    ],
)
def test_finetune__error_names_inconsistent_data(labelled, file, text, problem):
    path = labelled / file
    path.write_text(text) if text else path.unlink()
    with pytest.raises(ValueError, match=problem.format(path=f"^{re.escape(str(path))}")) as error:
        train("finetune", labelled)
    assert type(error.value).__module__.startswith("eat_plugin")


def test_finetune__wrong_number_of_classes_is_refused(labelled):
    message = "model.num_classes is 5, but label_descriptors.csv has 3 classes"
    with pytest.raises(ValueError, match=message):
        train("finetune", labelled, "model.num_classes=5")


@fairseq_main
def test_published_yaml__fine_tunes_unchanged(trainer, labelled, shared):
    config = {
        "common": {"cpu": True, "log_format": "json", "log_interval": 1, "user_dir": "EAT"},
        "checkpoint": {
            "save_interval": 1, "no_epoch_checkpoints": True, "best_checkpoint_metric": "mAP",
            "maximize_best_checkpoint_metric": True,
        },
        "task": {
            "_name": "mae_image_classification", "data": "/data", "downsr_16hz": True,
            "audio_mae": True, "target_length": 256, "roll_aug": True, "noise": False,
            "h5_format": True, "weights_file": "/weights.csv", "num_samples": 200000,
            "AS2M_finetune": False, "spcv1_finetune": False, "spcv2_eval": False,
            "esc50_eval": False,
        },
        "dataset": {
            "num_workers": 0, "batch_size": 4, "skip_invalid_size_inputs_valid_test": True,
            "required_batch_size_multiple": 2, "train_subset": "train", "valid_subset": "eval",
        },
        "distributed_training": {"distributed_world_size": 1, "ddp_backend": "c10d"},
        "criterion": {"_name": "model", "log_keys": ["_predictions", "_targets"]},
        "optimization": {"max_update": 2, "lr": [0.00005]},
        "optimizer": {
            "_name": "composite", "dynamic_groups": True,
            "groups": {
                "default": {
                    "lr_float": 0.00005,
                    "optimizer": {
                        "_name": "adam", "adam_betas": [0.9, 0.95], "weight_decay": 0.05,
                    },
                    "lr_scheduler": {"_name": "cosine", "warmup_updates": 1, "min_lr": 1e-6},
                }
            },
        },
        "lr_scheduler": "pass_through",
        "model": {
            "_name": "mae_image_classification", "mixup": 0.7, "mixup_prob": 0.9,
            "model_path": str(shared / "golden" / "ckpt_pretrain_tiny.pt"), "audio_mae": True,
            "num_classes": 3, "specaug": True, "mask_ratio": 0.2,
            "prediction_mode": "PredictionMode.CLS_TOKEN", "spcv2_eval": False,
            "esc50_eval": False, "target_length": 256, "label_smoothing": 0.0, "freqm": 25,
            "timem": 200,
        },
    }  # fmt: skip
    folder = labelled / "config"
    folder.mkdir()
    (folder / "published.yaml").write_text("# @package _group_\n" + yaml.safe_dump(config))
    command = trainer.command
    trainer.command = lambda *o, **k: [
        str(folder) if part == str(ROOT / "config") else part for part in command(*o, **k)
    ]
    result = metrics_of(trainer.succeed(config=("published",)))
    assert 0 < result["eval_mAP"] <= 1
    result = metrics_of(
        trainer.succeed(
            "criterion.log_keys=[correct]", "task.esc50_eval=true", "model.esc50_eval=true",
            "checkpoint.best_checkpoint_metric=accuracy", config=("published",), name="single",
        )
    )  # fmt: skip
    right = result["eval_accuracy"] * 7
    assert right == pytest.approx(round(right), abs=1e-4)
    state = trainer.checkpoint("single")
    assert state["cfg"]["model"]["_name"] == "mae_image_classification"
    pretrained = state["cfg"]["model"]["pretrained_model_args"]
    assert pretrained["task"]["_name"] == "mae_image_pretraining"


def test_published_checkpoint__loads_and_resumes(trainer, labelled, shared):
    path = shared / "golden" / "ckpt_finetune_tiny.pt"
    model, task = load(path)
    assert type(task).__name__ == "MaeImageClassificationTask"
    assert task.label_set.ids[0] == "/m/000"
    assert model(torch.zeros(1, 1, 256, 128)).shape == (1, 8)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(["common.bf16=true"], id="bf16", marks=half_on_cpu),
        pytest.param(
            ["common.fp16=true", "common.fp16_init_scale=1"], id="fp16", marks=half_on_cpu
        ),
        pytest.param(["common.amp=true"], id="amp", marks=pytest.mark.slow),
    ],
)
def test_finetune__trains_in_other_precisions(trainer, labelled, mode):
    output = trainer.succeed(*mode, config=("finetune", *SCRATCH))
    found = re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)
    losses = [float(json.loads(line)["loss"]) for line in found]
    assert len(losses) == 4
    assert all(0 < loss < 10 for loss in losses)
    assert 0 <= metrics_of(output)["eval_accuracy"] <= 1
