"""A training run in this process; its output goes to a file."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from ..choices import PREEMPTED_STATUS
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


class PreemptedError(RuntimeError):
    """A signal ended a run, which has saved a checkpoint."""


def train(arguments: list[str], folder: Path, total: int, rank: int = 0) -> Progress:
    """Run ``fairseq-hydra-train``, show its progress, and keep its output in ``console.txt``.

    Args:
        arguments: of ``fairseq-hydra-train``.
        folder: of the run. If it is new and an option is invalid, it is removed again.
        total: number of updates.
        rank: of this process; the progress of the first is shown, others have their own log.

    Returns:
        The progress at the end.

    Raises:
        ValueError: an option or a file is invalid; the message is one line.
        PreemptedError: SIGTERM or SIGUSR1 ended the run in order.
        TrainingError: the run failed for another reason.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / (CONSOLE if rank == 0 else f"console-{rank}.txt")
    failure: BaseException | None = None
    with _redirected(log, rank == 0) as terminal, Progress(log, terminal, total) as progress:
        try:
            _call(arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001, explained below
            failure = error
            _log_failure(error)
    if failure is None or (isinstance(failure, SystemExit) and not failure.code):
        return progress
    # The exit code of this process, or of one of several.
    if PREEMPTED_STATUS in (getattr(failure, name, None) for name in ("code", "exit_code")):
        raise PreemptedError(f"a signal ended the run after update {progress.update}")
    kind, reason = explain(failure)
    if kind in MISTAKES:
        if missing and rank == 0 and not progress.update and not any(folder.glob("**/*.pt")):
            _remove(missing)
        raise ValueError(reason) from failure
    raise TrainingError(f"training ended with {kind}: {reason}; the log is {log}") from failure


def _remove(folders: list[Path]) -> None:
    """Remove the folder of a run, the first, and those that contained nothing else."""
    shutil.rmtree(folders[0])
    with suppress(OSError):  # another run has begun there
        for parent in folders[1:]:
            parent.rmdir()


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
        with forwarding_signals(), accepting_lazy_help():
            cli_main()
    finally:
        sys.argv = given


@contextmanager
def accepting_lazy_help() -> Iterator[None]:
    """Let hydra before 1.4 declare its arguments to Python 3.14, which checks that help is text."""
    owner: Any = argparse._ActionsContainer
    check: Any = getattr(owner, "_check_help", None)  # new in 3.14

    def check_text(container: Any, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check(container, action)

    if check is not None:
        owner._check_help = check_text
    try:
        yield
    finally:
        if check is not None:
            owner._check_help = check


@contextmanager
def forwarding_signals() -> Iterator[None]:
    """Pass SIGTERM and SIGUSR1 on to the processes of a run that fairseq starts, one per GPU."""

    def forward(number: int, frame: Any) -> None:
        processes = multiprocessing.active_children()
        for process in processes:
            os.kill(process.pid or 0, number)
        if not processes:  # training has not begun
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    given = [signal.signal(number, forward) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, given):
            signal.signal(number, handler or signal.SIG_DFL)  # None: not one of Python


def _log_failure(error: BaseException) -> None:
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__)


@contextmanager
def _redirected(log: Path, shows: bool) -> Iterator[TextIO]:
    """Send standard output and error to a file, also those of child processes; yield a terminal.

    Without ``shows`` nothing is seen of what is written to the terminal.
    """
    shown = os.dup(2) if shows else os.open(os.devnull, os.O_WRONLY)
    terminal = os.fdopen(shown, "w", encoding="utf-8", errors="replace")
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
