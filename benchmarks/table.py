"""The goals, and the table that `eat bench` prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Callable, NamedTuple

from .timing import Comparison

UNITS = {"ratio": "x", "clips_a_second": "/s", "ours": "", "ours_mib": " MiB"}  # after a goal
AT_MOST = ("ours", "ours_mib")


class Goal(NamedTuple):
    """A goal for one figure of a case.

    Attributes:
        figure: field of ``Comparison``: ``ratio`` or ``clips_a_second`` (at least), those of
            ``AT_MOST``.
        at_least: required value.
        aim: desired value.
        where: pattern of a part of the device's name; empty for all devices.
    """

    figure: str
    at_least: float
    aim: float
    where: str = ""

    def is_reached(self, comparison: Comparison) -> bool | None:
        """Return whether the required value was reached; None if not measured."""
        value = getattr(comparison, self.figure)
        if value is None:
            return None
        return value <= self.at_least if self.figure in AT_MOST else value >= self.at_least


def _on_hopper(rate: float, aim: float, mib: float) -> tuple[Goal, ...]:
    """Return goals of H100 and H200, which have the same arithmetic."""
    where = "H[12]00"
    return (
        Goal("clips_a_second", rate, aim, where),
        Goal("ratio", 1, 2, where),
        Goal("ours_mib", mib, mib, where),
    )


GOALS: dict[str, tuple[Goal, ...]] = {
    "resample": (Goal("ratio", 4, 5),),
    "log_mel": (Goal("ratio", 2, 2.8),),
    "masks": (Goal("ratio", 6, 8),),
    "read_wav": (Goal("ratio", 3, 6),),
    "load_wav": (Goal("ratio", 3, 3.7),),
    "load_flac": (Goal("ratio", 1.7, 1.9),),
    "load_mp3": (Goal("ratio", 1.7, 1.9),),
    **dict.fromkeys(
        ("store_1", "store_2", "store_1_cached", "store_2_cached"), (Goal("ratio", 0.8, 1),)
    ),
    "update_base": (Goal("ratio", 1.1, 1.15, "cpu"),),
    "operations": (Goal("ours", 50, 15),),
    "activations": (Goal("ours", 750, 530),),
    "update_bat": (Goal("ratio", 1.5, 2, "cpu"),),
    "update_bat_2": (Goal("ratio", 1.5, 2, "cpu"),),
    "update_bat_half": (Goal("ratio", 2.5, 3, "cpu"),),
    "activations_bat": (Goal("ratio", 1.67, 2),),
    "train_base_12": _on_hopper(230, 280, 9 * 1024),
    "train_base_48": _on_hopper(260, 300, 28 * 1024),
}


def goals_of(comparison: Comparison) -> list[Goal]:
    """Return the goals of a case for its device; all of them if it was not measured."""
    goals, device = GOALS.get(comparison.name, ()), comparison.device
    return [goal for goal in goals if not device or re.search(goal.where, device)]


def format_table(comparisons: Sequence[Comparison]) -> list[str]:
    """Format comparisons as lines, a heading first; columns without figures are left out."""
    columns = []
    for heading, write in COLUMNS.items():
        written = [write(comparison) for comparison in comparisons]
        if any(written):
            cells = [heading, *(cell or "-" for cell in written)]
            width = max(map(len, cells))
            columns.append([cell.rjust(width) for cell in cells])
    columns.append(["what", *(f"{row.name}: {row.problem or row.what}" for row in comparisons)])
    return ["  ".join(cells) for cells in zip(*columns)]


Cell = Callable[[Comparison], "str | None"]


def _write_plain(comparison: Comparison) -> str:
    if comparison.plain is None:
        return "failed" if comparison.problem else "not measured"
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
        return ", ".join(f"{getattr(g, bound):g}{UNITS[g.figure]}" for g in goals) or None

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
