"""A progress bar on standard error; where that is no terminal, a line every 30 s."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

REFRESH, QUIET = 0.1, 30.0  # seconds between two states: on a terminal, in a log
WIDTH = 30  # characters of a full bar


def progress(
    items: Iterable[Item], label: str, unit: str, total: int | None = None
) -> Iterator[Item]:
    """Iterate over items and show how many are done.

    The bar names the work, as ``"reading headers"``, and the unit of an item, as ``"file"``.
    """
    live = sys.stderr.isatty()
    start = shown = time.monotonic()
    done = 0
    if live:
        _show(_describe(done, total, 0.0, label, unit), live)
    try:
        for item in items:
            yield item
            done += 1
            now = time.monotonic()
            if now - shown >= (REFRESH if live else QUIET):
                shown = now
                _show(_describe(done, total, now - start, label, unit), live)
    finally:
        _show(_describe(done, total, time.monotonic() - start, label, unit), live)
        sys.stderr.write("\n" if live else "")


def _show(line: str, live: bool) -> None:
    sys.stderr.write(f"\r{line}\x1b[K" if live else f"{line}\n")
    sys.stderr.flush()


def _describe(done: int, total: int | None, seconds: float, label: str, unit: str) -> str:
    """Return a line: ``reading headers: 50% |###   | 5/10 [0:00:02, 2.5 file/s]``."""
    rate = f"{done / seconds:.1f} {unit}/s" if done and seconds else f"? {unit}/s"
    passed = f"[{_clock(seconds)}, {rate}]"
    if not total:
        return f"{label}: {done} {passed}"
    share = min(done / total, 1)
    bar = f"{'#' * round(WIDTH * share):{WIDTH}}"
    return f"{label}: {share:.0%} |{bar}| {done}/{total} {passed}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
