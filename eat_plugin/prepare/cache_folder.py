"""What a feature cache has beside its shards: ``cache.json``, and all that a data folder has.

In this file:
    find_splits     the splits of a data folder
    begin           plans the shards; refuses a cache of other data or settings
    read_head       what cache.json says
    write_split     the manifest of a split, with labels and weights
    write_rest      classes, their counts, statistics
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.containers import check_archives
from ..data.entries import Storage
from ..data.feature_cache import check_settings, front_end_settings
from ..data.files import replacing
from ..data.frontend import count_frames
from ..data.label_set import read_label_set
from ..data.labels import count_labels, split_line
from ..data.manifest import encode_name, read_manifest, write_manifest
from ..data.tables import read_lines, write_csv
from .cache_shards import Outcome, SplitShards

HEAD = "cache.json"
TRAIN = "train"  # comes first among splits
LABELS, WEIGHTS = ".lbl", ".weights.csv"  # endings of files with a line a clip
DESCRIPTORS, COUNTS = "label_descriptors.csv", "class_counts.csv"
COPIED = (DESCRIPTORS, "stats.json")  # as they are


class Written(NamedTuple):
    """What was written of a split.

    Attributes:
        clips: in the cache.
        frames: of them all.
        rejected: names of the clips that cannot be used, and why.
    """

    clips: int
    frames: int
    rejected: list[tuple[str, str]]


def find_splits(data: Path, others: Collection[str]) -> list[str]:
    """Return the splits of a data folder, ``train`` first.

    Args:
        data: The folder.
        others: What is called ``NAME.tsv`` and is no manifest.

    Raises:
        ValueError: It is no folder, or has no manifests.
    """
    if not data.is_dir():
        raise ValueError(f"{data} is {'not a folder' if data.exists() else 'not there'}")
    stems = {path.stem for path in data.glob("*.tsv")}
    found = {stem for stem in stems if stem.partition(".")[0] not in others}
    if not found:
        raise ValueError(
            f"{data} is no data folder: it has no manifest, SPLIT.tsv; make them with eat manifest"
        )
    return sorted(found, key=lambda split: (split != TRAIN, split))


def begin(out: Path, data: Path, splits: list[str]) -> list[SplitShards]:
    """Plan the shards of a cache, a new one or one to go on with.

    Args:
        out: The cache.
        data: The data folder.
        splits: Of the data folder.

    Returns:
        The shards of each split.

    Raises:
        ValueError: The folders are the same; ``out`` is another data folder, or a cache of other
            data or settings; the data are a cache; a manifest or a file beside it is wrong.
        OSError: A file cannot be read or written.
    """
    if out.exists() and os.path.samefile(out, data):
        raise ValueError(f"the cache would be written into its own data folder, {data}")
    shards = [_plan(out, data, split) for split in splits]
    head: dict[str, Any] = {"splits": {}}
    if (out / HEAD).exists():
        head = read_head(out)
    elif out.is_dir() and (others := sorted(out.glob("*.tsv"))):
        raise ValueError(f"{others[0]} is there, and of no cache; choose another --out")
    for split in head["splits"]:
        if split not in splits:
            raise ValueError(
                f"{out / HEAD}: the cache was made of other data, with a manifest {split}.tsv that "
                f"{data} does not have; choose another --out"
            )
    for each in shards:
        known = head["splits"].get(each.split)
        if known is not None and known["sha256"] != each.sha256:
            raise ValueError(
                f"{out / HEAD}: the cache was made of another manifest {each.split}.tsv "
                f"(SHA-256 {known['sha256'][:12]}..., that of {data / each.split}.tsv is "
                f"{each.sha256[:12]}...); choose another --out"
            )
        head["splits"][each.split] = {"sha256": each.sha256, "shards": len(each)}
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / HEAD) as file:
        head = {"settings": front_end_settings(), "data": os.path.abspath(data), **head}
        file.write(f"{json.dumps(head, indent=2)}\n".encode())
    return shards


def _plan(out: Path, data: Path, split: str) -> SplitShards:
    path = data / f"{split}.tsv"
    manifest = read_manifest(path)
    check_archives(path.with_suffix(".archives"), manifest.root)
    name, storage = manifest.name(0), manifest.entry(0).storage
    if storage is Storage.CACHE:
        raise ValueError(f"{path}:2: {name!r} is in a cache already")
    if storage is Storage.IMAGE:
        raise ValueError(f"{path}:2: {name!r} is an image; eat cache is for sound")
    for ending in (LABELS, WEIGHTS):
        beside = data / f"{split}{ending}"
        lines = sum(1 for _ in read_lines(beside)) if beside.exists() else len(manifest)
        if lines != len(manifest):
            raise ValueError(f"{beside} has {lines} lines, but {path} has {len(manifest)} clips")
    if (data / COUNTS).exists() and (data / f"{split}{LABELS}").exists():
        _count(data, split)  # now, not after hours
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return SplitShards.plan(out, split, manifest, digest)


def read_head(folder: Path) -> dict[str, Any]:
    """Read ``cache.json``.

    Args:
        folder: The cache.

    Returns:
        ``splits``: of each its number of ``shards``, and the ``sha256`` of its manifest.

    Raises:
        ValueError: The folder is no cache, or one of other settings.
        OSError: The file cannot be read.
    """
    path = folder / HEAD
    if not path.exists():
        raise ValueError(f"{folder} is no cache: it has no {HEAD}")
    try:
        head = json.loads(path.read_bytes())
        check_settings(head["settings"], path)
        splits = {
            split: {"sha256": str(values["sha256"]), "shards": int(values["shards"])}
            for split, values in head["splits"].items()
        }
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not what eat cache writes: {error}") from error
    return {"splits": splits}


def write_split(data: Path, shards: SplitShards) -> Written:
    """Write the manifest of a split whose shards are finished, with labels and weights.

    Args:
        data: The data folder.
        shards: The shards.

    Raises:
        ClipError: A record of a shard cannot be read.
        ValueError: No clip can be used, or a file of the data has changed.
        OSError: A file cannot be read or written.
    """
    rejected = [(each.name, each.problem) for each in shards.outcomes() if each.entry is None]
    kept = len(shards.manifest) - len(rejected)
    if not kept:
        return Written(0, 0, rejected)
    for ending, convert in ((LABELS, _rename), (WEIGHTS, _keep)):
        source = data / f"{shards.split}{ending}"
        if source.exists():
            _copy_lines(source, shards, convert)
    frames = 0

    def entries() -> Iterator[tuple[str, int]]:
        nonlocal frames
        for each in shards.outcomes():
            if each.entry is not None:
                frames += count_frames(each.samples)
                yield each.entry, each.samples

    write_manifest(shards.folder / f"{shards.split}.tsv", os.path.abspath(shards.folder), entries())
    return Written(kept, frames, rejected)


def _copy_lines(
    source: Path, shards: SplitShards, convert: Callable[[str, Outcome], bytes]
) -> None:
    """Copy a file with a line a clip, but for the lines of clips that cannot be used."""
    lines = (line for _, line in read_lines(source))
    with replacing(shards.folder / source.name) as file:
        for line, outcome in zip(lines, shards.outcomes()):
            if outcome.entry is not None:
                file.write(convert(line, outcome) + b"\n")


def _rename(line: str, outcome: Outcome) -> bytes:
    """Give a line of labels the cache's entry where it has the clip's; other names stay."""
    name, _ = split_line(line)
    if name != outcome.name or outcome.entry is None:
        return line.encode()
    return encode_name(outcome.entry) + line[len(name) :].encode()


def _keep(line: str, _: Outcome) -> bytes:
    return line.encode()


def write_rest(data: Path, out: Path) -> None:
    """Copy what concerns no single clip; count the clips of each class anew.

    Args:
        data: The data folder.
        out: The cache, with the labels of all splits.

    Raises:
        ValueError: Labels and classes do not agree.
        OSError: A file cannot be read or written.
    """
    for name in COPIED:
        if (data / name).exists():
            with open(data / name, "rb") as source, replacing(out / name) as file:
                shutil.copyfileobj(source, file)
    if not (data / COUNTS).exists():
        return
    label_set = read_label_set(out / DESCRIPTORS)
    splits = sorted((path.stem for path in out.glob(f"*{LABELS}")), key=lambda s: (s != TRAIN, s))
    columns = [_count(out, split).tolist() for split in splits]
    rows = zip(label_set.ids, label_set.names, *columns)
    write_csv(out / COUNTS, [("label", "name", *splits), *rows])


def _count(folder: Path, split: str) -> np.ndarray:
    return count_labels(folder / f"{split}{LABELS}", read_label_set(folder / DESCRIPTORS))
