"""Lines of fairseq's log, in the formats json, simple and tqdm."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NamedTuple

CONSOLE = "console.txt"  # the log of a run, in its folder
COUNT = "num_updates"
EPOCH = "train_"  # prefix of means over an epoch
_PAIR = re.compile(r"(\w+)=([^\s,\]]+)")
_VALIDATION = re.compile(r"valid on '([^']+)' subset")


class Record(NamedTuple):
    """The numbers in a line of the log.

    Attributes:
        prefix: empty for updates; ``train_`` for means over an epoch; in validation the split, as
            ``eval_``.
        update: number of updates so far.
        values: by name, without the prefix.
    """

    prefix: str
    update: int
    values: dict[str, float]


def parse_record(line: str) -> Record | None:
    """Parse a line of the log; None if it has no record."""
    if COUNT not in line:
        return None
    found = _parse_json(line) or _parse_text(line)
    count = next((name for name in found if name.endswith(COUNT)), "")
    numbers = {name: number for name in found if (number := _as_number(found[name])) is not None}
    if not math.isfinite(numbers.get(count, math.nan)):
        return None  # another dictionary, or a truncated line
    prefix = count[: -len(COUNT)]
    values = {name[len(prefix) :]: numbers[name] for name in numbers if name.startswith(prefix)}
    return Record(prefix, int(numbers[count]), values)


def _as_number(value: Any) -> float | None:
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _parse_json(line: str) -> dict[str, Any]:
    """Parse ``{"loss": "2.5", ..., "num_updates": "10"}``, with any text before it."""
    brace = line.find("{")
    if brace < 0:
        return {}
    try:
        record = json.loads(line[brace:])
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _parse_text(line: str) -> dict[str, str]:
    """Parse the lines of the formats ``simple`` and ``tqdm``, with the names of JSON.

    They are ``loss=2.5, num_updates=10`` within an epoch and ``| loss 2.5 | num_updates 10`` at its
    end.
    """
    pairs = dict(_PAIR.findall(line))
    if COUNT in pairs:
        return pairs
    fields = [field.split() for field in line.split(" | ")]
    validation = _VALIDATION.search(line)
    prefix = f"{validation[1]}_" if validation else EPOCH
    return {prefix + field[0]: field[1] for field in fields if len(field) == 2}
