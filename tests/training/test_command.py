"""`eat pretrain` trains, resumes, and reports mistakes in one line."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.forked import Forked
from tests.training.conftest import ROOT, SMALL

# The command chooses the device itself.
SETTINGS = [option for option in SMALL if not option.startswith(("common.cpu", "common.fp16"))]
COMMAND = ["pretrain", "--data", "data", "--size", "tiny", "--out", "run", *SETTINGS]


@pytest.fixture
def start(clips):
    """Start `eat pretrain` on the clips, in the folder ``run``."""
    (clips / "data").mkdir()
    (clips / "train.tsv").rename(clips / "data" / "train.tsv")
    return lambda *options: Forked(
        "eat_plugin.cli:main", [*COMMAND, *options], clips, separate=True
    )


def start_installed(folder, *options, launcher=()):
    """The same in an interpreter that has imported nothing."""
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "eat_plugin", *COMMAND, *options], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        # Jobs in the background ignore it, and so would the program.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def interrupt(process):
    """Press ctrl-C until the process ends: PyTorch can lose an interrupt while it saves."""
    while True:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=30)
            return process.returncode, out, err


def test_pretrain__interrupted_and_resumed(start, clips):
    log = clips / "run" / "console.txt"
    process = start_installed(clips, "optimization.max_update=100000")
    checkpoint = clips / "run" / "checkpoints" / "checkpoint_last.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.2)
    status, out, err = interrupt(process)
    assert status == 130
    assert f"run {clips / 'run'}, full log {log}" in out
    assert "the same command resumes" in err
    assert "Traceback" not in err

    done = torch.load(checkpoint, weights_only=True)["optimizer_history"][-1]["num_updates"]
    status, out, err = finish(start(f"optimization.max_update={done + 1}"))
    assert status == 0, err
    assert f"resuming at update {done}" in err
    assert f"checkpoint {checkpoint}" in out
    assert "[fairseq" in log.read_text()
    assert "[fairseq" not in out + err


def test_pretrain__mistake_is_one_line_and_leaves_no_folder(start, clips):
    status, _, err = finish(start("task.length=long"))
    assert (status, err.count("\n")) == (2, 1)
    assert "task.length is 'long'; choose one of pad, mask, crop" in err
    assert not (clips / "run").exists()


def test_pretrain__second_run_in_the_same_folder_is_refused(start, clips):
    first = start("optimization.max_update=100000")
    lock = clips / "run" / "checkpoints" / ".lock"
    while not lock.exists() and first.poll() is None:
        time.sleep(0.2)
    status, _, err = finish(start())
    first.kill()
    finish(first)
    assert (status, err.count("\n")) == (2, 1)
    assert f"process {first.pid}," in err
    status, _, err = finish(start("optimization.max_update=3"))
    assert status == 0, err


def test_pretrain__finished_run_stays_as_it_is(start, clips):
    checkpoint = clips / "run" / "checkpoints" / "checkpoint_last.pt"
    finish(start("optimization.max_update=3"))
    before = checkpoint.stat().st_mtime_ns
    status, out, err = finish(start("optimization.max_update=3"))
    assert status == 0, err
    assert f"nothing to do: {checkpoint} has 3 updates, optimization.max_update is 3" in out
    assert checkpoint.stat().st_mtime_ns == before


def test_pretrain__torchrun_on_cpus(start, clips):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    status, out, err = finish(
        start_installed(clips, "optimization.max_update=3", launcher=launcher)
    )
    assert status == 0, err
    assert out.count("CPU, processes: 2, threads: 1, ") == 1
    assert "update 3 of 3" in err
    assert "update 3 of 3" not in (clips / "run" / "console-1.txt").read_text()
    state = torch.load(clips / "run" / "checkpoints" / "checkpoint_last.pt", weights_only=True)
    assert state["cfg"]["distributed_training"]["distributed_world_size"] == 2
