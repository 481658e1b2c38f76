"""`eat stats`: mean and standard deviation of a data set's log-mel values, for training to use."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eat_plugin.cli import SOME_FAILED, progress, say
from eat_plugin.data.containers import check_archives
from eat_plugin.data.entries import Storage
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.statistics import FILE, Moments, Statistics, write_statistics
from eat_plugin.prepare.measure import measure_all
from eat_plugin.prepare.processes import available_cores

NAME = "stats"
HELP = "measure the mean and standard deviation of a data set's log-mel values"
EPILOG = f"""
Every clip of DATA/SPLIT.tsv is decoded from its start to its end; no padding is counted. The result
is written to DATA/{FILE}. Training on DATA takes it from there where task.norm_mean and
task.norm_std are null, as in the configurations for your own data. Clips that cannot be used are
named; the exit code is then 1.

  eat manifest /my/audio --out /my/data
  eat stats /my/data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EPILOG
    parser.add_argument(
        "data", metavar="DATA", type=Path, help="folder of the manifests, by eat manifest"
    )
    parser.add_argument(
        "--split", metavar="NAME", default="train", help="which of them (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=available_cores(),
        help="processes that measure clips; the result does not depend on them (default: one a "
        "core, here %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure the clips, write the statistics, print them.

    Args:
        args: What `add_arguments` declares.

    Returns:
        0, or 1 if some of the clips cannot be used.

    Raises:
        ValueError: An option or the manifest is wrong, or no clip can be used.
        OSError: A file cannot be read or written.
    """
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    path = args.data / f"{args.split}.tsv"
    manifest = read_manifest(path)
    check_archives(path.with_suffix(".archives"), manifest.root)
    name = manifest.name(0)
    if manifest.entry(0).storage is Storage.IMAGE:
        raise ValueError(f"{path}:2: {name!r} is an image; eat stats is for sound")
    total, failures = Moments(), []
    found = progress(measure_all(manifest, args.workers), "measuring", "clip", len(manifest))
    for index, one in enumerate(found):
        if isinstance(one, str):
            failures.append(f"  {manifest.path(index)}: {' '.join(one.split())}\n")
        else:
            total += one
    if failures:
        _name(failures, len(manifest))
    clips = len(manifest) - len(failures)
    statistics = Statistics.from_moments(total, clips, args.split, len(failures))
    write_statistics(args.data, statistics)
    say(
        f"{args.data / FILE}: mean {statistics.mean:.4f}, standard deviation "
        f"{statistics.std:.4f}, of {statistics.frames} frames of {clips} clips"
    )
    say(
        f"training on {args.data} uses them where task.norm_mean and task.norm_std are null; "
        "elsewhere set"
    )
    say(f"  task.norm_mean={statistics.mean:.4f} task.norm_std={statistics.std:.4f}")
    return SOME_FAILED if failures else 0


def _name(failures: list[str], clips: int) -> None:
    """Name the clips that cannot be used.

    Raises:
        ValueError: There are no others.
    """
    sys.stderr.write(f"eat stats: {len(failures)} of {clips} clips cannot be used:\n")
    sys.stderr.writelines(failures)
    if len(failures) == clips:
        raise ValueError(f"none of the {clips} clips can be used")
