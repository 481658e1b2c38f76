"""The packaged configurations, and values of overrides; imports neither PyTorch nor hydra."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .choices import CONFIG_DIR

MOST_LISTED = 15  # choices in a message
_PLAIN = re.compile(r"[\w./-]+", re.A)


def list_names(folder: Path = CONFIG_DIR) -> list[str]:
    """Return the names of the configurations of a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def list_groups(folder: Path = CONFIG_DIR) -> dict[str, list[str]]:
    """Return the choices of each group of a folder."""
    groups = (path for path in sorted(folder.iterdir()) if path.is_dir())
    found = {group.name: list_names(group) for group in groups}
    return {name: choices for name, choices in found.items() if choices}


def read_summary(path: Path) -> str:
    """Return the first sentence of the comment at the head of a YAML file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [
        line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line
    ]
    text = " ".join(comments).split(". ")[0]
    return text.split(":  ")[0].rstrip(".:")


def check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError if a value is not one of the choices; it names similar ones."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"there is no {what} {value!r}{suggest(value, choices)}")


def suggest(value: str, choices: list[str]) -> str:
    """Return the end of a message: similar choices, or all if they are few."""
    similar = difflib.get_close_matches(value, choices, n=3, cutoff=0.6)
    if similar:
        return f"; did you mean {' or '.join(similar)}?"
    return f"; choose one of {', '.join(choices)}" if len(choices) <= MOST_LISTED else ""


def flatten_options(cfg: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the options of a configuration by ``section.option``, in its order."""
    found: dict[str, Any] = {}
    for name, value in cfg.items():
        if isinstance(value, Mapping) and value:
            found.update(flatten_options(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def quote(value: object) -> str:
    """Return a text as a value in hydra's grammar."""
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    # Within single quotes only the quote and backslashes before it are special.
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    end = re.search(r"\\*$", escaped)
    return f"'{escaped}{end[0] if end else ''}'"
