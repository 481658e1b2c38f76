"""The cases of `eat bench` of a data worker, from a file to a sample of a batch."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from eat_plugin.data.frames import DB, SAMPLE_RATE
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.kaldi import log_mel
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.data.resampling import resample
from eat_plugin.data.sources import read_audio
from eat_plugin.masking import MaskSpec, draw_masks
from eat_plugin.tasks.dataset import ClipDataset

from . import plain
from .timing import Case, Place, Prepare

SECONDS = 10  # of a clip
FRAMES = 1024  # window of a clip
GRID, MASKS = (64, 8), 16  # patches of the window, masks of a clip
AUDIOSET = (-4.268, 4.569)  # mean and standard deviation
# A data worker repeats its work with warm caches.
BurstCase = partial(Case, burst=50)


def make_noise(rate: int) -> Tensor:
    """Return noise with a tremolo, [n] float32, always the same."""
    generator = torch.Generator().manual_seed(rate)
    noise = torch.randn(SECONDS * rate, generator=generator)
    level = torch.sin(torch.arange(SECONDS * rate) * (2 * math.pi / rate)) + 1.1
    return 0.1 * level * noise


def resampling(rate: int) -> Prepare:
    """Return the case of resampling from a rate in Hz."""

    def prepare(place: Place) -> Case:
        clip = make_noise(rate)
        return BurstCase(
            f"resample {SECONDS} s from {rate / 1000:g} to 16 kHz",
            lambda: plain.resample(clip, rate),
            lambda: resample(clip, rate),
        )

    return prepare


def log_mel_energies(place: Place) -> Case:
    """Log-mel energies."""
    clip = make_noise(SAMPLE_RATE)
    return BurstCase(
        f"log-mel energies of {SECONDS} s", lambda: plain.log_mel(clip), lambda: log_mel(clip)
    )


def decibels(place: Place) -> Case:
    """Decibels from 0 to 1."""
    clip, front_end = make_noise(SAMPLE_RATE), FrontEnd(FRAMES, 0.0, 0.5, kind=DB)
    return BurstCase(
        f"decibels of {SECONDS} s (task.frontend=db)",
        lambda: plain.decibels(clip, FRAMES),
        lambda: front_end(clip, SAMPLE_RATE),
    )


def masks(place: Place) -> Case:
    """Masks of one clip."""
    spec = MaskSpec(GRID)
    return BurstCase(
        f"{MASKS} masks on {GRID[0]} x {GRID[1]} patches",
        lambda: draw_plainly(spec),
        lambda: draw_masks(spec, MASKS),
        same=False,
    )


def draw_plainly(spec: MaskSpec) -> Tensor:
    """Draw the masks of one clip in the plain form."""
    options = (spec.mask_prob, spec.mask_prob_adjust, spec.mask_length)
    return plain.draw_masks(GRID, MASKS, *options)


def read_wav(place: Place) -> Case:
    """Read a wav file."""
    path = write_clip(place.folder, "wav")
    return BurstCase(
        f"read {SECONDS} s of 16-bit wav at 32 kHz",
        lambda: plain.read_audio(str(path))[0],
        lambda: read_audio(path)[0],
    )


def loading(ending: str) -> Prepare:
    """Return the case of a data worker that makes a sample from a file."""

    def prepare(place: Place) -> Case:
        path, manifest = write_clip(place.folder, ending), place.folder / "train.tsv"
        write_manifest(manifest, place.folder, [(path.name, soundfile.info(path).frames)])
        reader = SpectrogramReader(read_manifest(manifest), FrontEnd(FRAMES, *AUDIOSET))
        spec = MaskSpec(GRID)
        dataset = ClipDataset(reader, masks=spec, num_masks=MASKS)

        def load_plainly() -> Tensor:
            spectrogram = plain.load(str(path), FRAMES, *AUDIOSET)
            draw_plainly(spec)
            return spectrogram

        return BurstCase(
            f"load {SECONDS} s of {ending} at 32 kHz: read, resample, log-mel, {MASKS} masks",
            load_plainly,
            lambda: dataset[0]["source"],
        )

    return prepare


def write_clip(folder: Path, ending: str) -> Path:
    """Write a clip at 32 kHz; return the file."""
    path = folder / f"clip.{ending}"
    samples = np.clip(make_noise(32_000).numpy(), -1, 1)
    soundfile.write(path, samples, 32_000, format=ending.upper())
    return path


CASES: dict[str, Prepare] = {
    "resample": resampling(32_000),
    "resample_44k": resampling(44_100),
    "log_mel": log_mel_energies,
    "decibels": decibels,
    "masks": masks,
    "read_wav": read_wav,
    "load_wav": loading("wav"),
    "load_flac": loading("flac"),
    "load_mp3": loading("mp3"),
}
