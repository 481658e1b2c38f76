"""The layout of Lhotse Shar: ``recording.000000.tar`` with sounds, ``cuts.000000.jsonl.gz``.

A line of the second file is a cut: its id, which is the name of a member without its ending, and
supervisions, with a text and other fields. Sounds are whole members.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from ..data.files import open_whole
from ..data.json_text import parse_json
from ..data.urls import Root, Url
from .arrangement import Arrangement, Item, sort_classes
from .webdataset import check_values

SHARDS = r"^recording(?:\..*)?\.tar$"
ENDINGS = ("opus", "original")  # of members, besides those of sounds
EMPTY = "nodata"  # ending of the member of a cut without a sound
_MEMBER = re.compile(r"((?:.*/)?recording((?:\.[^/]*)?)\.tar)/(.+)", re.S)
_TOLERANCE = 0.01  # seconds, of durations that were rounded


def arrange_shar(
    root: Root,
    names: list[str],
    texts: Iterable[str],
    damaged: set[str],
    key: str | None,
    split: str,
) -> Arrangement:
    """Read the cuts of the members of ``recording*.tar``.

    Args:
        root: of the names.
        names: of the members that are sounds, sorted.
        texts: names of the members that stand for no sound.
        damaged: shards that could not be listed to their end.
        key: field of supervisions, or of cuts, with the label; None for no labels.
        split: name of the split.

    Raises:
        ValueError: a shard does not fit its cuts, or these cannot be read.
    """
    shards: dict[str, dict[str, str]] = {}
    for name in names:
        shard, cut = _split(name)
        shards.setdefault(shard, {})[cut] = name
    empty = {_split(name) for name in texts}
    for shard in _list_shards(root, {shard.rpartition("/")[0] for shard in shards} | {""}):
        if shard not in damaged:
            shards.setdefault(shard, {})
    items, rejected = [], []
    for shard, members in shards.items():
        cuts = _read_cuts(root, shard)
        missing = [cut for cut in cuts if cut not in members and (shard, cut) not in empty]
        unknown = [cut for cut in members if cut not in cuts]
        if unknown or (missing and shard not in damaged):
            which = "has no cut in" if unknown else "is not in the shard, but in"
            raise ValueError(
                f"{root}/{shard} does not fit its cuts: {(unknown or missing)[0]!r} {which} "
                f"{_cuts_of(shard)}; write both again, or list the shard alone by --layout plain"
            )
        rejected += [(f"{shard}/{cut}", "is missing: its shard is cut off") for cut in missing]
        for cut, name in members.items():
            try:
                _check_whole(cuts[cut])
                labels = () if key is None else _find_labels(cuts[cut], key)
            except ValueError as error:
                rejected.append((name, str(error)))
            else:
                items.append(Item(name, split, labels, cut))
    return Arrangement(sorted(items), rejected, None if key is None else sort_classes(items))


def _list_shards(root: Root, folders: set[str]) -> list[str]:
    """Return the shards of all ``cuts*.jsonl.gz`` in folders; none below an address.

    Raises:
        ValueError: a shard is missing.
    """
    if isinstance(root, Url):
        return []
    found = []
    for folder in sorted(folders):
        for path in sorted((root / folder).glob("cuts*.jsonl.gz")):
            file = f"recording{path.name[len('cuts') : -len('.jsonl.gz')]}.tar"
            if not path.with_name(file).is_file():
                raise ValueError(f"there is no {path.with_name(file)} for {path}; copy it again")
            found.append(f"{folder}/{file}".lstrip("/"))
    return found


def _split(name: str) -> tuple[str, str]:
    """Return the shard of a member and the id of its cut."""
    match = _MEMBER.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not in a shard recording.tar or recording.NUMBER.tar")
    return match[1], match[3].rpartition(".")[0]


def _cuts_of(shard: str) -> str:
    folder, slash, file = shard.rpartition("/")
    return f"{folder}{slash}cuts{file[len('recording') : -len('.tar')]}.jsonl.gz"


def _read_cuts(root: Root, shard: str) -> dict[str, Any]:
    path, number, cuts = str(root / _cuts_of(shard)), 0, {}
    try:
        with open_whole(path) as packed, gzip.open(packed) as file:
            for line in file:
                number += 1
                cut = parse_json(line)
                if not isinstance(cut, dict) or not isinstance(cut.get("id"), str):
                    raise ValueError("expected a cut, a JSON object with an 'id'")
                cuts[cut["id"]] = cut
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no {path} for {shard}; list the shard alone by --layout plain"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: is cut off or no gzip file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}:{number}: {error}") from error
    return cuts


def _check_whole(cut: Mapping[str, Any]) -> None:
    """Raise ValueError if a cut is not all of its recording as it is stored."""
    recording = cut.get("recording")
    if not isinstance(recording, dict):
        raise ValueError(f"is of a cut of type {cut.get('type')}, without a recording")
    if recording.get("transforms"):
        raise ValueError("is of a cut that changes its recording (transforms)")
    start, length, whole = cut.get("start"), cut.get("duration"), recording.get("duration")
    if not isinstance(length, (int, float)) or not isinstance(whole, (int, float)):
        raise ValueError("is of a cut without a duration")
    if start or abs(length - whole) > _TOLERANCE:
        raise ValueError(
            f"is of a cut of {length} s from {start} s on, a part of its recording of {whole} s; "
            "to_shar writes parts as recordings"
        )


def _find_labels(cut: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the values of a field of the supervisions or, if they have none, of the cut."""
    supervisions = cut.get("supervisions")
    values: list[Any] = []
    for owner in [*(supervisions if isinstance(supervisions, list) else []), cut]:
        if values and owner is cut:
            break
        for fields in (owner, owner.get("custom") or {}):
            if fields.get(key) is not None:
                found = fields[key]
                values += found if isinstance(found, list) else [found]
                break
    if not values:
        raise ValueError(f"has no label: its cut has no {key!r}")
    return check_values(values, key, "cut")
