"""Compute the log-mel energies of a data folder once, for training and evaluation.

Examples:
  eat cache data --out cache
  fairseq-hydra-train ... --config-name pretrain task.data=/abs/path/cache
  fairseq-hydra-train ... --config-name finetune task.data=/abs/path/cache
  eat evaluate --checkpoint checkpoint_best.pt --data cache
  eat cache data --out cache --part 3/8   # a task of an array job; then eat cache data --out cache
  eat cache --verify cache

CACHE becomes a data folder: SPLIT.tsv for each split of DATA, with labels, weights, classes and
stats.json. It holds the energies of whole clips before they are cropped, padded and normalised, so
it serves every target_length, length, crop, norm, norm_mean, norm_std, pad_value, and one value of
task.channels and task.frontend, those of --channels and --frontend. task.roll_gain needs waveforms,
and is refused with a cache: set it to false with a published benchmark. task.roll rotates cached
frames. A second of audio takes 25.6 kB.

Energies are rounded to float16: by at most 0.004, or 0.0004 after normalisation by AudioSet's
values.

To resume an interrupted run, repeat the command: finished shards are kept, unfinished ones are
never used. Clips that cannot be used are listed in CACHE/rejected.tsv and excluded, with their
labels and weights; the next run tries them again. A cache of another manifest, of archives or files
in a store that have changed, or of another front end is refused. Changed audio files of a folder
under the same manifest are not detected: remove the cache.

--part I/N makes a part of the shards, on any number of machines with one file system. When all are
made, the command without --part writes the manifests; the files are those of one process.

--verify compares all shards with their SHA-256; damaged ones are named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eat_plugin.cli import SOME_FAILED, add_channels, add_workers, part_of, progress, say
from eat_plugin.cli.outputs import check_folder
from eat_plugin.data.frames import FRONT_ENDS, KALDI
from eat_plugin.prepare.amounts import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", nargs="?", type=Path, help="folder that eat manifest wrote"
    )
    parser.add_argument("--out", metavar="CACHE", type=Path, help="folder for the cache")
    parser.add_argument(
        "--verify", metavar="CACHE", type=Path, help="verify the shards of an existing cache"
    )
    parser.add_argument(
        "--part", metavar="I/N", type=part_of, help="make part I of N alone, for array jobs"
    )
    add_channels(parser)
    parser.add_argument(
        "--frontend",
        choices=FRONT_ENDS,
        default=KALDI,
        help="spectrograms: as task.frontend in training (default: %(default)s)",
    )
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    from eat_plugin.prepare.cache_folder import make_cache

    if args.verify is not None:
        if args.data is not None or args.out is not None:
            raise ValueError("--verify takes neither DATA nor --out: eat cache --verify CACHE")
        return _verify(args.verify, args.workers)
    if args.data is None or args.out is None:
        raise ValueError("DATA and --out CACHE are needed: eat cache DATA --out CACHE")
    check_folder(args.out)
    options = {"channels": args.channels, "kind": args.frontend, "part": args.part}
    for line in make_cache(args.data, args.out, args.workers, progress, **options):
        say(line)
    return 0


def _verify(folder: Path, workers: int) -> int:
    from eat_plugin.prepare.cache_folder import verify_cache

    shards, problems = verify_cache(folder, workers, progress)
    if not problems:
        say(f"{folder}: {count(shards, 'shard')}, {'' if shards == 1 else 'all '}intact")
        return 0
    sys.stderr.write(f"eat cache: {count(len(problems), 'file')} of {folder} cannot be used:\n")
    sys.stderr.writelines(f"  {path}: {problem}\n" for path, problem in problems)
    return SOME_FAILED
