"""Small checkpoints and clips for the adapters."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    """A pre-trained model with windows of 1.28 s and columns of 160 ms."""
    return make_checkpoint("pretraining", task_norm_mean=-5.0, task_norm_std=4.569)


@pytest.fixture
def draw_audio():
    """``draw_audio(clips, seconds)``: noise that grows louder, [clips, samples] at 16 kHz."""

    def draw(clips, seconds):
        samples = int(16_000 * seconds)
        noise = torch.rand(clips, samples, generator=torch.Generator().manual_seed(samples)) * 2 - 1
        return noise * torch.linspace(0.01, 1, samples)

    return draw


@pytest.fixture
def run_with(tmp_path):
    """``run_with(package, code, *arguments)``: run code where a package is installed.

    That is this Python, or the one that ``EAT_XARES_PYTHON`` (``EAT_MTEB_PYTHON``) names.
    """

    def run(package, code, *arguments):
        variable = f"EAT_{package.upper()}_PYTHON"
        python = os.environ.get(variable)
        if python is None and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; {variable} may name a Python that has it")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        result = subprocess.run(
            [python or sys.executable, "-c", code, *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout.splitlines()

    return run


@pytest.fixture
def reference(checkpoint):
    """``reference(samples, rate)``: columns and times by ``Loaded.extract``."""
    from eat_plugin.inference import load_checkpoint

    loaded = load_checkpoint(checkpoint)

    def extract(samples, rate=16_000):
        return loaded.extract((np.asarray(samples), rate), "frame")

    return extract
