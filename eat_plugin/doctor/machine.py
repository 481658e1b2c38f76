"""The machine: GPUs, driver, CUDA, NCCL, cores, shared memory, open files."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from ..prepare.amounts import count, describe_bytes
from ..prepare.processes import available_cores
from .finding import ERROR, MACHINE, OK, WARNING, Finding
from .software import Version, parse_version

SHARED = "/dev/shm"
# Oldest driver of a CUDA version, on Linux (table of minor version compatibility, NVIDIA).
DRIVERS = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
WITH_BF16 = (8, 0)  # compute capability; flash attention needs it too
PREFETCHED = 2  # batches per data worker, PyTorch's default
FEW_FILES = 1024  # the usual limit, at which workers fail now and then
FILES_A_BATCH, FILES_A_WORKER, FILES_OF_A_RUN = 8, 4, 200  # tensors, pipes, libraries and logs
RAISE_LIMIT = "ulimit -n 65536 in the same shell"


class Gpu(NamedTuple):
    """A GPU that PyTorch sees: name, compute capability, bytes of memory."""

    name: str
    capability: tuple[int, int]
    memory: int


class Machine(NamedTuple):
    """What a run has at its disposal.

    Attributes:
        cores: that this process may use.
        threads: of PyTorch in a process.
        shared: free bytes of shared memory; None if there is none.
        files: limit of open files.
        gpus: that PyTorch sees.
        listed: names of those that the driver lists.
        driver: version of NVIDIA's driver; empty without.
        visible: ``CUDA_VISIBLE_DEVICES``; None if it is not set.
        cuda: version that PyTorch was built for; empty for a build without.
        architectures: that PyTorch was built for, as ``sm_90`` and ``compute_90``.
        nccl: whether PyTorch has it.
        memory: available bytes of main memory; None if unknown.
    """

    cores: int
    threads: int
    shared: int | None
    files: int
    gpus: tuple[Gpu, ...] = ()
    listed: tuple[str, ...] = ()
    driver: str = ""
    visible: str | None = None
    cuda: str = ""
    architectures: tuple[str, ...] = ()
    nccl: bool = True
    memory: int | None = None


class Load(NamedTuple):
    """What a run asks of a machine.

    Attributes:
        processes: on this machine.
        workers: data workers per process.
        threads: of the model in a process; 0 on a GPU.
        batch: bytes of a batch.
    """

    processes: int
    workers: int
    threads: int
    batch: float


def read_machine() -> Machine:
    """Read the properties of this machine."""
    import torch

    listed, driver = _ask_driver()
    gpus: tuple[Gpu, ...] = ()
    if torch.cuda.is_available():
        gpus = tuple(map(_read_gpu, range(torch.cuda.device_count())))
    is_distributed = torch.distributed.is_available()
    return Machine(
        cores=available_cores(),
        threads=torch.get_num_threads(),
        shared=free_bytes(SHARED) if os.path.isdir(SHARED) else None,
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        gpus=gpus,
        listed=listed,
        driver=driver,
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        cuda=torch.version.cuda or "",
        architectures=tuple(torch.cuda.get_arch_list()) if gpus else (),
        nccl=is_distributed and torch.distributed.is_nccl_available(),
        memory=_read_memory(),
    )


def free_bytes(folder: str) -> int:
    """Return the free bytes of a folder's file system."""
    return shutil.disk_usage(folder).free


def _read_memory() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.M)
    return None if found is None else 1024 * int(found[1])


def _read_gpu(number: int) -> Gpu:
    import torch

    found: Any = torch.cuda.get_device_properties(number)
    return Gpu(found.name, (found.major, found.minor), found.total_memory)


