"""The layout of WebDataset shards: archives in which the members of a sample share a key.

``KEY.wav`` is the clip; its label is in ``KEY.cls``, a text, or in ``KEY.json``. A key is the path
in the archive up to the first dot of the file name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..data.json_text import parse_json
from ..data.label_set import check_label
from .arrangement import Arrangement, Item, sort_classes
from .shard_index import key_of

CLASS, JSON = TEXTS = ("cls", "json")
DEFAULT_KEY = "label"
_ARCHIVE = re.compile(r"\.(?:tar|zip)/", re.IGNORECASE)


def arrange_webdataset(
    names: list[str], texts: Mapping[str, bytes], json_key: str | None, split: str
) -> Arrangement:
    """Read the labels of ``shard.tar/KEY.wav`` from the text members with the same key.

    ``json_key`` is the field of ``KEY.json`` with a string, an integer or a list of them; None
    reads ``KEY.cls``, or else the field ``label``. Clips without labels are rejected.
    """
    items, rejected = [], []
    combinations: dict[tuple[str, ...], tuple[str, ...]] = {}  # one tuple per set saves memory
    for name in names:
        key = key_of(name) or ""
        try:
            labels = read_labels(key, texts, json_key)
        except ValueError as error:
            rejected.append((name, str(error)))
        else:
            labels = combinations.setdefault(labels, labels)
            items.append(Item(name, split, labels, _ARCHIVE.split(key, 1)[-1]))
    return Arrangement(items, rejected, sort_classes(items))


def read_labels(key: str, texts: Mapping[str, bytes], json_key: str | None) -> tuple[str, ...]:
    """Return the labels of a sample; raise ValueError if it has none."""
    text = texts.get(f"{key}.{CLASS}") if json_key is None else None
    if text is not None:
        return (_check_one(_decode(text, CLASS).strip(), CLASS),)
    text = texts.get(f"{key}.{JSON}")
    if text is None:
        wanted = f".{JSON}" if json_key is not None else f".{CLASS} or .{JSON}"
        raise ValueError(f"has no label: its shard has no {wanted} with its key")
    return _find_labels(_decode(text, JSON), DEFAULT_KEY if json_key is None else json_key)


def _decode(text: bytes, ending: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"has a .{ending} that is not UTF-8") from error


def _find_labels(text: str, key: str) -> tuple[str, ...]:
    try:
        fields = parse_json(text)
    except ValueError as error:
        raise ValueError(f"has an invalid .{JSON}: {error}") from error
    if not isinstance(fields, dict) or key not in fields:
        raise ValueError(f"has a .{JSON} without {key!r}")
    if isinstance(fields[key], list):
        return check_values(fields[key], key, f".{JSON}")
    (label,) = check_values([fields[key]], key, f".{JSON}")
    return (_check_one(label, JSON),)


def check_values(values: list[Any], key: str, where: str) -> tuple[str, ...]:
    """Return labels that were strings or integers, each once.

    Args:
        values: the labels.
        key: field that they are from, for messages.
        where: the field is, as ``.json``.

    Raises:
        ValueError: they are of another type, or cannot be labels; there are none.
    """
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(
                f"has a {where} with {key!r} = {value!r}, expected a string, an integer or a list"
            )
    if not values:
        raise ValueError(f"has no label: {key!r} in its {where} is an empty list")
    return tuple(dict.fromkeys(_check_label(str(value), where) for value in values))


def _check_one(label: str, ending: str) -> str:
    if "," in label:  # one label, or several
        raise ValueError(
            f"has a .{ending} with an invalid label: {label!r} holds a comma; write labels as a "
            f'list in the .{JSON}, as ["a, b"] or ["a", "b"]'
        )
    return _check_label(label, f".{ending}")


def _check_label(label: str, where: str) -> str:
    try:
        check_label(label).encode()
    except ValueError as error:  # includes UnicodeEncodeError
        raise ValueError(f"has a {where} with an invalid label: {error}") from error
    return label
