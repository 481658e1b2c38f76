"""Small loaded checkpoints and their inputs."""

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.inference import load_checkpoint

RATE = 16_000


@pytest.fixture(scope="module")
def pretrained(make_checkpoint):
    return load_checkpoint(make_checkpoint("pretraining", task_norm_mean=-5.0, task_norm_std=4.569))


@pytest.fixture(scope="module")
def classifier(make_checkpoint):
    return load_checkpoint(make_checkpoint("classification"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Five seconds of noise that grows louder: four windows, the last one short."""
    path = tmp_path_factory.mktemp("audio") / "noise.wav"
    samples = np.random.default_rng(0).normal(0, 1, 5 * RATE) * np.linspace(0.001, 0.2, 5 * RATE)
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture(scope="module")
def source():
    return torch.randn(3, 1, 128, 128, generator=torch.Generator().manual_seed(0))
