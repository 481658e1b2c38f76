"""Places of processes from the variables of launchers."""

import pytest

from eat_plugin.launch.launchers import Place, choose_options, find_place

TORCHRUN = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}
SLURM = {
    "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "1000",
    "SLURM_STEP_ID": "2", "SLURM_STEP_NODELIST": "node[7-8]",
}  # fmt: skip


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    program = tmp_path / "scontrol"
    program.write_text('#!/bin/sh\necho "$@" > "$0.log"\necho node7\necho node8\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return program


def test_find_place__torchrun():
    assert find_place(TORCHRUN) == Place(9, 16, 1, 8, "env://")
    # torchrun in a task of Slurm
    assert find_place({**TORCHRUN, **SLURM}).address == "env://"


def test_find_place__slurm(scontrol):
    assert find_place(SLURM) == Place(3, 4, 1, 1, "tcp://node7:41002")
    assert scontrol.with_name("scontrol.log").read_text().split() == [
        "show", "hostnames", "node[7-8]",
    ]  # fmt: skip


def test_choose_options__slurm_that_cannot_be_asked(scontrol):
    scontrol.write_text("#!/bin/sh\nexit 1\n")
    place = find_place(SLURM)
    with pytest.raises(ValueError, match=r"give distributed_training.distributed_init_method=tcp"):
        choose_options(place, set(), on_cpu=True)
    given = {"distributed_training.distributed_init_method"}
    assert "distributed_training.distributed_rank=3" in choose_options(place, given, on_cpu=True)


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_NTASKS": "8"}, {"SLURM_STEP_NUM_TASKS": "1"}],
)
def test_find_place__one_process(environment):
    assert find_place(environment) == Place()
    assert choose_options(find_place(environment), set(), on_cpu=True) == []


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "start the processes with torchrun or srun"),
        ({"WORLD_SIZE": "2"}, "RANK is not set"),
    ],
)
def test_find_place__refuses_others(environment, problem):
    with pytest.raises(ValueError, match=problem):
        find_place(environment)


def test_choose_options__on_cpus():
    options = choose_options(
        find_place(TORCHRUN), {"distributed_training.distributed_backend"}, on_cpu=True
    )
    assert [option.partition(".")[2] for option in options] == [
        "distributed_world_size=16", "distributed_rank=9", "distributed_init_method=env://",
        "distributed_no_spawn=true", "device_id=0", "ddp_backend=legacy_ddp",
    ]  # fmt: skip


@pytest.mark.parametrize(("visible", "device"), [(8, 1), (1, 0)])
def test_choose_options__takes_the_gpu_of_the_task(monkeypatch, visible, device):
    monkeypatch.setattr("torch.cuda.device_count", lambda: visible)
    options = choose_options(find_place(TORCHRUN), set(), on_cpu=False)
    assert options[-1] == f"distributed_training.device_id={device}"
    assert not any("backend" in option for option in options)
