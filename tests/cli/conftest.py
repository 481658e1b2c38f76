"""Clips and labels for the subcommands that run a model."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.forked import Forked

RATE = 16_000
LABELS = ("dog", "rain", "clock")


@pytest.fixture
def sounds(tmp_path):
    """Clips of noise below a folder: 0.5 s, 1.28 s (a window), 3.2 s (two windows and a half)."""
    folder = tmp_path / "sounds"
    (folder / "deep er").mkdir(parents=True)
    for number, (name, seconds) in enumerate(
        (("a.wav", 0.5), ("deep er/b.flac", 1.28), ("c.wav", 3.2))
    ):
        samples = np.random.default_rng(number).normal(0, 0.02 + 0.1 * number, int(seconds * RATE))
        soundfile.write(folder / name, samples.clip(-1, 1), RATE)
    return folder


@pytest.fixture
def add_bad_files(sounds):
    """Add unusable files: text, three samples, a truncated file."""

    def add():
        (sounds / "text.wav").write_text("no audio")
        soundfile.write(sounds / "tiny.wav", np.zeros(3), RATE)
        whole = (sounds / "deep er" / "b.flac").read_bytes()
        (sounds / "half.flac").write_bytes(whole[: len(whole) // 2])
        return {"text.wav", "tiny.wav", "half.flac"}

    return add


@pytest.fixture
def labelled(tmp_path):
    """A split ``eval`` of eleven clips of 0.3 s with one label each, and their classes."""
    data = tmp_path / "data"
    (data / "audio").mkdir(parents=True)
    lines, labels = [str(data / "audio")], []
    for number in range(11):
        level = 0.001 * 1.8**number
        samples = np.random.default_rng(number).normal(0, level, 4_800)
        soundfile.write(data / "audio" / f"{number:02d}.wav", samples.clip(-1, 1), RATE)
        lines.append(f"{number:02d}.wav\t4800")
        labels.append(f"{number:02d}.wav\t{LABELS[number % 3]}")
    (data / "eval.tsv").write_text("\n".join(lines) + "\n")
    (data / "eval.lbl").write_text("\n".join(labels) + "\n")
    (data / "label_descriptors.csv").write_text("0,dog,A dog\n1,rain,The rain\n2,clock,A clock\n")
    return data


@pytest.fixture
def console():
    """Run ``eat`` as a program: ``console("predict", ...)`` -> exit code, output, errors."""

    def run(*arguments):
        done = Forked("eat_plugin.cli:main", arguments, Path.cwd(), separate=True)
        output, errors = done.communicate(timeout=300)
        return done.returncode, output, errors

    return run
