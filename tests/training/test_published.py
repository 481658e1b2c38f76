"""Published configurations and checkpoints; only user_dir and paths are changed."""

import argparse
import json
from pathlib import Path

import pytest
import yaml
from fairseq import checkpoint_utils, utils

from tests.versions import fairseq_main

ROOT = Path(__file__).resolve().parents[2]
MICRO = json.loads((ROOT / "tests" / "golden" / "pretraining_micro.json").read_text())


@pytest.fixture
def published(clips):
    """A YAML file of the published schema, without names of this package."""
    config = {
        "common": {
            "cpu": True, "log_format": "json", "log_interval": 1, "seed": 1,
            "min_loss_scale": 1e-6, "fp16_no_flatten_grads": True, "user_dir": "EAT",
        },
        "checkpoint": {
            "save_interval": 1, "save_interval_updates": 10000, "keep_interval_updates": 1,
            "no_epoch_checkpoints": True,
        },
        "dataset": {
            "num_workers": 1, "batch_size": 4, "skip_invalid_size_inputs_valid_test": True,
            "required_batch_size_multiple": 1, "disable_validation": True,
        },
        "distributed_training": {"distributed_world_size": 1, "ddp_backend": "c10d"},
        "criterion": {
            "_name": "model",
            "log_keys": [
                "ema_decay", "target_var", "pred_var", "model_norm", "ema_norm", "masked_pct",
            ],
        },
        "optimization": {
            "max_update": 4, "lr": [0.0005], "debug_param_names": True, "clip_norm": 4,
        },
        "optimizer": {
            "_name": "composite", "dynamic_groups": True,
            "groups": {
                "default": {
                    "lr_float": 0.0005,
                    "optimizer": {
                        "_name": "adam", "adam_betas": [0.9, 0.95], "weight_decay": 0.05,
                    },
                    "lr_scheduler": {"_name": "cosine", "warmup_updates": 2},
                }
            },
        },
        "lr_scheduler": "pass_through",
        "task": MICRO["task"],
        "model": MICRO["model"],
    }  # fmt: skip
    path = clips / "config" / "published.yaml"
    path.parent.mkdir()
    path.write_text("# @package _group_\n" + yaml.safe_dump(config))
    return path


def train(trainer, published, *overrides):
    command = trainer.command
    trainer.command = lambda *o, **k: [
        str(published.parent) if part == str(ROOT / "config") else part for part in command(*o, **k)
    ]
    return trainer.succeed(*overrides, config=("published",))


@fairseq_main
def test_published_yaml__trains_unchanged(trainer, published):
    output = train(trainer, published)
    assert "num_updates: 4 >= max_update: 4" in output
    for name in ("loss_cls", "loss_regression", "ema_decay", "masked_pct", "skipped_clips"):
        assert f'"{name}"' in output
    state = trainer.checkpoint()
    assert state["cfg"]["task"]["_name"] == "mae_image_pretraining"
    assert state["cfg"]["model"]["_name"] == "data2vec_multi"


@fairseq_main
def test_published_yaml__mask_options_come_from_the_model(trainer, published):
    config = yaml.safe_load(published.read_text())
    config["task"]["precompute_mask_config"] = {}
    published.write_text("# @package _group_\n" + yaml.safe_dump(config))
    train(trainer, published, "optimization.max_update=1", "model.modalities.image.mask_prob=0.5")
    state = trainer.checkpoint()
    assert state["cfg"]["task"]["precompute_mask_config"]["mask_prob"] == 0.5
    assert state["optimizer_history"][-1]["num_updates"] == 1


def test_published_checkpoint__loads_with_fairseqs_function(shared):
    utils.import_user_module(argparse.Namespace(user_dir=str(ROOT / "eat_plugin")))
    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(shared / "golden" / "ckpt_pretrain_tiny.pt")]
    )
    assert cfg.model._name == "data2vec_multi"
    assert type(task).__name__ == "MaeImagePretrainingTask"
    assert models[0].num_updates == 8


@fairseq_main
def test_published_checkpoint__training_resumes(trainer, published, shared):
    source = shared / "golden" / "ckpt_pretrain_tiny.pt"
    import torch

    cfg = torch.load(source, weights_only=True)["cfg"]
    config = yaml.safe_load(published.read_text())
    config["model"], config["task"] = cfg["model"], cfg["task"]
    config["model"]["max_update"] = config["optimization"]["max_update"] = 10
    published.write_text("# @package _group_\n" + yaml.safe_dump(config))
    output = train(trainer, published, f"checkpoint.restore_file={source}", "dataset.batch_size=1")
    assert f"Loaded checkpoint {source} (epoch 1 @ 8 updates)" in output
    state = trainer.checkpoint()
    assert state["optimizer_history"][-1]["num_updates"] == 10
    assert state["last_optimizer_state"]["default"]["state"][0]["step"] == 10
