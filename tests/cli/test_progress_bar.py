"""The progress bar: on a terminal, and in a log."""

import io

import pytest

from eat_plugin.cli import progress_bar
from eat_plugin.cli.progress_bar import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by a second at each look."""
    seconds = iter(range(1000))
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: float(next(seconds)))


def test_progress__on_a_terminal_is_one_line(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(progress("abcd", "reading", "file", 4)) == list("abcd")
    assert terminal.getvalue().count("\n") == 1
    states = [state.removesuffix("\x1b[K") for state in terminal.getvalue().split("\r")[1:]]
    assert states[0] == f"reading: 0% |{' ' * 30}| 0/4 [0:00:00, ? file/s]"
    assert states[2] == f"reading: 50% |{'#' * 15}{' ' * 15}| 2/4 [0:00:02, 1.0 file/s]"
    assert states[-1].startswith(f"reading: 100% |{'#' * 30}| 4/4 [0:00:05, 0.8 file/s]")


def test_progress__in_a_log_is_a_line_every_30_seconds_and_one_at_the_end(clock, capsys):
    assert sum(1 for _ in progress(range(70), "finding", "clip")) == 70
    assert capsys.readouterr().err.splitlines() == [
        "finding: 30 [0:00:30, 1.0 clip/s]", "finding: 60 [0:01:00, 1.0 clip/s]",
        "finding: 70 [0:01:11, 1.0 clip/s]",
    ]  # fmt: skip


def test_progress__ends_its_line_where_the_work_fails(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    def items():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(progress(items(), "reading", "file", 2))
    assert terminal.getvalue().endswith("\n")
