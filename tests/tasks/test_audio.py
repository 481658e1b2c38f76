"""What the tasks on audio do before they begin."""

import zipfile

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from eat_plugin import cli
from eat_plugin.data.manifest import ManifestError
from eat_plugin.tasks.pretraining import EatPretrainingTask, PretrainingConfig


def test_read_split__refuses_an_archive_that_has_changed(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(1_600), 16_000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "a.flac", "a.flac")
    assert cli.main(["manifest", str(tmp_path), "--out", str(tmp_path)]) == 0
    cfg = OmegaConf.structured(PretrainingConfig(data=str(tmp_path), seed=1))
    task = EatPretrainingTask(cfg)
    assert len(task.read_split("train")) == 2
    with open(tmp_path / "x.zip", "ab") as file:
        file.write(b"more")
    with pytest.raises(ManifestError, match=r"train.archives:1: .*x.zip' has \d+ bytes"):
        task.read_split("train")
