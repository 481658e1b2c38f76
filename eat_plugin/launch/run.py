"""A training run in this process; its output goes to a file."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from ..records import CONSOLE
from .progress import Progress

_LAST_LINE = re.compile(r"^(?:[\w]+\.)*(\w*(?:Error|Exception|Interrupt)\w*): (.+)$", re.M)
MISTAKES = ("ValueError", "OSError", "FileNotFoundError", "PermissionError", "ConfigAttributeError")


class _Console:
    """A stream to the log; what a full disk does not take is dropped and does not end the run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class TrainingError(RuntimeError):
    """A run failed for another reason than an invalid option or file."""


def train(arguments: list[str], folder: Path, total: int) -> Progress:
    """Run ``fairseq-hydra-train``, show its progress, and keep its output in ``console.txt``.

    Args:
        arguments: of ``fairseq-hydra-train``.
        folder: of the run. If an option is invalid, a new folder is removed again.
        total: number of updates.

    Returns:
        The progress at the end.

    Raises:
        ValueError: an option or a file is invalid; the message is one line.
        TrainingError: the run failed for another reason.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / CONSOLE
    failure: BaseException | None = None
    with _redirected(log) as terminal, Progress(log, terminal, total) as progress:
        try:
            _call(arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001, explained below
            failure = error
            _log_failure(error)
    if failure is None or (isinstance(failure, SystemExit) and not failure.code):
        return progress
    kind, reason = explain(failure)
    if kind in MISTAKES:
        if missing and not any(folder.glob("**/*.pt")):
            shutil.rmtree(missing[-1])
        raise ValueError(reason) from failure
    raise TrainingError(f"training ended with {kind}: {reason}; the log is {log}") from failure


def explain(error: BaseException) -> tuple[str, str]:
    """Return the class of an error and its message in one line, also of an error in a process."""
    kind, text = type(error).__name__, str(error)
    if isinstance(error, OSError) and error.strerror:
        kind, text = "OSError", f"{error.filename or ''}: {error.strerror}".lstrip(": ")
    if kind == "ProcessRaisedException":
        found = _LAST_LINE.findall(text)
        kind, text = found[-1] if found else (kind, text.strip().splitlines()[-1])
    if isinstance(error, ValueError):
        kind = "ValueError"
    return kind, " ".join(text.split()) or kind


def _call(arguments: list[str]) -> None:
    from fairseq_cli.hydra_train import cli_main

    # With it hydra raises errors in place of exiting.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    given, sys.argv = sys.argv, ["fairseq-hydra-train", *arguments]
    try:
        cli_main()
    finally:
        sys.argv = given


def _log_failure(error: BaseException) -> None:
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__)


@contextmanager
def _redirected(log: Path) -> Iterator[TextIO]:
    """Send standard output and error to a file, also those of child processes; yield a terminal."""
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    saved = [os.dup(number) for number in (1, 2)]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    _flush()
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    streams = sys.stdout, sys.stderr
    consoles: Any = map(_Console, streams)
    sys.stdout, sys.stderr = consoles
    try:
        yield terminal
    finally:
        _flush()
        sys.stdout, sys.stderr = streams
        for number, old in zip((1, 2), saved):
            os.dup2(old, number)
            os.close(old)
        terminal.close()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
