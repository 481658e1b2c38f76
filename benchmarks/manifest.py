"""Start-up time and memory with millions of clips. Linux only.

    python -m benchmarks.manifest

1. A manifest of 2,000,000 clips (--lines) in its own process: the task reads it, shuffles an epoch
   and makes its batches. Prints seconds, and the increase of peak memory.
2. A manifest of 100,000 existing clips (--clips), links to one short file: three epochs with two
   data workers. Prints the private memory of each worker after each epoch.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from fairseq.tasks import setup_task
from omegaconf import OmegaConf

import eat_plugin  # noqa: F401, registers the tasks
from eat_plugin.tasks.pretraining import PretrainingConfig

from .launching import make_parser, say

RATE = 16_000  # Hz
WORKERS = 2
EPOCHS = 3


def main() -> int:
    """Measure both."""
    parser = make_parser(__doc__)
    parser.add_argument("--lines", type=int, default=2_000_000, metavar="N")
    parser.add_argument("--clips", type=int, default=100_000, metavar="N")
    parser.add_argument("--only", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        PARTS[args.only](args)
        return 0
    numbers = ["--lines", str(args.lines), "--clips", str(args.clips)]
    for part in PARTS:  # each in its own process, with its own peak of memory
        command = [sys.executable, "-m", "benchmarks.manifest", "--only", part, *numbers]
        subprocess.run(command, check=True)
    return 0


def measure_start(args: argparse.Namespace) -> None:
    """Measure the start with a long manifest."""
    with tempfile.TemporaryDirectory() as folder:
        with open(Path(folder) / "train.tsv", "w", encoding="utf-8") as file:
            file.write(f"{folder}\n")
            for number in range(args.lines):
                name = f"audio/{number // 1000:04d}/clip-{number:08d}_30000_40000.flac"
                file.write(f"{name}\t{320_000 + number % 7}\n")
        task = make_task(folder, target_length=1024)
        before, began = resident(), time.monotonic()
        task.load_dataset("train")
        read = time.monotonic() - began
        iterator = batches_of(task, batch_size=12, workers=0)
        iterator.next_epoch_itr(shuffle=True)
        whole = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        say(
            f"{args.lines} clips: read in {read:.1f} s, first epoch ready after {whole:.1f} s; "
            f"peak {peak:.0f} MiB above the {before:.0f} MiB before"
        )


def measure_workers(args: argparse.Namespace) -> None:
    """Measure the memory of data workers over several epochs."""
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "clip.wav"
        rng = np.random.default_rng(0)
        soundfile.write(first, rng.uniform(-0.5, 0.5, RATE // 5), RATE)
        with open(Path(folder) / "train.tsv", "w", encoding="utf-8") as file:
            file.write(f"{folder}\n")
            for number in range(args.clips):
                name = f"{number:08d}.wav"
                (Path(folder) / name).symlink_to(first)
                file.write(f"{name}\t{RATE // 5}\n")
        task = make_task(folder, target_length=16)
        task.load_dataset("train")
        iterator = batches_of(task, batch_size=64, workers=WORKERS)
        say(f"{args.clips} clips, {WORKERS} workers: MiB per worker after each epoch")
        for epoch in range(1, EPOCHS + 1):
            seen = 0
            for batch in iterator.next_epoch_itr(shuffle=True):
                seen += len(batch["id"])
                if seen == args.clips:  # the workers still run
                    own = ", ".join(f"{private(pid):.0f}" for pid in workers())
                    say(f"  epoch {epoch}: {own}; this process {private(os.getpid()):.0f}")


PARTS = {"start": measure_start, "workers": measure_workers}


def make_task(folder: str, target_length: int) -> Any:
    """Set up pre-training on a folder."""
    cfg = OmegaConf.structured(PretrainingConfig)
    cfg.data, cfg.target_length, cfg.seed = folder, target_length, 1
    return setup_task(OmegaConf.merge(cfg, {"_name": "eat_pretraining"}))


def batches_of(task: Any, batch_size: int, workers: int) -> Any:
    """Make fairseq's iterator over the epochs."""
    return task.get_batch_iterator(
        task.dataset("train"), max_sentences=batch_size, seed=1, num_workers=workers
    )


def resident() -> float:
    """Return the resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def private(pid: int) -> float:
    """Return the private memory of a process, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def workers() -> list[int]:
    """Return the process ids of the data workers."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    found = [int(pid) for pid in children.read_text().split()]
    return [pid for pid in found if b"spawn_main" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
