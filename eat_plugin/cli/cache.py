"""`eat cache`: the log-mel energies of a data folder, computed once."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from eat_plugin.cli import SOME_FAILED, progress, say
from eat_plugin.data.feature_cache import shard_path
from eat_plugin.prepare import cache_folder, listing
from eat_plugin.prepare.cache_shards import Finished, SplitShards, find_damage, finish_all
from eat_plugin.prepare.processes import available_cores, in_processes

NAME = "cache"
HELP = "compute the log-mel energies of a data folder once, for training and evaluation"
EXAMPLE = """
examples:
  eat cache data --out cache
  fairseq-hydra-train ... --config-name pretrain task.data=/abs/path/cache
  fairseq-hydra-train ... --config-name finetune task.data=/abs/path/cache task.roll_gain=false
  eat evaluate --checkpoint checkpoint_best.pt --data cache
  eat cache --verify cache

CACHE becomes a data folder: SPLIT.tsv for each split of DATA, with labels, weights, classes and
stats.json. It holds the energies of whole clips, before windows are cut, padded and normalised: it
serves every target_length, length, crop, norm_mean, norm_std and pad_value. task.roll_gain needs
waveforms, and is refused with a cache. A second of audio takes 25.6 kB.

Energies are rounded to float16, by at most 0.004; of what a model sees, normalised by AudioSet's
values, that is 0.0004.

Interrupted in whatever way, the same command goes on: shards that are finished are kept, and what
is not finished is never used. Clips that cannot be used are named in CACHE/rejected.tsv and left
out, with their labels and weights; the next run tries them again. A cache of another manifest, or
of another front end, is refused. That an audio file has changed under the same manifest is not
seen: remove the cache.

--verify reads all shards and compares their SHA-256; damaged ones are named, and the exit code is
then 1.
"""
GIGABYTE = 1e9
FRAMES_AN_HOUR = 360_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "data", metavar="DATA", nargs="?", type=Path, help="folder that eat manifest wrote"
    )
    parser.add_argument("--out", metavar="CACHE", type=Path, help="folder for the cache")
    parser.add_argument(
        "--verify", metavar="CACHE", type=Path, help="check an existing cache, shard by shard"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=available_cores(),
        help="processes that compute (default: one a core, here %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Make a cache, or check one.

    Args:
        args: What `add_arguments` declares.

    Returns:
        0, or 1 if a shard is damaged.

    Raises:
        ValueError: An option makes no sense, the data are none, or the cache is another one.
        OSError: A file cannot be read or written.
    """
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    if args.verify is not None:
        if args.data is not None or args.out is not None:
            raise ValueError("--verify stands alone: eat cache --verify CACHE")
        return _verify(args.verify, args.workers)
    if args.data is None or args.out is None:
        raise ValueError("DATA and --out CACHE are needed: eat cache DATA --out CACHE")
    _make(args.data, args.out, args.workers)
    return 0


def _make(data: Path, out: Path, workers: int) -> None:
    splits = cache_folder.begin(out, data, cache_folder.find_splits(data, listing.RESERVED))
    counts: Counter[bool] = Counter()
    for shards in splits:
        with closing(finish_all(shards, workers)) as finished:
            clips = _clips_of(finished, counts)
            for _ in progress(clips, f"caching {shards.split}", "clip", len(shards.manifest)):
                pass
    rejected: list[tuple[str, str]] = []
    empty: SplitShards | None = None
    for shards in splits:
        written = cache_folder.write_split(data, shards)
        rejected += written.rejected
        if not written.clips:
            empty = empty or shards
            continue
        hours = written.frames / FRAMES_AN_HOUR
        say(f"{out / shards.split}.tsv: {written.clips} clips, {hours:.2f} hours")
    listing.write_rejected(out / "rejected.tsv", rejected)
    if empty is not None:
        raise ValueError(
            f"none of the {len(empty.manifest)} clips of {data / empty.split}.tsv can be used; "
            f"{out / 'rejected.tsv'} tells why"
        )
    cache_folder.write_rest(data, out)
    _remove_drafts(out)
    say(f"{out / 'rejected.tsv'}: {len(rejected)} left out")
    size = sum(shards.path(n).stat().st_size for shards in splits for n in range(len(shards)))
    number = sum(counts.values())
    say(f"total: {size / GIGABYTE:.2f} GB in {number} shards, {counts[False]} of them from before")


def _clips_of(finished: Iterable[Finished], counts: Counter[bool]) -> Iterator[int]:
    """Yield something for each clip of each shard, and count the shards, new and old."""
    for shard in finished:
        counts[shard.is_new] += 1
        yield from range(shard.clips)


def _remove_drafts(out: Path) -> None:
    """Remove what runs that were killed have left; now all is there."""
    for draft in out.glob(".*.tmp"):
        draft.unlink(missing_ok=True)


def _verify(folder: Path, workers: int) -> int:
    splits = cache_folder.read_head(folder)["splits"]
    shards = [
        str(shard_path(folder, split, number))
        for split, values in splits.items()
        for number in range(values["shards"])
    ]
    damages = in_processes(find_damage, shards, workers, 1)
    found = progress(damages, "checking", "shard", len(shards))
    problems = [(path, problem) for problem, path in zip(found, shards) if problem is not None]
    for split in splits:
        if not (folder / f"{split}.tsv").exists():
            problems.append((f"{folder / split}.tsv", "is not there; run eat cache again"))
    if not problems:
        say(f"{folder}: {len(shards)} shards, all as they were written")
        return 0
    sys.stderr.write(f"eat cache: {len(problems)} files of {folder} cannot be used:\n")
    sys.stderr.writelines(f"  {path}: {problem}\n" for path, problem in problems)
    return SOME_FAILED
