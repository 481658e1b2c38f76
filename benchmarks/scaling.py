"""What a large pre-training costs, and what limits it: `python -m benchmarks.scaling`.

The first table is arithmetic: hours of GPUs, bytes on disk, and bytes that a GPU reads per second.
The others simulate updates: data workers prepare batches ahead, each GPU computes when it has one,
and all wait for the slowest and for what backward does not hide of the all-reduce. Clips take a
random time to load, and in the last table some batches wait for a slow disk.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .flops import GPUS_A_NODE, LINKS, PRECISIONS, Paper, all_reduce_seconds
from .launching import say

CLIP = 10.0  # seconds
SETS = {"AS-2M": 2_000_000 * CLIP / 3600, "1 million hours": 1e6}  # hours
EPOCHS = 10  # as published for AS-2M
PREFETCH = 2  # batches that a worker prepares ahead, PyTorch's default
MOST_WORKERS = 10  # per GPU, the default of the recipes
LATE = ((0.001, 1.0), (0.01, 1.0))  # share of batches, and seconds
UPDATES = 1000
SPREAD = 0.5  # deviation of the time to load a clip, of its mean; an assumption


class Format(NamedTuple):
    """A format of files: milliseconds of one core, and kB, of a clip of 10 s."""

    name: str
    milliseconds: float
    kilobytes: float


class Machine(NamedTuple):
    """What the simulated updates run on.

    Attributes:
        gpus: in all.
        batch: clips per GPU and update.
        rate: clips/s of a GPU that waits for nothing.
        exposed: seconds of the all-reduce that backward does not hide.
        load: mean seconds of a data worker for a clip.
        workers: per GPU.
        stall: share of batches that wait for a slow disk, and seconds that they wait.
    """

    gpus: int
    batch: int
    rate: float
    exposed: float
    load: float
    workers: int
    stall: tuple[float, float] = (0.0, 0.0)


def simulate(machine: Machine, updates: int = UPDATES, seed: int = 0) -> float:
    """Return the clips/s of a GPU, of so many updates after the first."""
    rng = np.random.default_rng(seed)
    gpus, workers = machine.gpus, machine.workers
    busy = np.zeros((workers, gpus))  # when each worker has finished its last batch
    taken = np.zeros((PREFETCH * workers, gpus))  # when each of the last batches was taken
    compute, now, first = machine.batch / machine.rate, np.zeros(gpus), 0.0
    share, delay = machine.stall
    for update in range(updates + 1):
        worker, slot = update % workers, update % len(taken)
        # The sum of independent times of clips, nearly normal.
        mean = machine.batch * machine.load
        seconds = rng.normal(mean, machine.load * SPREAD * machine.batch**0.5, gpus).clip(mean / 4)
        seconds += delay * (rng.random(gpus) < share)
        # A worker starts when it is free and the batch before last of its own has been taken.
        busy[worker] = np.maximum(busy[worker], taken[slot]) + seconds
        begun = np.maximum(now, busy[worker])
        taken[slot] = begun
        now[:] = begun.max() + compute + machine.exposed
        first = float(now[0]) if update == 0 else first
    return updates * machine.batch / (float(now[0]) - first)


def sizes(formats: Sequence[Format], rates: Sequence[float]) -> Iterator[Sequence[str]]:
    """Hours of GPUs and bytes of sets of clips of 10 s; the first row is the heading."""
    yield (
        "set", f"GPU-hours of {EPOCHS} epochs at {', '.join(f'{r:g}' for r in rates)} clips/s",
        *(f"TB, {one.name}" for one in formats),
    )  # fmt: skip
    for name, hours in SETS.items():
        clips = hours * 3600 / CLIP
        cost = ", ".join(f"{EPOCHS * clips / rate / 3600:,.0f}" for rate in rates)
        yield name, cost, *(f"{clips * one.kilobytes / 1e9:,.1f}" for one in formats)
    for rate in rates:
        read = (f"{rate * one.kilobytes / 1e3:.1f} MB/s" for one in formats)
        yield f"*a GPU reads, {rate:g} clips/s*", "", *read


def network(load: float, rates: Sequence[float], batches: Sequence[int]) -> Iterator[Sequence[str]]:
    """Simulated clips/s of a GPU by nodes and links, in percent of one that waits for nothing."""
    paper = Paper("base")
    size, backward = PRECISIONS["bf16"] * paper.trained, paper.backward / paper.flops
    updates = [(batch, rate) for batch in batches for rate in rates]
    yield "nodes", "link", *(f"{batch} clips, {rate:g}/s" for batch, rate in updates)
    for nodes in (2, 16):
        for link, bandwidth in LINKS.items():
            gpus, shares = nodes * GPUS_A_NODE, []
            for batch, rate in updates:
                exposed = all_reduce_seconds(size, gpus, bandwidth) - backward * batch / rate
                machine = Machine(gpus, batch, rate, max(0.0, exposed), load, MOST_WORKERS)
                shares.append(f"{100 * simulate(machine) / rate:.0f}")
            yield f"{nodes}", link, *shares


def stalls(load: float, rate: float, batch: int) -> Iterator[Sequence[str]]:
    """Simulated clips/s of a GPU if some batches come late, in percent; by workers of a GPU."""
    workers = (2, 4, MOST_WORKERS)
    yield "GPUs", "late batches", *(f"{count} workers" for count in workers)
    for gpus in (1, 8, 128):
        for share, delay in LATE:
            shares = (
                simulate(Machine(gpus, batch, rate, 0.0, load, count, (share, delay))) / rate
                for count in workers
            )
            late = f"{share:.1%} by {delay:g} s"
            yield f"{gpus}", late, *(f"{100 * found:.0f}" for found in shares)


def parse_format(text: str) -> Format:
    """Parse ``NAME=MS,KB``."""
    name, _, numbers = text.partition("=")
    milliseconds, _, kilobytes = numbers.partition(",")
    return Format(name, float(milliseconds), float(kilobytes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument(
        "--formats", metavar="NAME=MS,KB", type=parse_format, nargs="+", required=True,
        help="formats of files, ms of one core and kB of a clip",
    )  # fmt: skip
    parser.add_argument("--rates", metavar="N", type=float, nargs="+", default=[160.0, 300.0])
    parser.add_argument(
        "--batches", metavar="N", type=int, nargs="+", default=[12, 48], help="clips of a GPU"
    )
    args = parser.parse_args(arguments)
    load = args.formats[0].milliseconds / 1e3
    for heading, *rows in (
        sizes(args.formats, args.rates),
        network(load, args.rates, args.batches),
        stalls(load, args.rates[-1], args.batches[0]),
    ):
        lines = [heading, ["---"] * len(heading), *rows]
        say("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
