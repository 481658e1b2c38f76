"""One run per folder of checkpoints."""

import errno
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from eat_plugin.tasks.run_config import RunConfig
from eat_plugin.tasks.run_lock import NAME, lock
from tests.forked import Forked


def run_config(folder, rank=0, **checkpoint):
    sections = {
        "task": {}, "checkpoint": {"save_dir": str(folder), **checkpoint},
        "distributed_training": {"distributed_rank": rank},
    }  # fmt: skip
    return RunConfig(OmegaConf.create(sections).task)


def hold():
    """Lock a folder, as a program."""
    lock(run_config(sys.argv[1]))
    Path("locked").touch()
    time.sleep(300)


def test_lock__held_by_another_process_until_it_is_killed(tmp_path):
    other = Forked(f"{__name__}:hold", [tmp_path], tmp_path)
    try:
        while not (tmp_path / "locked").exists():
            assert other.poll() is None
            time.sleep(0.02)
        for keep in (False, True):
            with pytest.raises(ValueError, match=rf"process {other.pid}, since") as caught:
                lock(run_config(tmp_path), keep)
            assert str(tmp_path) in str(caught.value)
        lock(run_config(tmp_path, rank=1))  # of a run whose first process has the lock
        lock(run_config(tmp_path, no_save=True))
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    lock(run_config(tmp_path), keep=False)
    lock(run_config(tmp_path))
    assert f"process {os.getpid()}," in (tmp_path / NAME).read_text()


def test_lock__same_process_may_use_a_folder_again(tmp_path):
    lock(run_config(tmp_path))
    lock(run_config(tmp_path))
    lock(run_config(tmp_path), keep=False)


def test_lock__leaves_no_folder_behind(tmp_path):
    lock(run_config(tmp_path / "checkpoints"))
    assert not (tmp_path / "checkpoints").exists()


def test_lock__file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    lock(run_config(tmp_path))
    assert "No locks available" in caplog.text
