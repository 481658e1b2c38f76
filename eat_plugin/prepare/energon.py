"""The layout of Megatron Energon: WebDataset shards, described in the folder ``.nv-meta``.

``split.yaml`` (or ``.json``) has the shards of each split and what is excluded, ``.info.json`` (or
``.yaml``) the number of samples of each shard. Offsets are those of the shards themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..data.clip import ClipError
from ..data.files import open_whole
from ..data.json_text import parse_json
from ..data.urls import Root
from .arrangement import Arrangement, Item, sort_classes
from .shard_index import key_of
from .webdataset import read_labels

FOLDER = ".nv-meta"
INFO = (".info.json", ".info.yaml")
SPLITS = ("split.yaml", "split.json")
CLASS = "cls"  # as the field of labels: a text member
MOST_SHARDS = 1 << 20  # of one name with braces
_RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")


def arrange_energon(
    root: Root,
    names: list[str],
    texts: Mapping[str, bytes],
    samples: Mapping[str, int],
    key: str | None,
) -> Arrangement:
    """Arrange the clips ``shard.tar/KEY.wav`` in the splits of a prepared data set.

    Args:
        root: folder or address that has ``.nv-meta``.
        names: of the clips, sorted.
        texts: of the members with labels.
        samples: number of samples in each shard.
        key: field of ``KEY.json`` with the label, or ``cls`` for ``KEY.cls``; None for no labels.

    Raises:
        ValueError: the folder cannot be read, or does not fit the shards.
    """
    path, splits, excluded = _read_splits(root)
    _check_counts(root, splits, excluded, samples, path)
    items, rejected, unlisted = [], [], 0
    combinations: dict[tuple[str, ...], tuple[str, ...]] = {}  # one tuple per set saves memory
    for name in names:
        shard, _, member = name.partition(".tar/")
        sample = key_of(member) or ""
        split = splits.get(f"{shard}.tar")
        if split is None or excluded & {f"{shard}.tar", f"{shard}.tar/{sample}"}:
            unlisted += 1
            continue
        try:
            labels = _find_labels(key_of(name) or "", texts, key)
        except ValueError as error:
            rejected.append((name, str(error)))
        else:
            items.append(Item(name, split, combinations.setdefault(labels, labels), sample))
    if not items and not rejected:
        raise ValueError(f"{path}: no clip is in one of its splits")
    label_set = None if key is None else sort_classes(items)
    return Arrangement(items, rejected, label_set, unlisted=unlisted)


def _find_labels(sample: str, texts: Mapping[str, bytes], key: str | None) -> tuple[str, ...]:
    if key is None:
        return ()
    return read_labels(sample, texts, None if key == CLASS else key)


def _read_splits(root: Root) -> tuple[str, dict[str, str], set[str]]:
    """Return the file read, the split of each shard, and the shards and samples excluded."""
    path, content = _read_first(root, SPLITS)
    parts, excluded = content.get("split_parts"), content.get("exclude") or []
    if not isinstance(parts, dict) or not all(
        isinstance(each, list) for each in (*parts.values(), excluded)
    ):
        raise ValueError(f"{path}: expected 'split_parts', lists of shards, and a list 'exclude'")
    splits: dict[str, str] = {}
    for split, shards in parts.items():
        for shard in _expand(shards, path):
            if splits.setdefault(shard, str(split)) != str(split):
                raise ValueError(f"{path}: {shard} is in the splits {splits[shard]} and {split}")
    return path, splits, set(_expand(excluded, path))


def _expand(names: list[Any], path: str) -> Iterator[str]:
    """Yield names, with ``{000..003}`` replaced by each number."""
    for name in names:
        match = _RANGE.search(str(name))
        if match is None:
            yield str(name)
            continue
        first, last = int(match[1]), int(match[2])
        if not 0 <= last - first < MOST_SHARDS:
            raise ValueError(f"{path}: {name!r} is no range of shards")
        digits = len(match[1])
        numbers = (f"{number:0{digits}d}" for number in range(first, last + 1))
        yield from _expand(
            [name[: match.start()] + each + name[match.end() :] for each in numbers], path
        )


def _check_counts(
    root: Root, splits: Mapping[str, str], excluded: set[str], samples: Mapping[str, int], path: str
) -> None:
    """Compare the numbers of samples with those of the shards."""
    info, content = _read_first(root, INFO)
    counts = content.get("shard_counts")
    if not isinstance(counts, dict):
        raise ValueError(f"{info}: expected 'shard_counts', the number of samples of each shard")
    for shard in sorted(splits.keys() - excluded):
        if shard not in samples:
            raise ValueError(
                f"{path}: there is no shard {root}/{shard}; prepare the data set again"
            )
        if counts.get(shard) != samples[shard]:
            raise ValueError(
                f"{root}/{shard} does not fit {info}: it has {samples[shard]} samples, listed are "
                f"{counts.get(shard)}; the shard has changed: run energon prepare again"
            )


def _read_first(root: Root, names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Return the path and the content of the first file that exists."""
    for name in names:
        path = str(root / f"{FOLDER}/{name}")
        try:
            with open_whole(path) as file:
                text = file.read()
        except (FileNotFoundError, ClipError):
            continue
        try:
            content = parse_json(text) if name.endswith(".json") else _parse_yaml(text)
        except ValueError as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected a mapping")
        return path, content
    raise ValueError(f"there is neither {' nor '.join(names)} in {root}/{FOLDER}")


def _parse_yaml(text: bytes) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ValueError(
            "needs PyYAML, which is not installed (pip install 'eat-plugin[energon]')"
        ) from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"is no YAML: {error}") from error
