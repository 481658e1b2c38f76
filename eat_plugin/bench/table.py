"""The table that `eat bench` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from .goals import goals_of
from .timing import Comparison

NOT_MEASURED, FAILED = "not measured", "failed"
# What stands behind a goal, by its figure.
MARKS = {"ratio": "x", "clips_a_second": "/s", "ours": ""}

Cell = Callable[[Comparison], "str | None"]


def format_table(comparisons: Sequence[Comparison]) -> list[str]:
    """Write comparisons as lines, a heading first; columns without a figure are left out."""
    columns = []
    for heading, write in COLUMNS.items():
        written = [write(comparison) for comparison in comparisons]
        if any(written):
            cells = [heading, *(cell or "-" for cell in written)]
            width = max(map(len, cells))
            columns.append([cell.rjust(width) for cell in cells])
    columns.append(["what", *(f"{row.name}: {row.problem or row.what}" for row in comparisons)])
    return ["  ".join(cells) for cells in zip(*columns)]


def _write_plain(comparison: Comparison) -> str:
    if comparison.plain is None:
        return NOT_MEASURED if comparison.problem is None else FAILED
    return _round(comparison.plain)


def _round(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:.0f}"


def _figure(name: str, form: str) -> Cell:
    def write(comparison: Comparison) -> str | None:
        value = getattr(comparison, name)
        return None if value is None else form.format(value)

    return write


def _goal(bound: str) -> Cell:
    def write(comparison: Comparison) -> str | None:
        goals = goals_of(comparison)
        return ", ".join(f"{getattr(g, bound):g}{MARKS[g.figure]}" for g in goals) or None

    return write


COLUMNS: dict[str, Cell] = {
    "plain": _write_plain,
    "ours": lambda comparison: None if comparison.ours is None else _round(comparison.ours),
    "unit": lambda comparison: comparison.unit,
    "ratio": _figure("ratio", "{:.2f}"),
    "at least": _goal("at_least"),
    "aim": _goal("aim"),
    "clips/s": _figure("clips_a_second", "{:.4g}"),
    "MFU": _figure("mfu", "{:.0%}"),
    "plain MiB": _figure("plain_mib", "{:.0f}"),
    "MiB": _figure("ours_mib", "{:.0f}"),
    "difference": _figure("difference", "{:.1e}"),
}
