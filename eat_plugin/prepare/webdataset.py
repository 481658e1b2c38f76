"""The layout of WebDataset shards: archives in which the members of a sample share a key.

``KEY.wav`` is the clip; its label is in ``KEY.cls``, a text, or in ``KEY.json``. A key is the path
in the archive up to the first dot of the file name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from ..data.json_text import parse_json
from ..data.label_set import check_label
from .arrangement import Arrangement, Item, sort_classes

CLASS, JSON = TEXTS = ("cls", "json")
DEFAULT_KEY = "label"


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
        try:
            labels = _read_labels(_key_of(name), texts, json_key)
        except ValueError as error:
            rejected.append((name, str(error)))
        else:
            items.append(Item(name, split, combinations.setdefault(labels, labels)))
    return Arrangement(items, rejected, sort_classes(items))


def _key_of(name: str) -> str:
    folder, file = posixpath.split(name)
    return posixpath.join(folder, file.partition(".")[0])


def _read_labels(key: str, texts: Mapping[str, bytes], json_key: str | None) -> tuple[str, ...]:
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
    is_list = isinstance(fields[key], list)
    values = fields[key] if is_list else [fields[key]]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(
                f"has a .{JSON} with {key!r} = {value!r}, expected a string, an integer or a list"
            )
    if not values:
        raise ValueError(f"has no label: {key!r} in its .{JSON} is an empty list")
    check = _check_label if is_list else _check_one
    return tuple(dict.fromkeys(check(str(value), JSON) for value in values))


def _check_one(label: str, ending: str) -> str:
    if "," in label:  # one label, or several
        raise ValueError(
            f"has a .{ending} with an invalid label: {label!r} holds a comma; write labels as a "
            f'list in the .{JSON}, as ["a, b"] or ["a", "b"]'
        )
    return _check_label(label, ending)


def _check_label(label: str, ending: str) -> str:
    try:
        check_label(label).encode()
    except ValueError as error:  # includes UnicodeEncodeError
        raise ValueError(f"has a .{ending} with an invalid label: {error}") from error
    return label
