"""Checks of the tasks on audio at start."""

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from eat_plugin import cli
from eat_plugin.data.manifest import ManifestError
from eat_plugin.tasks.pretraining import EatPretrainingTask, PretrainingConfig


def test_load_dataset__changed_archive_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(1_600), 16_000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "a.flac", "a.flac")
    assert cli.main(["manifest", str(tmp_path), "--out", str(tmp_path)]) == 0
    options = PretrainingConfig(data=str(tmp_path), seed=1, norm_mean=-4.0, norm_std=4.0)
    task = EatPretrainingTask(OmegaConf.structured(options))
    task.load_dataset("train")
    assert len(task.dataset("train")) == 2
    with open(tmp_path / "x.zip", "ab") as file:
        file.write(b"more")
    with pytest.raises(ManifestError, match=r"train.archives:1: .*x.zip' has \d+ bytes"):
        task.load_dataset("train")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"image_shape": (3, 224, 224)}, "the data are sound .* the model takes images"),
        ({"patch": 8}, "task.patch_size is 16, but the model's patches have 8 frames"),
    ],
)
def test_build_model__model_of_other_input_is_refused(tmp_path, monkeypatch, model, message):
    encoder = SimpleNamespace(cfg=SimpleNamespace(patch_size=model.pop("patch", 16)))
    built = SimpleNamespace(patch_encoder=encoder, **model)
    monkeypatch.setattr("fairseq.models.build_model", lambda *_: built)
    options = PretrainingConfig(data=str(tmp_path), seed=1, length="mask", patch_size=16)
    with pytest.raises(ValueError, match=message):
        EatPretrainingTask(OmegaConf.structured(options)).build_model(OmegaConf.create({}))
