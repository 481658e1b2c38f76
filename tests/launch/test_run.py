"""A run's output goes to a file, its errors to the caller."""

import argparse
import os
import resource
import sys

import pytest

from eat_plugin.launch import run
from tests.launch.test_progress import UPDATE

TRACEBACK = """

-- Process 1 terminated with the following error:
Traceback (most recent call last):
  File "x.py", line 1, in f
ValueError: task.length is 'x';
"""


def process_error(text):
    return type("ProcessRaisedException", (Exception,), {})(text)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a\n  b"), ("ValueError", "a b")),
        (OSError(2, "No such file", "/x"), ("OSError", "/x: No such file")),
        (RuntimeError("no"), ("RuntimeError", "no")),
        (KeyError(), ("KeyError", "KeyError")),
        (process_error(TRACEBACK), ("ValueError", "task.length is 'x';")),
        (process_error("torch.cuda.OutOfMemoryError: full"), ("OutOfMemoryError", "full")),
    ],
)
def test_explain__one_line(error, expected):
    assert run.explain(error) == expected


@pytest.fixture
def training(monkeypatch, capfd):
    """Put a function in the place of fairseq's training."""

    def replace(function):
        monkeypatch.setattr(run, "_call", function)
        # pytest's own streams do not write to the descriptors 1 and 2.
        for number, name in ((1, "stdout"), (2, "stderr")):
            stream = open(number, "w", closefd=False)  # noqa: SIM115
            monkeypatch.setattr(sys, name, stream)

    return replace


def test_train__all_output_goes_to_the_log(tmp_path, training, capfd):
    def speak(arguments):
        sys.stdout.write(f"{arguments}\n")
        sys.stdout.flush()
        os.system("echo from a child; echo error >&2")

    training(speak)
    run.train(["--x"], tmp_path / "run", 10)
    assert (tmp_path / "run" / "console.txt").read_text() == "['--x']\nfrom a child\nerror\n"
    assert capfd.readouterr() == ("", "")
    sys.stdout.write("back\n")
    sys.stdout.flush()
    assert capfd.readouterr().out == "back\n"


def test_train__mistake_leaves_no_new_folder(tmp_path, training):
    def fail(arguments):
        raise ValueError("task.length is 'x'")

    training(fail)
    with pytest.raises(ValueError, match="task.length is 'x'"):
        run.train([], tmp_path / "runs" / "new", 10)
    assert not (tmp_path / "runs").exists()

    def fail_beside_another(arguments):
        (tmp_path / "runs" / "other").mkdir()
        fail(arguments)

    training(fail_beside_another)
    with pytest.raises(ValueError, match="task.length is 'x'"):
        run.train([], tmp_path / "runs" / "sub" / "new", 10)
    assert list((tmp_path / "runs").rglob("*")) == [tmp_path / "runs" / "other"]
    training(fail)
    (tmp_path / "old").mkdir()
    with pytest.raises(ValueError, match="task.length is 'x'"):
        run.train([], tmp_path / "old", 10)
    assert "ValueError: task.length is 'x'" in (tmp_path / "old" / "console.txt").read_text()


def test_train__failure_names_the_log(tmp_path, training):
    def fail(arguments):
        raise RuntimeError("CUDA error")

    training(fail)
    with pytest.raises(run.TrainingError, match="RuntimeError: CUDA error; the log is .*console"):
        run.train([], tmp_path / "run", 10)
    assert "Traceback" in (tmp_path / "run" / "console.txt").read_text()


def test_train__mistake_after_a_checkpoint_keeps_the_folder(tmp_path, training):
    def fail(arguments):
        (tmp_path / "run" / "checkpoint_last.pt").touch()
        raise ValueError("later")

    training(fail)
    with pytest.raises(ValueError, match="later"):
        run.train([], tmp_path / "run", 10)
    assert (tmp_path / "run").exists()


def test_train__mistake_after_an_update_keeps_the_log(tmp_path, training):
    def fail(arguments):
        sys.stdout.write(UPDATE % 10)
        sys.stdout.flush()
        raise ValueError("later")

    training(fail)
    with pytest.raises(ValueError, match="later"):
        run.train([], tmp_path / "run", 10)
    assert "later" in (tmp_path / "run" / "console.txt").read_text()


def test_train__full_disk_of_the_log_does_not_end_the_run(training, tmp_path):
    done = []

    def write_much(_):
        for stream in (sys.stdout, sys.stderr):
            stream.write("x" * 100_000)
            stream.flush()
        done.append(sys.stderr.encoding)
        raise RuntimeError("the reason")

    training(write_much)
    given = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, given[1]))
    try:
        with pytest.raises(run.TrainingError, match="RuntimeError: the reason; the log is"):
            run.train([], tmp_path / "run", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, given)
    assert done
    assert (tmp_path / "run" / "console.txt").stat().st_size == 1000


def test_accepting_lazy_help__hydra_parses_with_python_3_14(monkeypatch):
    from hydra._internal.utils import get_args_parser

    def check_help(container, action):  # as in Python 3.14
        if not isinstance(action.help or "", str):
            raise ValueError("badly formed help string")

    def add_argument(container, *arguments, **options):
        action = given(container, *arguments, **options)
        container._check_help(action)
        return action

    owner = argparse._ActionsContainer
    given = owner.add_argument
    monkeypatch.setattr(owner, "_check_help", check_help, raising=False)
    monkeypatch.setattr(owner, "add_argument", add_argument)
    with run.accepting_lazy_help():
        assert get_args_parser().parse_args(["--config-dir", "x"]).config_dir == "x"
    assert owner._check_help is check_help
