"""One run per folder of checkpoints."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from eat_plugin.tasks.run_config import RunConfig
from eat_plugin.tasks.run_lock import NAME, lock

LOCKING = """
import sys, time
from omegaconf import OmegaConf
from eat_plugin.tasks.run_config import RunConfig
from eat_plugin.tasks.run_lock import lock
root = OmegaConf.create({"task": {}, "checkpoint": {"save_dir": sys.argv[1]}})
lock(RunConfig(root.task))
print("locked", flush=True)
time.sleep(300)
"""


def run_config(folder, rank=0, **checkpoint):
    sections = {
        "task": {}, "checkpoint": {"save_dir": str(folder), **checkpoint},
        "distributed_training": {"distributed_rank": rank},
    }  # fmt: skip
    return RunConfig(OmegaConf.create(sections).task)


def test_lock__held_by_another_process_until_it_is_killed(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "locked\n"
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
