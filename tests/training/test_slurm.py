"""A job on a real Slurm: . scripts/slurm/local.sh FOLDER installs and starts one."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import torch

from eat_plugin.choices import PREEMPTED_STATUS
from tests.training.conftest import ROOT, SMALL

SCRIPTS = ROOT / "scripts" / "slurm"
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
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


@pytest.fixture(autouse=True)
def eat(clips, monkeypatch):
    """Put `eat` on the PATH."""
    programs = clips / "bin"
    programs.mkdir()
    (programs / "eat").write_text(f'#!/bin/sh\nexec {sys.executable} -m eat_plugin "$@"\n')
    (programs / "eat").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def submit(clips):
    """Submit scripts/slurm/train.sbatch with two tasks; return the job's number."""
    (clips / "data").mkdir()
    shutil.copy(clips / "train.tsv", clips / "data")

    def submit(*options, name):
        return call(
            "sbatch", "--parsable", "--ntasks=2", "--cpus-per-task=1", f"--output={clips}/%j.out",
            *options, f"{SCRIPTS}/train.sbatch", "pretrain", "--data", f"{clips}/data",
            "--size", "tiny", "--out", f"{clips}/{name}", *SETTINGS, "dataset.batch_size=3",
            f"optimization.max_update={UPDATES}", "checkpoint.save_interval_updates=0",
            "checkpoint.save_interval=1000",
        )  # fmt: skip

    return submit


def wait(job, states):
    for _ in range(1200):
        found = re.findall(r"JobState=(\S+)", call("scontrol", "show", "job", job))
        if set(found) <= set(states):
            return
        assert not set(found) & (set(ENDS) - set(states)), f"job {job}: {found}"
        time.sleep(0.5)
    raise AssertionError(f"job {job}: {found}")


def wait_for_updates(run, log="console.txt"):
    log = run / log
    while not log.is_file() or "num_updates" not in log.read_text():
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


def contents(folder):
    """The files of a data folder or cache; those of the parts are removed after the merge."""
    files = [path for path in folder.rglob("*") if path.is_file() and "parts" not in path.parts]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_parts_sbatch__with_the_jobs_that_wait_equals_one_process(clips, tmp_path):
    """The commands at the head of the script, with three parts."""
    changes = {
        "1-32": "1-3 --cpus-per-task=1", "--merge 32": "--merge 3", "/my/": f"{clips}/",
        "scripts/slurm": str(SCRIPTS),
    }  # fmt: skip
    head = (SCRIPTS / "parts.sbatch").read_text()
    for given, own in changes.items():
        assert given in head
        head = head.replace(given, own)
    lines = re.findall(r"^#   (.+)$", head, flags=re.MULTILINE)
    for parts, then in zip(lines[::2], lines[1::2]):
        answer = call("bash", "-e", "-c", f"{parts}\n{then}")
        wait(answer.split()[-1], ["COMPLETED"])
    folders = clips / "data", clips / "cache"
    in_parts = [contents(folder) for folder in folders]
    assert all(len(files) > 1 for files in in_parts)
    for folder in folders:
        shutil.rmtree(folder)
    call("eat", "manifest", f"{clips}/audio", "--out", f"{clips}/data")
    call("eat", "cache", f"{clips}/data", "--out", f"{clips}/cache")
    assert in_parts == [contents(folder) for folder in folders]


@pytest.fixture
def launch(trainer, monkeypatch):
    """Start hydra's launcher with two tasks on CPUs, as docs/clusters.md has it."""
    pytest.importorskip("submitit", reason="needs hydra-submitit-launcher")
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    started = []

    def launch(name, updates):
        _, *arguments = trainer.command(
            f"hydra.sweep.dir={trainer.folder / name}", "hydra.sweep.subdir=0",
            f"checkpoint.save_dir={trainer.folder / name / 'checkpoints'}",
            "dataset.batch_size=3", f"optimization.max_update={updates}",
            "checkpoint.save_interval_updates=0", "distributed_training.distributed_world_size=2",
            "distributed_training.distributed_no_spawn=true",
            "distributed_training.distributed_rank=${oc.env:SLURM_PROCID}",
            "distributed_training.distributed_init_method="
            "'tcp://${oc.env:SLURM_LAUNCH_NODE_IPADDR}:29500'",
            "distributed_training.distributed_backend=gloo",
            "distributed_training.ddp_backend=legacy_ddp", "hydra/launcher=submitit_slurm",
            "hydra.launcher.tasks_per_node=2", "hydra.launcher.cpus_per_task=1",
            f"hydra.launcher.name={name}",
        )  # fmt: skip
        command = [sys.executable, "-m", "fairseq_cli.hydra_train", "-m", *arguments]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        job = ""
        while not job:
            assert started[-1].poll() is None
            time.sleep(0.2)
            job = call("squeue", "--noheader", f"--name={name}", "--format=%i")
        return job

    yield launch
    for process in started:  # it asks Slurm's accounting, which may be off, for the end of a job
        process.kill()
        process.wait()


def test_hydra_launcher__saves_and_resumes(launch, trainer):
    job = launch("launched", updates=UPDATES)
    wait_for_updates(trainer.folder / "launched" / "0", "hydra_train.log")
    call("scancel", "--signal=USR1", job)
    wait(job, ["FAILED"])
    assert f"ExitCode={PREEMPTED_STATUS}:0" in call("scontrol", "show", "job", job)
    saved = trainer.checkpoint("launched")["optimizer_history"][-1]["num_updates"]
    assert 0 < saved < UPDATES
    wait(launch("launched", updates=saved + 2), ["COMPLETED"])
    two = trainer.checkpoint("launched")
    assert two["optimizer_history"][-1]["num_updates"] == saved + 2
    assert two["cfg"]["distributed_training"]["distributed_world_size"] == 2
