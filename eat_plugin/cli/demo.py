"""Write a small labelled set of synthetic sounds.

Each clip has a bell, a chirp and a clap; its class is their order. So statistics over a clip cannot
tell the six classes apart. Written to DIR/audio/KIND/KIND_NNN.EXT, KIND as bell-chirp-clap:
wav and flac, 16 to 44.1 kHz, mono and stereo, 1.2 to 2 s.

example: eat demo --out data/demo --clips-per-class 80
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
        default=80,
        metavar="N",
        help="clips per kind (default: %(default)s)",
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
