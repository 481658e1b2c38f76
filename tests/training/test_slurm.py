"""A job on a real Slurm: . scripts/slurm/local.sh FOLDER installs and starts one."""

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

from eat_plugin.choices import PREEMPTED_STATUS
from tests.training.conftest import ROOT, SMALL

SETTINGS = [option for option in SMALL if not option.startswith(("common.cpu", "common.fp16"))]
UPDATES = 400


def call(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True).returncode != 0,
        reason="Slurm does not run here; . scripts/slurm/local.sh FOLDER starts it",
    ),
]


@pytest.fixture
def submit(clips, monkeypatch):
    """Submit scripts/slurm/train.sbatch with two tasks; return the job's number."""
    programs = clips / "bin"
    programs.mkdir()
    (programs / "eat").write_text(f'#!/bin/sh\nexec {sys.executable} -m eat_plugin "$@"\n')
    (programs / "eat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (clips / "data").mkdir()
    shutil.copy(clips / "train.tsv", clips / "data")

    def submit(*options, name):
        return call(
            "sbatch", "--parsable", "--ntasks=2", "--cpus-per-task=1", f"--output={clips}/%j.out",
            *options, f"{ROOT}/scripts/slurm/train.sbatch", "pretrain", "--data", f"{clips}/data",
            "--size", "tiny", "--out", f"{clips}/{name}", *SETTINGS, "dataset.batch_size=3",
            f"optimization.max_update={UPDATES}", "checkpoint.save_interval_updates=0",
            "checkpoint.save_interval=1000",
        )  # fmt: skip

    return submit


def wait(job, states):
    for _ in range(600):
        state = call("scontrol", "show", "job", job).partition("JobState=")[2].split()[0]
        if state in states:
            return
        time.sleep(0.5)
    raise AssertionError(f"job {job} is {state}")


def wait_for_updates(run):
    while not (run / "console.txt").is_file() or "num_updates" not in (
        run / "console.txt"
    ).read_text():
        time.sleep(0.2)


def test_train_sbatch__returns_to_the_queue_and_resumes(submit, clips, assert_same):
    wait(submit(name="straight"), ["COMPLETED"])
    job = submit(name="stopped")
    wait_for_updates(clips / "stopped")
    call("scancel", "--signal=USR1", job)  # as --signal=USR1@120 does before the time limit
    wait(job, ["PENDING"])
    output = (clips / f"{job}.out").read_text()
    assert f"exit code {PREEMPTED_STATUS}" in output
    call("scontrol", "update", f"job={job}", "starttime=now")
    wait(job, ["COMPLETED"])
    output = (clips / f"{job}.out").read_text()
    assert "resuming at update" in output
    one, two = (
        torch.load(clips / name / "checkpoints" / "checkpoint_last.pt", weights_only=True)
        for name in ("straight", "stopped")
    )
    for part in ("model", "last_optimizer_state"):
        assert_same(one[part], two[part])


def test_train_sbatch__cancelled_and_failed_jobs_do_not_return(submit, clips):
    job = submit(name="cancelled")
    wait_for_updates(clips / "cancelled")
    call("scancel", job)
    wait(job, ["CANCELLED"])
    assert (clips / "cancelled" / "checkpoints" / "checkpoint_last.pt").is_file()
    (clips / "data" / "train.tsv").write_text("/nowhere\na.wav\t16000\n")
    job = submit(name="failed")
    wait(job, ["FAILED"])
    assert "eat pretrain: error:" in (clips / f"{job}.out").read_text()


def test_train_sbatch__dead_task_ends_the_job(submit, clips):
    job = submit(name="run")
    wait_for_updates(clips / "run")
    (dead,) = [
        int(line.split()[0])
        for line in call("ps", "-ww", "-eo", "pid,args").splitlines()
        if f"{clips}/run" in line and "-m eat_plugin" in line
    ][-1:]
    os.kill(dead, 9)
    wait(job, ["FAILED"])
