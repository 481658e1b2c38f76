"""Millions of clips: how soon a run starts, and what its processes hold. Linux alone.

    .venv/bin/python benchmarks/manifest.py

1. A manifest of 2,000,000 clips (--lines), in a process of its own: reading it, the order of an
   epoch and its batches, through the task as in training. Seconds, and the peak of memory beyond
   what the process held before.
2. A manifest of 100,000 clips (--clips) that are there, links to one short file: three epochs
   with two data workers. What each worker holds alone, shared memory left out, after each epoch.
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RATE = 16_000  # Hz
WORKERS = 2
EPOCHS = 3


def main() -> int:
    """Measure both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=2_000_000, metavar="N")
    parser.add_argument("--clips", type=int, default=100_000, metavar="N")
    parser.add_argument("--only", choices=tuple(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        PARTS[args.only](args)
        return 0
    for part in PARTS:  # each in a process of its own, whose peak is its own
        own = [sys.executable, __file__, "--only", part]
        subprocess.run(
            [*own, "--lines", str(args.lines), "--clips", str(args.clips)], check=True
        )
    return 0


def measure_start(args: argparse.Namespace) -> None:
    """Start on a manifest of very many clips."""
    with tempfile.TemporaryDirectory() as folder:
        with open(Path(folder) / "train.tsv", "w", encoding="utf-8") as file:
            file.write(f"{folder}\n")
            for number in range(args.lines):
                name = f"audio/{number // 1000:04d}/clip-{number:08d}_30000_40000.flac"
                file.write(f"{name}\t{320_000 + number % 7}\n")
        task = make_task(folder, target_length=1024)
        before, began = held(), time.monotonic()
        task.load_dataset("train")
        read = time.monotonic() - began
        iterator = batches_of(task, batch_size=12, workers=0)
        iterator.next_epoch_itr(shuffle=True)
        whole = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        say(
            f"{args.lines} clips: read in {read:.1f} s, the first epoch laid out after "
            f"{whole:.1f} s; peak {peak:.0f} MiB beyond the {before:.0f} MiB before"
        )


def measure_workers(args: argparse.Namespace) -> None:
    """Take data workers through several epochs."""
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "clip.wav"
        rng = np.random.default_rng(0)
        soundfile.write(first, rng.uniform(-0.5, 0.5, RATE // 5), RATE)
        with open(Path(folder) / "train.tsv", "w", encoding="utf-8") as file:
            file.write(f"{folder}\n")
            for number in range(args.clips):
                name = f"{number:08d}.wav"
                link(first, Path(folder) / name)
                file.write(f"{name}\t{RATE // 5}\n")
        task = make_task(folder, target_length=16)
        task.load_dataset("train")
        iterator = batches_of(task, batch_size=64, workers=WORKERS)
        say(f"{args.clips} clips, {WORKERS} workers: MiB of each after each epoch")
        for epoch in range(1, EPOCHS + 1):
            seen = 0
            for batch in iterator.next_epoch_itr(shuffle=True):
                seen += len(batch["id"])
                if seen == args.clips:  # the workers are still there
                    own = ", ".join(f"{private(pid):.0f}" for pid in workers())
                    say(f"  epoch {epoch}: {own}; this process {private(os.getpid()):.0f}")


PARTS = {"start": measure_start, "workers": measure_workers}


def make_task(folder: str, target_length: int) -> Any:
    """Set up pre-training on a folder."""
    from fairseq.tasks import setup_task
    from omegaconf import OmegaConf

    import eat_plugin  # noqa: F401, registers the tasks
    from eat_plugin.tasks.pretraining import PretrainingConfig

    cfg = OmegaConf.structured(PretrainingConfig)
    cfg.data, cfg.target_length, cfg.seed = folder, target_length, 1
    return setup_task(OmegaConf.merge(cfg, {"_name": "eat_pretraining"}))


def batches_of(task: Any, batch_size: int, workers: int) -> Any:
    """Make fairseq's iterator over the epochs."""
    return task.get_batch_iterator(
        task.dataset("train"), max_sentences=batch_size, seed=1, num_workers=workers
    )


def link(source: Path, name: Path) -> None:
    """Give a file another name, which costs no space."""
    try:
        os.link(source, name)
    except OSError:  # file systems limit the number of links
        name.symlink_to(source)


def held() -> float:
    """Return the memory that this process holds, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def private(pid: int) -> float:
    """Return the memory that a process shares with no other, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def workers() -> list[int]:
    """Return the data workers of this process."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    found = [int(pid) for pid in children.read_text().split()]
    return [pid for pid in found if b"spawn_main" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
