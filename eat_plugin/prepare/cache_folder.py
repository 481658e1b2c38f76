"""The folder of a feature cache: ``cache.json``, shards, and the files of a data folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.cache_settings import SettingsError, cache_settings, check_settings
from ..data.channels import MEAN
from ..data.entries import Storage
from ..data.events import ENDING
from ..data.feature_cache import shard_path
from ..data.files import replacing
from ..data.fingerprints import check_archives, digest_archives
from ..data.frames import FRAMES_A_SECOND, KALDI
from ..data.frontend import find_spectra
from ..data.json_text import parse_json
from ..data.label_set import read_label_set
from ..data.labels import count_labels
from ..data.manifest import Manifest, read_manifest, write_manifest
from ..data.overlap import check_held_out
from ..data.statistics import check_statistics, read_statistics, write_statistics
from ..data.tables import read_lines
from .amounts import count, describe_bytes, describe_time
from .arrangement import TRAIN, sort_splits
from .cache_labels import LABELS, WEIGHTS, copy_events, copy_lines
from .cache_shards import SplitShards, find_damage, finish_all
from .data_folder import COUNTS, DESCRIPTORS, write_counts, write_rejected
from .layouts import RESERVED
from .processes import Progress, in_processes

HEAD = "cache.json"
EVENTS = f".{ENDING}"


def make_cache(
    data: Path,
    out: Path,
    workers: int,
    progress: Progress,
    channels: str = MEAN,
    kind: str = KALDI,
    part: tuple[int, int] | None = None,
) -> Iterator[str]:
    """Write or resume the cache ``out`` of a data folder, and yield lines that name its files.

    Args:
        data: the data folder.
        out: the cache.
        workers: number of processes.
        progress: shows progress.
        channels: how the channels of clips are mixed.
        kind: of the front end.
        part: of the shards, its number from 1 and the number of parts, and no manifests, labels or
            reports; None for all.
    """
    names = _find_splits(data)
    if TRAIN in names:
        check_held_out(data)
    statistics = None if find_spectra(kind).norm else read_statistics(data)
    if statistics is not None:
        check_statistics(data, statistics, channels)
    splits = plan_shards(out, data, names, channels, kind)
    counts = _finish(splits, workers, progress, part or (1, 1))
    if part is not None:
        shown = count(sum(counts.values()), "shard")
        yield f"part {part[0]} of {part[1]}: {shown}, {counts[False]} from earlier runs"
        return
    rejected: list[tuple[str, str]] = []
    empty: list[SplitShards] = []
    for shards in splits:
        clips, frames, unusable = write_split(data, shards)
        rejected += unusable
        if not clips:
            empty.append(shards)
            continue
        time = describe_time(frames / FRAMES_A_SECOND)
        yield f"{out / shards.split}.tsv: {count(clips, 'clip')}, {time}"
    report = write_rejected(out / "rejected.tsv", rejected)
    if empty:
        raise ValueError(f"no clip of {data / empty[0].split}.tsv can be used; {report}")
    _write_rest(data, out)
    if statistics is not None:
        write_statistics(out, replace(statistics, manifest=""))
    for draft in out.glob(".*.tmp"):  # left by killed runs
        draft.unlink(missing_ok=True)
    size = sum(shards.path(n).stat().st_size for shards in splits for n in range(len(shards)))
    number = sum(counts.values())
    total = f"{describe_bytes(size)} in {count(number, 'shard')}"
    yield f"total: {total}, {counts[False]} from earlier runs"
    yield report


def _finish(
    splits: list[SplitShards], workers: int, progress: Progress, part: tuple[int, int]
) -> Counter[bool]:
    """Finish the shards of a part; return how many are new, and how many are not."""
    counts: Counter[bool] = Counter()
    for shards in splits:
        numbers = range(part[0] - 1, len(shards), part[1])
        clips = sum(len(shards.clips(number)) for number in numbers)
        with closing(finish_all(shards, workers, numbers)) as finished:
            done = _count_shards(shards, finished, counts)
            for _ in progress(done, f"caching {shards.split}", "clip", clips):
                pass
    return counts


def _count_shards(
    shards: SplitShards, finished: Iterable[tuple[int, bool]], counts: Counter[bool]
) -> Iterator[int]:
    """Yield an item per clip, and count the shards, new and old."""
    for number, is_new in finished:
        counts[is_new] += 1
        yield from shards.clips(number)


def _find_splits(data: Path) -> list[str]:
    if not data.is_dir():
        raise ValueError(f"{data} {'is not a folder' if data.exists() else 'does not exist'}")
    stems = {path.stem for path in data.glob("*.tsv")}
    found = {stem for stem in stems if stem.partition(".")[0] not in RESERVED}
    if not found:
        raise ValueError(
            f"{data} is not a data folder: it has no manifest SPLIT.tsv; run eat manifest first"
        )
    return sort_splits(found)


def plan_shards(
    out: Path, data: Path, splits: list[str], channels: str = MEAN, kind: str = KALDI
) -> list[SplitShards]:
    """Plan the shards of each split of a new or unfinished cache, and write its head."""
    if out.exists() and os.path.samefile(out, data):
        raise ValueError(f"the cache cannot be in its own data folder, {data}")
    shards = [_plan(out, data, split, channels, kind) for split in splits]
    head: dict[str, Any] = {"splits": {}}
    if (out / HEAD).exists():
        head = _read_head(out, channels, kind)
    elif out.is_dir() and (others := sorted(out.glob("*.tsv"))):
        raise ValueError(f"{others[0]} exists, and is not part of a cache; choose another --out")
    for split in head["splits"]:
        if split not in splits:
            raise ValueError(
                f"{out / HEAD}: the cache was made from other data, with a manifest {split}.tsv "
                f"that {data} does not have; choose another --out"
            )
    for each in shards:
        known = head["splits"].get(each.split)
        if known is not None and known["sha256"] != each.sha256:
            raise ValueError(
                f"{out / HEAD}: the cache was made from another manifest {each.split}.tsv than "
                f"{data / each.split}.tsv, or from archives that have changed since; choose "
                "another --out"
            )
        head["splits"][each.split] = {
            "sha256": each.sha256, "shards": len(each), "clips": len(each.manifest),
            "root": str(each.manifest.root),
        }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / HEAD) as file:
        head = {"settings": cache_settings(channels, kind), "data": os.path.abspath(data), **head}
        file.write(f"{json.dumps(head, indent=2)}\n".encode())
    return shards


def _plan(out: Path, data: Path, split: str, channels: str, kind: str) -> SplitShards:
    path = data / f"{split}.tsv"
    manifest = read_manifest(path)
    check_archives(path.with_suffix(".archives"), manifest.root)
    name, storage = manifest.name(0), manifest.entry(0).storage
    if storage is Storage.CACHE:
        raise ValueError(f"{path}:2: {name!r} is already in a cache")
    if storage is Storage.IMAGE:
        raise ValueError(f"{path}:2: {name!r} is an image; eat cache is for sound")
    for ending in (LABELS, WEIGHTS):
        companion = data / f"{split}{ending}"
        lines = sum(1 for _ in read_lines(companion)) if companion.exists() else len(manifest)
        if lines != len(manifest):
            raise ValueError(
                f"{companion} has {count(lines, 'line')}, but {path} has "
                f"{count(len(manifest), 'clip')}"
            )
    if (data / COUNTS).exists() and (data / f"{split}{LABELS}").exists():
        _count(data, split)  # an invalid label is found now and not after hours
    sources = path.read_bytes() + digest_archives(path.with_suffix(".archives"))
    digest = hashlib.sha256(sources).hexdigest()
    return SplitShards.plan(out, split, manifest, digest, channels, kind)


def _read_head(
    folder: Path, channels: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    """Read ``cache.json``: ``splits`` with ``shards`` and the ``sha256`` of their sources."""
    path = folder / HEAD
    if not path.exists():
        raise ValueError(f"{folder} is not a cache: it has no {HEAD}")
    try:
        head = parse_json(path.read_bytes())
        check_settings(head["settings"], path, channels, kind)
        splits = {
            split: {"sha256": str(values["sha256"]), "shards": int(values["shards"])}
            for split, values in head["splits"].items()
        }
    except SettingsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} was not written by eat cache: {error}") from error
    return {"splits": splits}


def count_listed(folder: Path, split: str, manifest: Manifest) -> int:
    """Return the clips of a split, with those that its cache, if it is one, left out."""
    if manifest.entry(0).storage is Storage.CACHE:
        with suppress(OSError, ValueError, TypeError, LookupError):  # or of an earlier version
            head = parse_json((folder / HEAD).read_bytes())
            return max(len(manifest), int(head["splits"][split]["clips"]))
    return len(manifest)


def write_split(data: Path, shards: SplitShards) -> tuple[int, int, list[tuple[str, str]]]:
    """Write the manifest, labels and weights of a split whose shards are finished.

    Returns:
        The number of usable clips, the number of their frames, and the other clips, each with the
        reason. Without usable clips nothing is written.
    """
    rejected, kept, frames = [], 0, 0
    for outcome in shards.outcomes():
        if outcome.entry is None:
            rejected.append((outcome.name, outcome.problem))
        else:
            kept += 1
            frames += shards.count_frames(outcome.samples)
    if kept:
        out, split = shards.folder, shards.split
        for ending in (LABELS, WEIGHTS):
            if (data / f"{split}{ending}").exists():
                copy_lines(data / f"{split}{ending}", shards)
        if (data / f"{split}{EVENTS}").exists():
            copy_events(data / f"{split}{EVENTS}", shards)
        used = ((each.entry, each.samples) for each in shards.outcomes() if each.entry is not None)
        write_manifest(out / f"{split}.tsv", os.path.abspath(out), used)
    return kept, frames, rejected


def _write_rest(data: Path, out: Path) -> None:
    """Copy the classes, and count the clips of each class again."""
    if (data / DESCRIPTORS).exists():
        with open(data / DESCRIPTORS, "rb") as source, replacing(out / DESCRIPTORS) as file:
            shutil.copyfileobj(source, file)
    if (data / COUNTS).exists():
        splits = sort_splits(path.stem for path in out.glob(f"*{LABELS}"))
        columns = {split: _count(out, split) for split in splits}
        write_counts(out, read_label_set(out / DESCRIPTORS), columns)


def _count(folder: Path, split: str) -> np.ndarray:
    return count_labels(folder / f"{split}{LABELS}", read_label_set(folder / DESCRIPTORS))


def verify_cache(
    folder: Path, workers: int, progress: Progress
) -> tuple[int, list[tuple[str, str]]]:
    """Compare all shards with their SHA-256.

    Returns:
        The number of shards, and the paths of damaged or missing files, each with the reason.
    """
    splits = _read_head(folder)["splits"]
    shards = [
        str(shard_path(folder, split, number))
        for split, values in splits.items()
        for number in range(values["shards"])
    ]
    found = in_processes(find_damage, shards, workers, 1)
    damages = progress(found, "checking", "shard", len(shards))
    problems = [(path, damage) for damage, path in zip(damages, shards) if damage is not None]
    for split in splits:
        path = folder / f"{split}.tsv"
        if not path.exists():
            problems.append((str(path), "does not exist; run eat cache again"))
            continue
        with open(path, "rb") as file:
            root = os.fsdecode(file.readline().rstrip(b"\r\n"))
        if os.path.realpath(root) != os.path.realpath(folder):
            reason = f"names the shards of {root}, not those here; run eat cache again"
            problems.append((str(path), reason))
    return len(shards), problems