def _ask_driver() -> tuple[tuple[str, ...], str]:
    """Return the names of the GPUs and the version of the driver, by ``nvidia-smi``."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return (), ""
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line]
    return tuple(name.strip() for name, _, _ in rows), rows[0][2].strip() if rows else ""


def check_machine(machine: Machine) -> list[Finding]:
    """Check the GPUs and limits; what a run asks of them: ``check_load``."""
    findings = _check_gpus(machine) if machine.gpus or machine.listed else []
    if not findings:
        seen = "there is no GPU: training runs on the CPU in float32, for which size=tiny is made"
        findings = [Finding(MACHINE, OK, seen)]
    if len(machine.gpus) > 1 and not machine.nccl:
        seen = f"PyTorch has no NCCL, by which the {len(machine.gpus)} GPUs exchange gradients"
        findings.append(Finding(MACHINE, ERROR, seen, "install PyTorch's build for CUDA"))
    return findings


def _check_gpus(machine: Machine) -> list[Finding]:
    problem = _find_driver_problem(machine)
    if problem is not None:
        return [problem]
    findings = []
    for gpu in dict.fromkeys(machine.gpus):
        name = f"{machine.gpus.count(gpu)} x {gpu.name} ({describe_bytes(gpu.memory)})"
        if not _runs_on(machine.architectures, gpu.capability):
            built = ", ".join(machine.architectures)
            seen = f"{name}: PyTorch has no kernels for sm_{_join(gpu.capability)}, only {built}"
            fix = "install a PyTorch that is built for this GPU, see pytorch.org"
            findings.append(Finding(MACHINE, ERROR, seen, fix))
        elif gpu.capability < WITH_BF16:
            seen = f"{name}: neither bfloat16 nor flash attention"
            fix = "common.fp16=true (eat pretrain chooses it); watch the loss scale"
            findings.append(Finding(MACHINE, WARNING, seen, fix))
        else:
            versions = f"CUDA {machine.cuda}, driver {machine.driver or 'unknown'}"
            seen = f"{name}: bfloat16, flash attention, {versions}"
            findings.append(Finding(MACHINE, OK, seen))
    return findings


def _find_driver_problem(machine: Machine) -> Finding | None:
    """Say why PyTorch does not see the GPUs, if it does not."""
    oldest: Version = DRIVERS.get((parse_version(machine.cuda) or (0,))[0], ())
    names = f"the machine has {count(len(machine.listed), 'GPU')}"
    if machine.listed and not machine.cuda:
        seen = f"{names} ({machine.listed[0]}), but this PyTorch is a build for CPUs"
        return Finding(MACHINE, ERROR, seen, "install PyTorch's build for CUDA, see pytorch.org")
    if machine.driver and parse_version(machine.driver)[:2] < oldest:
        seen = f"driver {machine.driver} is too old for PyTorch's CUDA {machine.cuda}"
        fix = f"a driver from {_join(oldest, '.')} on, or a PyTorch that is built for an older CUDA"
        return Finding(MACHINE, ERROR, seen, fix)
    if machine.gpus:
        return None
    if machine.visible is not None:
        seen = f"{names}, of which CUDA_VISIBLE_DEVICES={machine.visible!r} shows none"
        return Finding(MACHINE, WARNING, seen, "unset CUDA_VISIBLE_DEVICES, or list GPUs in it")
    seen = f"{names}, but PyTorch cannot use it (CUDA {machine.cuda}, driver {machine.driver})"
    return Finding(MACHINE, ERROR, seen, "python -c 'import torch; torch.cuda.init()' says why")


def _runs_on(architectures: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether one of PyTorch's builds runs on a GPU: binaries within a major version, PTX later."""
    for name in architectures:
        found = re.match(r"(sm|compute)_(\d+)(\d)", name)
        if found is None:  # another maker's
            return True
        built = (int(found[2]), int(found[3]))
        if built <= capability and (found[1] == "compute" or built[0] == capability[0]):
            return True
    return not architectures


def _join(version: tuple[int, ...], mark: str = "") -> str:
    return mark.join(map(str, version))


def check_load(machine: Machine, load: Load) -> list[Finding]:
    """Compare data workers and threads of a run with cores, shared memory and open files."""
    cores = _check_cores(machine, load)
    return [cores, *_check_shared(machine, load), _check_files(machine, load)]


def _check_cores(machine: Machine, load: Load) -> Finding:
    workers, threads = (load.processes * each for each in (load.workers, load.threads))
    cores = count(machine.cores, "core")
    processes = count(load.processes, "process")
    if workers > machine.cores:
        seen = f"{workers} data workers ({load.workers} in {processes}) on {cores}"
        least = max(1, machine.cores // load.processes - 1)
        return Finding(MACHINE, WARNING, seen, f"dataset.num_workers={least}")
    if threads > machine.cores:
        seen = f"{threads} threads of the model ({load.threads} in {processes}) on {cores}"
        fix = f"OMP_NUM_THREADS={max(1, machine.cores // load.processes)}"
        return Finding(MACHINE, WARNING, seen, fix)
    model = f", {count(threads, 'thread')} of the model" if threads else ""
    return Finding(MACHINE, OK, f"{cores}: {count(workers, 'data worker')}{model}")


def _check_shared(machine: Machine, load: Load) -> list[Finding]:
    """Data workers pass batches through shared memory, ``PREFETCHED`` each."""
    needed = load.processes * load.workers * PREFETCHED * load.batch
    if machine.shared is None or not needed:
        return []
    free, words = describe_bytes(machine.shared), describe_bytes(needed)
    seen = f"{SHARED} has {free} free, data workers need {words}"
    if needed <= machine.shared:
        return [Finding(MACHINE, OK, seen)]
    gigabytes = max(1, round(2 * needed / 1e9))
    fix = f"docker run --shm-size={gigabytes}g, or fewer dataset.num_workers"
    return [Finding(MACHINE, ERROR, seen, fix)]


def _check_files(machine: Machine, load: Load) -> Finding:
    """A process holds open what its workers have sent: a file per tensor."""
    per_worker = PREFETCHED * FILES_A_BATCH + FILES_A_WORKER
    needed = FILES_OF_A_RUN + load.workers * per_worker
    seen = f"at most {machine.files} files may be open, {needed} are needed"
    if machine.files < needed:
        return Finding(MACHINE, ERROR, seen, RAISE_LIMIT)
    if machine.files < FEW_FILES:
        return Finding(MACHINE, WARNING, seen, RAISE_LIMIT)
    return Finding(MACHINE, OK, seen)
