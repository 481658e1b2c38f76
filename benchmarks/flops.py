"""FLOPs of pre-training, and what they cost: `python -m benchmarks.flops` prints tables."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel
from eat_plugin.models.flops import TEACHER, count_flops
from eat_plugin.options import patch_sides

from .launching import say
from .timing import PEAKS
from .training import FRAMES, MEL_BINS, load_config

PRECISIONS = {"bf16": 2, "float32": 4}  # bytes per value
BATCHES = (12, 48)  # clips
CLIPS = 400_000 * 48  # of the published pre-training on AS-2M: updates x clips
# Goals per GPU, in clips/s.
RATES = {"base": (160.0, 230.0, 300.0), "large": ()}
DEVICE = "H200"
GPUS_A_NODE = 8
NVLINK = 450e9  # bytes/s from an H100 or H200 to the others of its node
# Bytes/s from a node to the others.
LINKS = {
    "100 Gb/s": 12.5e9, "200 Gb/s": 25e9, "400 Gb/s": 50e9, "8 x 400 Gb/s": 400e9,
}  # fmt: skip
BUCKET = 25 * 2**20  # bytes per all-reduce of DDP
LATENCY = 10e-6  # seconds per step of a ring, an assumption
MOST_NODES = 1000


def count_trained(cfg: EatConfig) -> int:
    """Count the trained parameters."""
    with torch.device("meta"):  # allocates nothing
        model = EatModel(cfg)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def all_reduce_seconds(size: float, gpus: int, bandwidth: float) -> float:
    """Time of a ring all-reduce of ``size`` bytes: each of n GPUs sends ``2 (n - 1) / n`` of them.

    The bandwidth is that of the slowest link of the ring, in bytes/s.
    """
    steps = 2 * (gpus - 1)
    return steps * (size / gpus / bandwidth + math.ceil(size / BUCKET) * LATENCY)


def most_nodes(size: float, bandwidth: float, seconds: float) -> int:
    """Count the nodes whose all-reduce takes at most ``seconds``, up to ``MOST_NODES``."""
    for nodes in range(2, MOST_NODES + 1):
        if all_reduce_seconds(size, GPUS_A_NODE * nodes, bandwidth) > seconds:
            return nodes - 1
    return MOST_NODES


Table = Iterator[Sequence[str]]


class Paper:
    """The tables of a published size for clips of 10 s. The first row is the heading.

    Args:
        size: ``base`` or ``large``.
    """

    def __init__(self, size: str) -> None:
        cfg: Any = load_config(size).model
        frames, bins = patch_sides(cfg.modalities.image.patch_size)
        self.parts = count_flops(cfg, (FRAMES // frames, MEL_BINS // bins))
        self.forward, self.backward = (sum(column) for column in zip(*self.parts.values()))
        self.flops, self.trained = self.forward + self.backward, count_trained(cfg)

    def counts(self) -> Table:
        """FLOPs of a clip."""
        teacher, _ = self.parts[TEACHER]
        rows = {
            **{name: sum(pair) for name, pair in self.parts.items() if name != TEACHER},
            "student and decoder, forward": self.forward - teacher,
            "student and decoder, backward": self.backward,
            "teacher, forward": teacher,
            "all": self.flops,
        }
        yield "one clip in one update", "GFLOP"
        yield from ((name, f"{flops / 1e9:.1f}") for name, flops in rows.items())

    def hours(self, rates: Sequence[float]) -> Table:
        """Cost of pre-training on AS-2M."""
        yield "clips/s of a GPU", "GPU-hours", f"FLOPs, of the peak of an {DEVICE}"
        for rate in rates:
            share = rate * self.flops / PEAKS[DEVICE]
            yield f"{rate:g}", f"{CLIPS / rate / 3600:.1f}", f"{100 * share:.0f} %"

    def gradients(self) -> Table:
        """Bytes that each GPU sends in an update."""
        counts = (2, 8, 16, 128)
        yield "gradients", "MB", *(f"MB sent, {n} GPUs" for n in counts), "ms in a node (NVLink)"
        for name, width in PRECISIONS.items():
            size = width * self.trained
            sent = [f"{2 * (n - 1) / n * size / 1e6:.0f}" for n in counts]
            seconds = all_reduce_seconds(size, GPUS_A_NODE, NVLINK)
            yield name, f"{size / 1e6:.0f}", *sent, f"{1e3 * seconds:.1f}"

    def links(self, rates: Sequence[float]) -> Table:
        """Number of nodes whose all-reduce is hidden behind the backward pass."""
        updates = [(batch, rate) for batch in BATCHES for rate in rates]
        yield (
            "link of a node", "gradients", "ms, 2 nodes", "ms, 16 nodes",
            *(f"nodes: {batch} clips, {rate:g}/s" for batch, rate in updates),
        )  # fmt: skip
        backward = [self.backward / self.flops * batch / rate for batch, rate in updates]
        yield "*backward pass, ms*", "", "", "", *(f"{1e3 * seconds:.1f}" for seconds in backward)
        for name, bandwidth in LINKS.items():
            for precision, width in PRECISIONS.items():
                size = width * self.trained
                times = [all_reduce_seconds(size, GPUS_A_NODE * n, bandwidth) for n in (2, 16)]
                nodes = [most_nodes(size, bandwidth, seconds) for seconds in backward]
                yield name, precision, *(f"{1e3 * t:.1f}" for t in times), *map(str, nodes)


def loader(times: Sequence[tuple[str, float]], rates: Sequence[float]) -> Table:
    """Cores that feed a GPU, from names of formats with their ms per clip."""
    yield "clips/s of a GPU", *(name for name, _ in times)
    for rate in rates:
        yield f"{rate:g}", *(f"{rate * ms / 1000:.2f}" for _, ms in times)


def _parse_time(text: str) -> tuple[str, float]:
    name, _, milliseconds = text.rpartition("=")
    return name, float(milliseconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flops", description=__doc__)
    parser.add_argument("--size", choices=sorted(RATES), default="base", help="size of the model")
    parser.add_argument(
        "--rates",
        metavar="N",
        type=float,
        nargs="+",
        help="clips/s of a GPU (default: the goals of base)",
    )
    parser.add_argument(
        "--loader", metavar="NAME=MS", type=_parse_time, nargs="+", default=[],
        help="formats of files, and the ms of one core per clip",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    paper, rates = Paper(args.size), args.rates or RATES[args.size]
    tables = [paper.counts(), paper.gradients()]
    if rates:
        tables += [paper.hours(rates), paper.links(rates)]
    if args.loader:
        tables.append(loader(args.loader, rates))
    for heading, *rows in tables:
        lines = [heading, ["---"] * len(heading), *rows]
        say("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
