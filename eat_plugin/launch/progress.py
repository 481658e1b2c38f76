"""The progress of a run, read from its log: one line on the terminal."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import TextIO

from ..prepare.amounts import count
from ..records import EPOCH, Record, parse_record

POLL = 0.3  # seconds between two looks at the log
QUIET = 10.0  # seconds between two lines where the output is not a terminal
MOST_WARNINGS = 5
METRICS = ("accuracy", "mAP", "loss")
_WARNING = re.compile(r"eat_plugin\.[\w.]+(?:\]\[WARNING\] - | \| )(.*)")
_RESUMED = re.compile(r"oaded checkpoint .* @ (\d+) updates")


class Progress:
    """Shows what a log says while it grows.

    Args:
        log: the log of the run.
        terminal: where to write.
        total: number of updates of the whole run.

    Attributes:
        update: number of the last update.
        started_at: number of updates of the checkpoint being resumed.
    """

    def __init__(self, log: Path, terminal: TextIO, total: int) -> None:
        self.update = self.started_at = 0
        self._terminal, self._total = terminal, total
        self._live = terminal.isatty()
        self._line, self._shown, self._warnings = "", 0.0, 0
        self._file = log.open(encoding="utf-8", errors="replace")
        self._file.seek(0, 2)
        self._rest = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._read()
        self._show(last=True)
        self._file.close()

    def _follow(self) -> None:
        while not self._ended.wait(POLL):
            self._read()

    def _read(self) -> None:
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            self._take(line)

    def _take(self, line: str) -> None:
        resumed, warning = _RESUMED.search(line), _WARNING.search(line)
        if resumed:
            self.update = self.started_at = int(resumed[1])
            if self.started_at:
                self._say(f"resuming at update {self.started_at}")
        elif warning and "WARNING" in line:
            self._warnings += 1
            if self._warnings <= MOST_WARNINGS:
                self._say(f"warning: {warning[1]}")
        else:
            self._take_record(parse_record(line))

    def _take_record(self, record: Record | None) -> None:
        if record is None:
            return
        if record.prefix not in ("", EPOCH):
            self._say(describe_validation(record))
        elif not record.prefix or record.update > self.update:  # means of an epoch are late
            self.update = record.update
            self._line = describe_update(record, self._total)
            self._show()

    def _show(self, last: bool = False) -> None:
        """Show the newest line: in place on a terminal, else now and then."""
        if self._live:
            self._terminal.write(f"\r\x1b[K  {self._line}" + ("\n" if last and self._line else ""))
        elif self._line and (last or time.monotonic() - self._shown > QUIET):
            self._terminal.write(f"  {self._line}\n")
            self._shown, self._line = time.monotonic(), ""
        self._terminal.flush()

    def _say(self, text: str) -> None:
        clear = "\r\x1b[K" if self._live else ""
        self._terminal.write(f"{clear}  {text}\n")
        if self._live:
            self._show()
        self._terminal.flush()


def describe_update(record: Record, total: int) -> str:
    """Return update, loss, learning rate, speed and time left."""
    parts = [f"update {record.update} of {total}"]
    # The rate after the last update is never used.
    shown = ("loss", "lr") if record.update < total else ("loss",)
    parts += [f"{name} {record.values[name]:.4g}" for name in shown if name in record.values]
    rate, clips = (record.values.get(name, 0) for name in ("ups", "bsz"))
    if rate > 0:
        left = describe_duration((total - record.update) / rate)
        parts += [f"{rate * clips:.3g} clips/s", f"{left} left"]
    return "  ".join(parts)


def describe_validation(record: Record) -> str:
    """Return split, update and metrics of a validation."""
    found = [name for name in METRICS if name in record.values]
    metrics = ", ".join(f"{name} {record.values[name]:.4g}" for name in found)
    used, skipped = (int(record.values.get(name, 0)) for name in ("clips", "skipped_clips"))
    if skipped:
        metrics += f" on {used} of {count(used + skipped, 'clip')}"
    return f"{record.prefix.rstrip('_')} at update {record.update}: {metrics}"


def describe_duration(seconds: float) -> str:
    """Return a duration in two units at most."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
