"""Real runs of ``fairseq-hydra-train`` on a few small images."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, utils
from PIL import Image

from eat_plugin.cli import main
from eat_plugin.inference import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("cat", "dog", "owl")
COMMON = [
    "common.cpu=true", "common.fp16=false", "common.log_interval=1", "dataset.num_workers=0",
    "dataset.batch_size=4", "task.images.size=[32,48]", "checkpoint.save_interval_updates=4",
    "checkpoint.keep_interval_updates=-1", "lr_scheduler.warmup_updates=2", "model.depth=2",
    "model.embed_dim=32", "model.num_heads=4", "model.modalities.image.patch_size=8",
]  # fmt: skip
PRETRAIN = [
    *COMMON, "model.average_top_k_layers=2", "model.clone_batch=3", "model.ema_decay=0.9",
    "model.recon_loss=1", "model.modalities.image.decoder.decoder_dim=32",
    "model.convolution=channels_last",  # timed on a busy machine, runs may differ in their way
]  # fmt: skip
GREY = ["task.images.channels=1", "task.images.mean=[0.5]", "task.images.std=[0.25]"]
PRETRAINING = ("image_pretrain", *PRETRAIN)
FINETUNING = ("image_finetune", *COMMON)


@pytest.fixture
def images(clips):
    """12 images of three classes, one of them damaged, and their manifests."""
    rng = np.random.default_rng(0)
    folder = clips / "images"
    for number in range(12):
        pixels = rng.integers(0, 256, (*rng.integers(30, 70, 2), 3)).astype(np.uint8)
        path = folder / KINDS[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    command = ["manifest", folder, "--images", "--layout", "folders", "--valid", 0.25]
    assert main([*map(str, command), "--out", str(clips)]) == 0
    bad = (clips / "train.tsv").read_text().splitlines()[1].split("\t")[0]
    (folder / bad).write_bytes((folder / bad).read_bytes()[:500])
    return clips


def load(path):
    utils.import_user_module(argparse.Namespace(user_dir=str(ROOT / "eat_plugin")))
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    return models[0].eval(), task


def test_images__pretrain_resume_finetune_and_predict(trainer, images, assert_same, capsys):
    # Pre-training in one run, and resumed within epoch 2 with a data worker.
    output = trainer.succeed("optimization.max_update=6", config=PRETRAINING, name="straight")
    assert re.search(r"clip '\w+/\d+.png' cannot be used and was replaced: cannot be dec", output)
    line = json.loads(re.findall(r"\[train_inner\]\[INFO\] - (\{.*\})", output)[-1])
    assert {"loss_cls", "loss_regression", "loss_recon"} < line.keys()
    assert float(line["masked_pct"]) == pytest.approx(20 / 24, abs=1e-3)
    checkpoints = images / "straight" / "checkpoints"
    (saved,) = checkpoints.glob("checkpoint_*_4.pt")
    trainer.succeed(
        f"checkpoint.restore_file={saved}", "optimization.max_update=6", "dataset.num_workers=1",
        config=PRETRAINING, name="resumed",
    )  # fmt: skip
    one, two = trainer.checkpoint("straight"), trainer.checkpoint("resumed")
    assert_same(one["model"], two["model"])
    assert_same(one["last_optimizer_state"], two["last_optimizer_state"])
    pretrained = checkpoints / "checkpoint_last.pt"
    model, task = load(pretrained)
    assert task.images.size == (32, 48)
    assert model(torch.zeros(1, 3, 32, 48), features_only=True, mask=False)["x"].shape[1] == 24
    loaded = load_checkpoint(pretrained)
    picture = next((images / "images" / "owl").iterdir())
    assert loaded.features(loaded.image(picture)[None], "grid").shape == (1, 4, 6, 32)
    assert loaded.extract(picture, "frame").x.shape == (4, 32)

    # Fine-tuning from that checkpoint.
    start = [f"model.model_path={pretrained}", "optimization.max_update=4"]
    trainer.succeed(*start, config=FINETUNING, name="fine")
    tuned = images / "fine" / "checkpoints" / "checkpoint_last.pt"
    pretrained.unlink()
    model, _ = load(tuned)
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 3)
    capsys.readouterr()
    command = ["evaluate", "--checkpoint", str(tuned), "--data", str(images), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["n_clips"] == 3
    assert main(["predict", "--checkpoint", str(tuned), str(picture), "--top", "1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split("\t")[0] == str(picture)
    assert shown[1].split("\t")[1] in KINDS


def test_images__one_channel_from_scratch(trainer, images):
    options = ("image_finetune", *COMMON, *GREY, "model.model_path=null")
    output = trainer.succeed("optimization.max_update=4", config=options)
    assert re.search(r'"eval_accuracy": "[\d.]+"', output)
    name = "model.modality_encoders.IMAGE.local_encoder.proj.weight"
    assert trainer.checkpoint()["model"][name].shape == (32, 1, 8, 8)


def test_images__model_of_other_channels_is_refused_at_start(trainer, images):
    status, output = trainer.run("model.modalities.image.in_chans=1", config=PRETRAINING)
    assert status != 0
    assert "the data are images of 3 channels, 32x48 pixels (task.images), but" in output
    assert "takes images of 1 channel, 32x48 pixels" in output
    assert "train_inner" not in output
