"""`eat stats`: mean and standard deviation of a data set's log-mel energies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eat_plugin.cli import SOME_FAILED, progress, say
from eat_plugin.data.statistics import FILE, Statistics, write_statistics
from eat_plugin.prepare.measure import measure_split
from eat_plugin.prepare.processes import available_cores

NAME = "stats"
HELP = "measure the mean and standard deviation of a data set's log-mel values"
EPILOG = f"""
Decodes every clip of DATA/SPLIT.tsv; padding is excluded. Writes the result to DATA/{FILE}.
Training on DATA uses it if task.norm_mean and task.norm_std are null, as in the configurations for
your own data. Clips that cannot be used are named, and the exit code is 1.

  eat manifest /my/audio --out /my/data
  eat stats /my/data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EPILOG
    parser.add_argument(
        "data", metavar="DATA", type=Path, help="folder with the manifests that eat manifest wrote"
    )
    parser.add_argument(
        "--split", metavar="NAME", default="train", help="split to measure (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=available_cores(),
        help="number of processes; does not change the result (default: one per core, here "
        "%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure the clips, write and print the statistics, and return the exit code."""
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    path = args.data / f"{args.split}.tsv"
    moments, clips, failures = measure_split(path, args.workers, progress)
    if failures:
        total = clips + len(failures)
        sys.stderr.write(f"eat stats: {len(failures)} of {total} clips cannot be used:\n")
        sys.stderr.writelines(f"  {path}: {' '.join(why.split())}\n" for path, why in failures)
    if not clips:
        raise ValueError(f"none of the {len(failures)} clips can be used")
    statistics = Statistics.from_moments(moments, clips, args.split, len(failures))
    write_statistics(args.data, statistics)
    say(
        f"{args.data / FILE}: mean {statistics.mean:.4f}, standard deviation "
        f"{statistics.std:.4f}, of {statistics.frames} frames of {clips} clips"
    )
    say(
        f"training on {args.data} uses them if task.norm_mean and task.norm_std are null; "
        "for other data, set"
    )
    say(f"  task.norm_mean={statistics.mean:.4f} task.norm_std={statistics.std:.4f}")
    return SOME_FAILED if failures else 0
