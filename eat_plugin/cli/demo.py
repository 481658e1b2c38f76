"""`eat demo`: write a small labelled set of synthetic sounds."""

from __future__ import annotations

import argparse
from pathlib import Path

from eat_plugin.cli import progress, say
from eat_plugin.prepare.demo_set import write_demo_set
from eat_plugin.prepare.demo_sounds import KINDS

NAME = "demo"
HELP = "write a small labelled set of synthetic sounds"
EXAMPLE = "example: eat demo --out data/demo --clips-per-class 30"


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
        "--clips-per-class", type=int, default=30, metavar="N", help="clips per kind (default: 30)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same sounds (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the set and print its folder."""
    audio = write_demo_set(args.out, args.clips_per_class, args.seed, progress)
    total = len(KINDS) * args.clips_per_class
    say(f"{total} clips of {len(KINDS)} kinds in {audio}")
    return 0
