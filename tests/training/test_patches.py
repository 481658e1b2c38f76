"""Patches of four frames by all mel bins, from pre-training to features and predictions."""

import math

import numpy as np
import pytest
import torch

from eat_plugin.cli import main
from eat_plugin.inference import load_checkpoint
from eat_plugin.report.example import read_example
from tests.training.in_process import load, train

PRETRAIN = ["model.modalities.image.patch_size=[4,128]", "model.recon_loss=1"]


def pretrain(data, folder, *options):
    train("pretrain", data, *PRETRAIN, f"checkpoint.save_dir={folder}", *options)
    return folder / "checkpoint_last.pt"


def test_pretrain__resumed_equals_one_run(labelled, assert_same):
    own = ["task.length=mask", "dataset.batch_size=null", "dataset.max_tokens=160"]
    for name, options in (("pad", []), ("mask", own)):
        straight, parts = labelled / f"{name}_straight", labelled / f"{name}_parts"
        options = [
            *options, "optimization.max_update=4", "checkpoint.save_interval_updates=2",
            "checkpoint.keep_interval_updates=-1",
        ]  # fmt: skip
        pretrain(labelled, straight, *options)
        (middle,) = straight.glob("checkpoint_*_2.pt")
        pretrain(labelled, parts, *options, f"checkpoint.restore_file={middle}")
        one, two = load(straight), load(parts)
        assert one["optimizer_history"][-1]["num_updates"] == 4
        assert_same(one["model"], two["model"])
        cfg = one["cfg"]
        image = cfg["model"]["modalities"]["image"]
        assert cfg["task"]["patch_size"] == image["patch_size"] == [4, 128]
        assert cfg["task"]["precompute_mask_config"]["patch_size"] == [4, 128]
        embedding = "modality_encoders.IMAGE.local_encoder.proj.weight"
        assert one["model"][embedding].shape == (32, 1, 4, 128)
        assert one["model"]["recon_proj.weight"].shape == (512, 32)
        kernel = one["model"]["modality_encoders.IMAGE.decoder.blocks.0.0.weight"].shape[2:]
        assert kernel == (3, 1)
    with pytest.raises(ValueError, match=r"patch_size=\[4, 128\], this run .*patch_size=16"):
        train(
            "pretrain", labelled, *options, f"checkpoint.save_dir={parts}",
            "model.modalities.image.patch_size=16",
        )  # fmt: skip


def test_finetune__another_window_then_features_and_predictions(labelled, capsys):
    start = pretrain(labelled, labelled / "pretrained")
    example = read_example(start)
    assert example.masks.shape == (2, 16, 1)
    assert np.isfinite(example.reconstructions).all()
    options = [
        f"model.model_path={start}", "task.length=mask", f"checkpoint.save_dir={labelled / 'run'}"
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"patches have 4 frames .*: set that to \[4, 128\]"):
        train("finetune", labelled, *options, "model.modalities.image.patch_size=16")
    train("finetune", labelled, *options, "task.target_length=100")  # patches as in the checkpoint
    path = labelled / "run" / "checkpoint_last.pt"
    weights = "modality_encoders.IMAGE.local_encoder.proj.weight"
    torch.testing.assert_close(
        load(labelled / "run")["model"][f"model.{weights}"], load(start.parent)["model"][weights],
        atol=0.02, rtol=0,
    )  # fmt: skip
    loaded, clip = load_checkpoint(path), str(labelled / "audio" / "00.wav")
    assert loaded.patch == 4
    frames = loaded.spectrogram(clip).shape[1]
    assert frames % 4 == 0
    assert frames % 16 != 0  # so a clip is not padded to 16 frames
    found = loaded.extract(clip, granularity="grid", window=0.4)
    assert found.x.shape[1:] == (1, 32)
    assert found.times[1] - found.times[0] == pytest.approx(0.04)
    assert torch.allclose(loaded.predict(clip), loaded.predict([clip, clip])[1], atol=1e-6)
    out = labelled / "features.npz"
    common = ["--checkpoint", str(path), "--device", "cpu"]
    assert main(["features", *common, clip, "--granularity", "frame", "--out", str(out)]) == 0
    assert main(["predict", *common, clip, "--top", "2"]) == 0
    assert main(["evaluate", *common, "--data", str(labelled)]) == 0
    shown = float(capsys.readouterr().out.split("accuracy")[1].split()[0])
    assert math.isfinite(shown)
    # Pre-training again continues from the weights with another window.
    pretrain(
        labelled, labelled / "again", f"checkpoint.finetune_from_model={start}",
        "task.target_length=96",
    )  # fmt: skip
