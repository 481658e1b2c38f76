"""A small labelled set of synthetic sounds, one folder per class."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from ..data.files import replacing
from .demo_sounds import KINDS, synthesise_clip
from .processes import Progress

RECORD = "demo.json"
"""Settings of the set; written last, so it marks a complete set."""


def write_demo_set(out: Path, clips_per_class: int, seed: int, progress: Progress) -> Path:
    """Write the set to ``out/audio/KIND`` unless it is complete.

    Args:
        out: folder of the set.
        clips_per_class: number of clips of each kind, 1 or more.
        seed: of all randomness, 0 or more.
        progress: shows progress.

    Returns:
        The folder of the clips.

    Raises:
        ValueError: a number is out of range, or ``out`` holds a set with other settings.
    """
    if clips_per_class < 1:
        raise ValueError(f"--clips-per-class is {clips_per_class}; it must be 1 or more")
    if seed < 0:
        raise ValueError(f"--seed is {seed}; it must be 0 or more")
    audio, record = out / "audio", out / RECORD
    settings = {"clips_per_class": clips_per_class, "seed": seed, "kinds": list(KINDS)}
    if record.is_file():
        if json.loads(record.read_text(encoding="utf-8")) == settings:
            return audio
        raise ValueError(f"{out} holds a set with other settings; remove it or choose another")

    jobs = [(kind, number) for kind in KINDS for number in range(clips_per_class)]
    for kind in KINDS:
        (audio / kind).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        written = pool.map(lambda job: _write_clip(audio, job[0], job[1], seed), jobs)
        for _ in progress(written, "writing sounds", "clip", len(jobs)):
            pass
    with replacing(record) as file:
        file.write((json.dumps(settings, indent=2) + "\n").encode())
    return audio


def _write_clip(audio: Path, kind: str, number: int, seed: int) -> None:
    sound = synthesise_clip(kind, number, seed)
    encoding = sound.encoding
    with replacing(audio / kind / f"{kind}_{number:03d}.{encoding.extension}") as file:
        soundfile.write(
            file, sound.samples, encoding.sample_rate, encoding.subtype, format=encoding.extension
        )
