"""A small labelled set of synthetic sounds, one folder per class."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import soundfile

from ..data.files import replacing
from .demo_sounds import KINDS, synthesise_clip
from .processes import Progress

RECORD = "demo.json"
"""Settings of the set; written last, so it marks a complete set."""


def write_demo_set(out: Path, clips_per_class: int, seed: int, progress: Progress) -> Path:
    """Write the set to ``out/audio/KIND`` unless it is complete; return ``out/audio``.

    Raises:
        ValueError: ``out`` holds other files, or a set with other settings.
    """
    audio, record = out / "audio", out / RECORD
    settings = {"clips_per_class": clips_per_class, "seed": seed, "kinds": list(KINDS)}
    if record.is_file():
        with suppress(ValueError):  # damaged
            if json.loads(record.read_text(encoding="utf-8")) == settings:
                return audio
        raise ValueError(f"{out} holds a set with other settings; remove it or choose another")
    if out.is_dir() and {path.name for path in out.iterdir()} - {audio.name}:
        raise ValueError(f"{out} holds other files; choose a new folder")

    def write_clip(job: tuple[str, int]) -> None:
        kind, number = job
        sound = synthesise_clip(kind, number, seed)
        encoding = sound.encoding
        with replacing(audio / kind / f"{kind}_{number:03d}.{encoding.extension}") as file:
            soundfile.write(
                file, sound.samples, encoding.sample_rate, encoding.subtype,
                format=encoding.extension,
            )  # fmt: skip

    for kind in KINDS:
        (audio / kind).mkdir(parents=True, exist_ok=True)
    jobs = [(kind, number) for kind in KINDS for number in range(clips_per_class)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for _ in progress(pool.map(write_clip, jobs), "writing sounds", "clip", len(jobs)):
            pass
    with replacing(record) as file:
        file.write((json.dumps(settings, indent=2) + "\n").encode())
    return audio
