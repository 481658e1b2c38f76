"""``eat demo``: writes a small labelled set of synthetic sounds, one folder a class.

Contents: the four names that every subcommand has (``NAME``, ``HELP``, ``add_arguments``, ``run``)
and ``write_demo_set``, which does the work.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from eat_plugin.cli import progress, say
from eat_plugin.data.files import replacing
from eat_plugin.prepare.demo_sounds import KINDS, synthesise_clip

NAME = "demo"
HELP = "write a small labelled set of synthetic sounds"
EXAMPLE = "example: eat demo --out data/demo --clips-per-class 30"
RECORD = "demo.json"
"""File that is written last: what the set was made from, and the sign that it is whole."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        f"Writes {len(KINDS)} kinds of sound to DIR/audio/KIND/KIND_NNN.EXT:\n"
        f"{', '.join(KINDS)}.\n"
        "wav and flac, 16 to 44.1 kHz, mono and stereo, 1 to 10 s."
    )
    parser.epilog = EXAMPLE
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--clips-per-class", type=int, default=30, metavar="N", help="clips a kind (default: 30)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same sounds (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the set and name its folder."""
    audio = write_demo_set(args.out, args.clips_per_class, args.seed)
    total = len(KINDS) * args.clips_per_class
    say(f"{total} clips of {len(KINDS)} kinds in {audio}")
    return 0


def write_demo_set(out: Path, clips_per_class: int, seed: int) -> Path:
    """Write the set unless it is already there, whole.

    An interrupted run may be repeated: every file appears under its name only when complete.

    Args:
        out: folder of the set; the clips go to ``out/audio/KIND``.
        clips_per_class: number of clips of each kind, 1 or more.
        seed: of all randomness, 0 or more.

    Returns:
        The folder of the clips.

    Raises:
        ValueError: if a number is out of range, or ``out`` already holds another set.
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
        raise ValueError(f"{out} holds a sound set of other settings; remove it or choose another")

    jobs = [(kind, number) for kind in KINDS for number in range(clips_per_class)]
    for kind in KINDS:
        (audio / kind).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        written = pool.map(lambda job: _write_clip(audio, job[0], job[1], seed), jobs)
        for _ in progress(written, "writing sounds", "clip", total=len(jobs)):
            pass
    with replacing(record) as file:
        file.write((json.dumps(settings, indent=2) + "\n").encode())
    return audio


def _write_clip(audio: Path, kind: str, number: int, seed: int) -> None:
    """Make one clip and write its file, whole or not at all."""
    clip = synthesise_clip(kind, number, seed)
    encoding = clip.encoding
    path = audio / kind / f"{kind}_{number:03d}.{encoding.extension}"
    with replacing(path) as file:
        soundfile.write(
            file, clip.samples, encoding.sample_rate, encoding.subtype, format=encoding.extension
        )
