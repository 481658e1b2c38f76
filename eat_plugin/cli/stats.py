"""Measure the mean and standard deviation of a data set's log-mel values, and of each mel bin.

Decodes every clip of DATA/SPLIT.tsv; padding is excluded. Writes the result to DATA/stats.json.
Training on DATA uses it if task.norm_mean and task.norm_std are null, as in the configurations for
your own data; without it a sample of the clips is measured at start. task.channels must be that of
--channels. Clips that cannot be used are named, and the exit code is 1. They are not for
task.frontend=db, which needs none, or measures a sample at start (task.norm=bins).

  eat manifest /my/audio --out /my/data
  eat stats /my/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eat_plugin.cli import add_channels, add_workers, conclude, progress, say
from eat_plugin.cli.outputs import check_writable
from eat_plugin.prepare.amounts import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", type=Path, help="folder with the manifests that eat manifest wrote"
    )
    parser.add_argument(
        "--split", metavar="NAME", default="train", help="split to measure (default: %(default)s)"
    )
    add_channels(parser)
    add_workers(parser)


def run(args: argparse.Namespace) -> int:
    from eat_plugin.data.statistics import FILE, Statistics, write_statistics
    from eat_plugin.prepare.measure import measure_split, needs_statistics

    path = args.data / f"{args.split}.tsv"
    if args.data.is_dir():
        check_writable(args.data)
    if not needs_statistics(path):
        say(
            f"{args.data} is a cache of task.frontend=db, which measures a sample at start if it "
            "needs statistics: none written"
        )
        return 0
    moments, clips, failures = measure_split(path, args.workers, progress, args.channels)
    skipped = len(failures)
    code = conclude("stats", failures, clips + skipped)
    statistics = Statistics.from_moments(moments, clips, args.split, skipped, args.channels)
    write_statistics(args.data, statistics)
    say(
        f"{args.data / FILE}: mean {statistics.mean:.4f}, standard deviation "
        f"{statistics.std:.4f}, of {count(statistics.frames, 'frame')} of {count(clips, 'clip')}"
    )
    bins = statistics.bin_means, statistics.bin_stds
    ranges = " and ".join(f"{min(values):.4f} to {max(values):.4f}" for values in bins)
    say(f"of each mel bin (task.norm=bins): {ranges}")
    say(
        f"training on {args.data} with task.frontend=kaldi uses them if task.norm_mean and "
        "task.norm_std are null; for other data, with task.norm=whole, set"
    )
    say(f"  task.norm_mean={statistics.mean:.4f} task.norm_std={statistics.std:.4f}")
    return code
