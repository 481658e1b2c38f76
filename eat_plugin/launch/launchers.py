"""The processes of a run that torchrun or srun has started: one ``eat`` per process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

FIRST_PORT, PORTS = 10000, 50000
MPI = "OMPI_COMM_WORLD_SIZE"
MEETING = "distributed_training.distributed_init_method"


class Place(NamedTuple):
    """The place of this process among those of a run.

    Attributes:
        rank: from 0, over all machines.
        processes: of the run.
        local_rank: from 0, on this machine.
        on_this_machine: processes that share its cores; 1 if each has cores of its own.
        address: where the processes meet, as PyTorch takes it.
    """

    rank: int = 0
    processes: int = 1
    local_rank: int = 0
    on_this_machine: int = 1
    address: str = ""


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read the variables that torchrun or srun has set; without, there is one process.

    Raises:
        ValueError: another launcher has started the process, or a variable is missing.
    """
    try:
        if int(environment.get("WORLD_SIZE") or 1) > 1:
            rank, processes, local, here = (
                int(environment[name])
                for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
            )
            return Place(rank, processes, local, here, "env://")
        if int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1:
            rank, processes, local = (
                int(environment[name])
                for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
            )
            return Place(rank, processes, local, 1, _meeting(environment))
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is not set; start with torchrun or srun") from error
    if int(environment.get(MPI) or 1) > 1:
        raise ValueError(f"{MPI}={environment[MPI]}: start the processes with torchrun or srun")
    return Place()


def _meeting(environment: Mapping[str, str]) -> str:
    """Return an address on the first machine of a Slurm step; each step has its own port.

    Empty if Slurm cannot be asked, as in a container.
    """
    command = ["scontrol", "show", "hostnames", environment["SLURM_STEP_NODELIST"]]
    try:
        hosts = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return ""
    step = 31 * int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"])
    return f"tcp://{hosts[0]}:{FIRST_PORT + step % PORTS}"


def choose_options(place: Place, given: set[str], on_cpu: bool) -> list[str]:
    """Return fairseq's options for a process of several; none for the only one.

    Args:
        place: of this process.
        given: options of the user, which stay.
        on_cpu: train without GPUs: processes are connected by gloo.

    Raises:
        ValueError: the processes do not know where to meet.
    """
    if place.processes == 1:
        return []
    if not place.address and MEETING not in given:
        raise ValueError(
            "scontrol, which names the first machine of the Slurm step, cannot be run here; give "
            f"{MEETING}=tcp://HOST:PORT"
        )
    device = 0
    if not on_cpu:
        import torch

        device = place.local_rank % torch.cuda.device_count()  # srun may show each its own alone
    options = {
        "distributed_world_size": place.processes, "distributed_rank": place.rank,
        "distributed_init_method": place.address, "distributed_no_spawn": "true",
        "device_id": device,
    }  # fmt: skip
    if on_cpu:
        options.update(distributed_backend="gloo", ddp_backend="legacy_ddp")
    named = {f"distributed_training.{name}": value for name, value in options.items()}
    return [f"{name}={value}" for name, value in named.items() if name not in given]
