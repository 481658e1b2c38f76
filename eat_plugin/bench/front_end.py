"""The cases of `eat bench` on the way from a file to a batch.

A case is a function that prepares its input, in a folder for files, and returns a `Case`.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Callable

import numpy as np
import soundfile
import torch
from torch import Tensor

from ..data import frontend as features
from ..data import sources
from ..data.dataset import ClipDataset
from ..data.manifest import read_manifest, write_manifest
from ..data.reader import SpectrogramReader
from ..data.resampling import resample
from ..masking import MaskSpec, draw_masks
from . import plain
from .timing import Case

SECONDS = 10  # of every clip
FRAMES = 1024  # the window that goes with it
GRID, MASKS = (64, 8), 16  # patches of that window, and masks of a clip
AUDIOSET = (-4.268, 4.569)  # mean and standard deviation
# A data worker takes one clip after another, and its caches hold what it needs for them.
in_a_row = partial(Case, burst=50)


def make_noise(rate: int) -> Tensor:
    """Return a clip of noise under a tremolo, [n] float32, and always the same."""
    generator = torch.Generator().manual_seed(rate)
    noise = torch.randn(SECONDS * rate, generator=generator)
    level = torch.sin(torch.arange(SECONDS * rate) * (2 * math.pi / rate)) + 1.1
    return 0.1 * level * noise


def resampling(rate: int) -> Callable[[Path], Case]:
    """Return the case of resampling from a rate in Hz."""

    def prepare(folder: Path) -> Case:
        clip = make_noise(rate)
        return in_a_row(
            f"resample {SECONDS} s from {rate / 1000:g} to 16 kHz",
            lambda: plain.resample(clip, rate),
            lambda: resample(clip, rate),
        )

    return prepare


def log_mel(folder: Path) -> Case:
    """Log-mel energies."""
    clip = make_noise(features.SAMPLE_RATE)
    return in_a_row(
        f"log-mel energies of {SECONDS} s",
        lambda: plain.log_mel(clip),
        lambda: features.log_mel(clip),
    )


def masks(folder: Path) -> Case:
    """Masks of one clip."""
    spec = MaskSpec(GRID)
    options = (spec.mask_prob, spec.mask_prob_adjust, spec.mask_length)
    return in_a_row(
        f"{MASKS} masks on {GRID[0]} x {GRID[1]} patches",
        lambda: plain.draw_masks(GRID, MASKS, *options),
        lambda: draw_masks(spec, MASKS),
        same=False,
    )


def read_wav(folder: Path) -> Case:
    """Read a file."""
    path = write_clip(folder, "wav")
    return in_a_row(
        f"read {SECONDS} s of 16-bit wav at 32 kHz",
        lambda: plain.read_audio(str(path))[0],
        lambda: sources.read_audio(path)[0],
    )


def loading(ending: str) -> Callable[[Path], Case]:
    """Return the case of all that a data worker does with a file of a format."""

    def prepare(folder: Path) -> Case:
        path = write_clip(folder, ending)
        clip = soundfile.info(path).frames
        write_manifest(folder / "train.tsv", folder, [(path.name, clip)])
        reader = SpectrogramReader(
            read_manifest(folder / "train.tsv"), features.FrontEnd(FRAMES, *AUDIOSET)
        )
        spec = MaskSpec(GRID)
        dataset = ClipDataset(reader, masks=spec, num_masks=MASKS)
        options = (spec.mask_prob, spec.mask_prob_adjust, spec.mask_length)

        def load_plainly() -> Tensor:
            spectrogram = plain.load(str(path), FRAMES, *AUDIOSET)
            plain.draw_masks(GRID, MASKS, *options)
            return spectrogram

        return in_a_row(
            f"load {SECONDS} s of {ending} at 32 kHz: read, resample, log-mel, {MASKS} masks",
            load_plainly,
            lambda: dataset[0]["source"],
        )

    return prepare


def write_clip(folder: Path, ending: str) -> Path:
    """Write a clip at 32 kHz in a format; return the file.

    Raises:
        ValueError: libsndfile cannot write the format.
    """
    path = folder / f"clip.{ending}"
    samples = np.clip(make_noise(32_000).numpy(), -1, 1)
    try:
        soundfile.write(path, samples, 32_000)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise ValueError(f"this libsndfile cannot write {ending}: {error}") from error
    return path


CASES: dict[str, Callable[[Path], Case]] = {
    "resample": resampling(32_000),
    "resample_44k": resampling(44_100),
    "log_mel": log_mel,
    "masks": masks,
    "read_wav": read_wav,
    "load_wav": loading("wav"),
    "load_flac": loading("flac"),
    "load_mp3": loading("mp3"),
}
