"""Configuration dataclasses from plain values, as checkpoints hold them, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin

from .options import MISSING

Config = TypeVar("Config")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")  # see ``options.follow``
EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def fill(
    kind: type[Config],
    values: Mapping[str, Any],
    name: str,
    root: Mapping[str, Any],
    ignore_unknown: bool = False,
) -> Config:
    """Make the configuration ``kind``; what is not given has its default.

    Args:
        kind: a dataclass; its fields may be dataclasses, too.
        values: by the names of its fields.
        name: of the section, in messages and in references to it.
        root: the other sections, to which references may lead. One that leads nowhere remains as it
            is.
        ignore_unknown: leave out values of an unknown name, as other versions may have saved them;
            not in nested sections.

    Raises:
        ValueError: a value is unknown, or of another type; the message names it.
    """
    if ignore_unknown:
        known = {option.name for option in fields(kind)}  # type: ignore[arg-type]
        values = {key: value for key, value in values.items() if key in known}
    cfg = _fill(kind, values, name)
    _resolve(cfg, {**root, name: cfg})
    return cfg


def _fill(kind: Any, values: Any, name: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} is {values!r}; it must be a section of options")
    types = {option.name: option.type for option in fields(kind)}
    for key in values:
        if key not in types:
            raise ValueError(f"there is no option {name}.{key}")
    return kind(**{key: _read(types[key], values[key], f"{name}.{key}") for key in values})


def _read(kind: Any, value: Any, name: str) -> Any:
    """Return a value as the type of its field."""
    if get_origin(kind) is Union:
        if value is None:
            return None
        kind = next(each for each in get_args(kind) if each is not type(None))
    if kind is Any or value == MISSING or _reference(value):
        return plain(value)
    if is_dataclass(kind):
        return _fill(kind, value, name)
    if get_origin(kind) is list:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f"{name} is {value!r}; it must be a list")
        return [_read(get_args(kind)[0], item, name) for item in value]
    if issubclass(kind, Enum):
        return _member(kind, value, name)
    return _scalar(kind, value, name)


def _member(kind: type[Enum], value: Any, name: str) -> Enum:
    chosen = value.name if isinstance(value, Enum) else str(value).rpartition(".")[2]
    if chosen not in kind.__members__:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(kind.__members__)}")
    return kind[chosen]


def _scalar(kind: Any, value: Any, name: str) -> Any:
    """Return a number, a truth value or text; a number may be given as text."""
    try:
        converted = kind(value)
    except (TypeError, ValueError, OverflowError):
        converted = None
    is_text = isinstance(value, str) and kind is not bool
    if value is None or not (is_text or kind is str or converted == value) or converted is None:
        raise ValueError(f"{name} is {value!r}; it must be {EXPECTED[kind]}")
    return converted


def _resolve(cfg: Any, root: Mapping[str, Any]) -> None:
    """Replace references in a dataclass, and in those within it, by the values they lead to."""
    for option in fields(cfg):
        value = getattr(cfg, option.name)
        if is_dataclass(value):
            _resolve(value, root)
        elif _reference(value):
            setattr(cfg, option.name, _follow(value, root))


def _reference(value: Any) -> str:
    """Return the option that a value refers to; an empty text if it is no reference."""
    found = REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else ""


def _follow(value: Any, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in _reference(value).split("."):
        known = part in found if isinstance(found, Mapping) else hasattr(found, part)
        if not known:
            return value
        found = found[part] if isinstance(found, Mapping) else getattr(found, part)
    return _follow(found, root) if _reference(found) else found


def plain(value: Any) -> Any:
    """Return a configuration as dictionaries, lists, numbers and text, as checkpoints hold it."""
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return {option.name: plain(getattr(value, option.name)) for option in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    return value


def merge(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Join nested options; later ones replace earlier ones."""
    merged: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            before = merged.get(name)
            if isinstance(before, Mapping) and isinstance(value, Mapping):
                value = merge(before, value)
            merged[name] = value
    return merged


def is_missing(cfg: Any, name: str) -> bool:
    """Whether an option that must be given is not; also of an omegaconf configuration."""
    if isinstance(cfg, Mapping):  # omegaconf's do not contain what is missing
        return name not in cfg
    return bool(getattr(cfg, name) == MISSING)
