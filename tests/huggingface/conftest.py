"""Folders of tiny checkpoints, and transformers where it is installed."""

import json
import os

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main


@pytest.fixture(scope="session")
def transformers(tmp_path_factory):
    """The package transformers, with a cache of its own; without it the test is skipped."""
    os.environ["HF_HOME"] = str(tmp_path_factory.mktemp("hf_home"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    return pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install '.[hf]'"
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Recordings of 0.7 s and 2.5 s, shorter and longer than a window, at two rates."""
    folder, paths = tmp_path_factory.mktemp("clips"), []
    for number, (seconds, rate) in enumerate(((0.7, 16_000), (2.5, 44_100))):
        samples = np.random.default_rng(number).normal(0, 0.1, int(seconds * rate)).clip(-1, 1)
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], samples, rate)
    return paths


@pytest.fixture(scope="module")
def export(tmp_path_factory, clips):
    """Export a checkpoint as a folder; return the exit code and the folder."""
    pytest.importorskip("safetensors")

    def export(checkpoint, *arguments, out=None):
        out = out or tmp_path_factory.mktemp("exported") / "folder"
        command = ["export", "--checkpoint", checkpoint, "--format", "hf", "--out", out]
        return main([*map(str, (*command, "--clips", *clips, *arguments))]), out

    return export


@pytest.fixture(scope="session")
def make_any(make_checkpoint, golden):
    """Save a tiny model: ``pretraining``, ``bat``, ``classification``, ``other``.

    The last one is a classifier with all that the published model does not have.
    """
    micro = json.loads((golden / "pretraining_micro.json").read_text())["model"]["modalities"]

    def make(kind, **changes):
        if kind == "bat":
            modalities = {"image": {**micro["image"], "positions": "published"}}
            gated = {"model_attention_gate": True, "model_modalities": modalities, **changes}
            return make_checkpoint("pretraining", task_frontend="db", **gated)
        if kind != "other":
            return make_checkpoint(kind, **changes)
        image = {**micro["image"], "patch_size": [16, 32], "num_extra_tokens": 2, "embed_dim": 24}
        return make_checkpoint(
            "classification", task_length="mask", task_norm="bins",
            task_norm_mean=[-5.0 + i / 64 for i in range(128)], task_patch_size=[16, 32],
            task_norm_std=[3.0 + i / 128 for i in range(128)], task_pad_value="silence",
            task_single_label=True, model_loss="ce", model_single_label=True,
            model_prediction_mode="SEGMENT_POOLING", model_segments=3, model_layer_norm_first=True,
            model_use_fc_norm=False, model_modalities={"image": image},
        )  # fmt: skip

    return make
