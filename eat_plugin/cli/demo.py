"""Write a small labelled set of synthetic sounds.

Writes eight kinds of sound to DIR/audio/KIND/KIND_NNN.EXT:
bell, birds, clapping, clock, engine, organ, rain, siren.
wav and flac, 16 to 44.1 kHz, mono and stereo, 1 to 10 s.

example: eat demo --out data/demo --clips-per-class 30
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eat_plugin.cli import at_least, progress, say
from eat_plugin.cli.outputs import check_folder
from eat_plugin.prepare.demo_set import write_demo_set
from eat_plugin.prepare.demo_sounds import KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--clips-per-class",
        type=at_least(1),
        default=30,
        metavar="N",
        help="clips per kind (default: 30)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        help="the same seed gives the same sounds (default: 0)",
    )


def run(args: argparse.Namespace) -> int:
    check_folder(args.out)
    audio = write_demo_set(args.out, args.clips_per_class, args.seed, progress)
    total = len(KINDS) * args.clips_per_class
    say(f"{audio}: {total} clips of {len(KINDS)} kinds")
    return 0
