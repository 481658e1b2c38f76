"""GPUs, drivers and limits that stop a run are named."""

import subprocess
from types import SimpleNamespace

import pytest

from eat_plugin.doctor import machine as module
from eat_plugin.doctor.machine import Gpu, Load, check_load, check_machine, read_machine

V100 = Gpu("Tesla V100", (7, 0), 16 * 10**9)
BLACKWELL = Gpu("NVIDIA B200", (10, 0), 180 * 10**9)
NONE = {"gpus": ()}
BROKEN = {
    "a build for CPUs": ({**NONE, "cuda": ""}, "error", "a build for CPUs", "build for CUDA"),
    "old driver": ({**NONE, "driver": "470.57.02"}, "error", "470.57.02 is too old", "525.60"),
    "old driver, seen": ({"driver": "525.10.1"}, "error", "525.10.1 is too old", "525.60"),
    "hidden": ({**NONE, "visible": ""}, "warning", "CUDA_VISIBLE_DEVICES=''", "unset"),
    "unknown reason": (NONE, "error", "PyTorch cannot use it", "torch.cuda.init()"),
    "no kernels": ({"gpus": (V100,)}, "error", "no kernels for sm_70", "pytorch.org"),
    "no kernels, later": (
        {"gpus": (BLACKWELL,), "architectures": ("sm_90",)}, "error", "for sm_100", "pytorch",
    ),
    "no bfloat16": (
        {"gpus": (V100,), "architectures": ("sm_70",)}, "warning", "neither bfloat16", "fp16=true",
    ),
    "no NCCL": ({"nccl": False}, "error", "no NCCL", "build for CUDA"),
}  # fmt: skip


def test_check_machine__good_ones(machine):
    for good in (
        machine(), machine(gpus=(), listed=(), driver="", cuda=""),
        machine(gpus=(BLACKWELL,)), machine(nccl=False, gpus=machine().gpus[:1]),
        machine(gpus=(Gpu("MI300X", (9, 4), 10**11),), cuda="", listed=(), architectures=("gfx9",)),
    ):  # fmt: skip
        (found,) = check_machine(good)
        assert found.level == "ok"


@pytest.mark.parametrize(("changes", "level", "words", "fix"), BROKEN.values(), ids=BROKEN)
def test_check_machine__problems(machine, changes, level, words, fix):
    found = [one for one in check_machine(machine(**changes)) if words in one.seen]
    assert [one.level for one in found] == [level]
    assert fix in found[0].fix


def test_check_load__enough_of_everything(machine):
    found = check_load(machine(), Load(processes=2, workers=7, threads=0, batch=10**8))
    assert {one.level for one in found} == {"ok"}
    assert "16 cores: 14 data workers" in found[0].seen
    assert "data workers need 2.80 GB" in found[1].seen  # 14 workers x 2 batches
    assert "340 are needed" in found[2].seen  # 200 + 7 x (2 x 8 + 4)


@pytest.mark.parametrize(
    ("changes", "load", "level", "words", "fix"),
    [
        ({}, (2, 9, 0), "warning", "18 data workers (9 in 2 process", "num_workers=7"),
        ({}, (4, 1, 8), "warning", "32 threads of the model", "OMP_NUM_THREADS=4"),
        ({"shared": 64 * 10**6}, (1, 4, 0), "error", "64.00 MB free", "--shm-size=2g"),
        ({"files": 256}, (1, 4, 0), "error", "at most 256 files", "ulimit -n"),
        ({"files": 1000}, (1, 4, 0), "warning", "at most 1000 files", "ulimit -n"),
    ],
)
def test_check_load__too_little(machine, changes, load, level, words, fix):
    found = [one for one in check_load(machine(**changes), Load(*load, 10**8)) if one.fix]
    assert [(one.level, words in one.seen, fix in one.fix) for one in found] == [
        (level, True, True)
    ]


def test_check_load__without_workers_nothing_is_shared(machine):
    found = check_load(machine(shared=0), Load(1, 0, 8, 10**8))
    assert {one.level for one in found} == {"ok"}


def test_read_machine__of_this_machine(monkeypatch):
    rows = "NVIDIA A100-SXM4, 535.104.05\nNVIDIA A100-SXM4, 535.104.05\n"
    done = SimpleNamespace(stdout=rows)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
    found = read_machine()
    assert found.cores >= 1
    assert found.files > 0
    assert (found.driver, found.listed) == ("535.104.05", ("NVIDIA A100-SXM4",) * 2)

    def fail(*_, **__):
        raise subprocess.TimeoutExpired("nvidia-smi", 5)

    monkeypatch.setattr(module.subprocess, "run", fail)
    assert read_machine().listed == ()
