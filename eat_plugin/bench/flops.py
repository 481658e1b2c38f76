"""The arithmetic of pre-training on paper: FLOPs, bytes, and what they cost.

``python -m eat_plugin.bench.flops`` prints the tables of ``docs/performance.md``.

In this file:
    update_flops        FLOPs of one clip in one update
    Stage, stages       FLOPs and bytes of the parts of an update
    count_parameters    how many are trained, how many averaged
    published_config    the model's configuration of a published size
    Paper               the tables of a size
    main                prints them
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf

from ..models.config import EatConfig
from ..models.eat import EatModel
from .limits import (
    DEVICES,
    GPUS_A_NODE,
    H200,
    LINKS,
    NVLINK,
    Device,
    all_reduce_seconds,
    most_nodes,
)
from .operations import EAGER, FUSED, TEACHER, Costs, Operation, list_operations
from .training import FRAMES, MEL_BINS, SIZES, make_model

TABLES = ("counts", "stages", "bounds", "hours", "gradients", "links", "loader")
HALF, SINGLE = 2, 4  # bytes of a value
BATCHES = (12, 48)
CLIPS = 400_000 * 48  # of the published pre-training on AS-2M: updates, clips of each
# Of one GPU, in clips a second: the goals of base.
RATES = {"base": (280.0, 355.0, 440.0), "large": ()}
WIDTHS = {
    "base": SIZES["base"],
    "large": {"depth": 24, "embed_dim": 1024, "num_heads": 16, "average_top_k_layers": 24},
}
IMAGE_OPTIONS: dict[str, dict[str, Any]] = {
    "base": {},
    "large": {
        "mask_prob": 0.75, "mask_prob_adjust": 0.1,
        "decoder": {"decoder_layers": 3, "decoder_kernel": 5},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A part of an update.

    Attributes:
        name: of the part.
        flops: of an update.
        bytes: moved in an update.
        operations: whose sums these are.
    """

    name: str
    flops: float
    bytes: float
    operations: tuple[Operation, ...]

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes


def update_flops(cfg: EatConfig, grid: tuple[int, int]) -> float:
    """Count the FLOPs of one clip in one update.

    Matrix products and convolutions count, two FLOPs a multiply-add: of the student over all clones
    forward and backward, of the teacher forward. A backward pass has twice the FLOPs of the forward
    pass, but for the patch embedding: a spectrogram needs no gradient. What the backward pass
    computes again (attention weights, ``model.recompute``) does not count.

    Args:
        cfg: the model.
        grid: (time, mel) size of the clip's patch grid.
    """
    return sum(operation.flops for operation in list_operations(cfg, grid, 1, HALF))


def stages(
    cfg: EatConfig,
    grid: tuple[int, int],
    batch: int,
    bytes_per_value: int,
    costs: Costs = EAGER,
) -> list[Stage]:
    """Add up the operations of an update, stage by stage.

    What is assumed of them: see ``operations.list_operations``.

    Args:
        cfg: the model.
        grid: (time, mel) size of a clip's patch grid.
        batch: clips of an update.
        bytes_per_value: of parameters and activations: 2 for bf16 and fp16, 4 for float32.
        costs: of chains of operations, ``EAGER`` or ``FUSED``.
    """
    parts: dict[str, list[Operation]] = {}
    sizes = count_parameters(cfg)
    for operation in list_operations(cfg, grid, batch, bytes_per_value, *sizes, costs=costs):
        parts.setdefault(operation.stage, []).append(operation)
    return [
        Stage(name, sum(op.flops for op in part), sum(op.bytes for op in part), tuple(part))
        for name, part in parts.items()
    ]


def count_parameters(cfg: EatConfig) -> tuple[int, int]:
    """Count the parameters that are trained, and those that the teacher averages."""
    with torch.device("meta"):  # nothing is allocated
        model = EatModel(cfg)
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert model.teacher is not None
    prefix = "blocks." if cfg.ema_encoder_only else ""
    averaged = sum(sizes.get(prefix + name, 0) for name in model.teacher.averages)
    return sum(sizes.values()), averaged


def published_config(size: str) -> EatConfig:
    """Return the model's configuration of a published size, ``base`` or ``large``."""
    with torch.device("meta"):
        cfg: Any = make_model(WIDTHS[size], FRAMES).cfg
    cfg = OmegaConf.create(cfg)
    cfg.modalities.image = OmegaConf.merge(cfg.modalities.image, IMAGE_OPTIONS[size])
    return cfg


class Paper:
    """The tables of a published size, of clips of 10 s in bf16. The first row is the heading.

    Args:
        size: ``base`` or ``large``.
    """

    def __init__(self, size: str) -> None:
        self.cfg = published_config(size)
        patch = self.cfg.modalities.image.patch_size
        self.grid = FRAMES // patch, MEL_BINS // patch
        self.trained, self.averaged = count_parameters(self.cfg)
        self.flops = update_flops(self.cfg, self.grid)
        one = list_operations(self.cfg, self.grid, 1, HALF)
        self.backward_flops = sum(op.flops for op in one if op.backward)
        self.teacher_flops = sum(op.flops for op in one if op.stage == TEACHER)

    def operations(self, batch: int, costs: Costs = EAGER) -> list[Operation]:
        """List the operations of an update."""
        return list_operations(
            self.cfg, self.grid, batch, HALF, self.trained, self.averaged, costs
        )

    def counts(self) -> Iterator[list[str]]:
        """FLOPs of a clip."""
        yield ["one clip in one update", "GFLOP"]
        forward = self.flops - self.backward_flops - self.teacher_flops
        yield ["student and decoder, forward", f"{forward / 1e9:.1f}"]
        yield ["student and decoder, backward", f"{self.backward_flops / 1e9:.1f}"]
        yield ["teacher, forward", f"{self.teacher_flops / 1e9:.1f}"]
        yield ["all", f"{self.flops / 1e9:.1f}"]

    def parts(self, batch: int, device: Device) -> Iterator[list[str]]:
        """FLOPs, bytes and least time of each stage."""
        heading = f"{batch} clips, {device.name}"
        yield [heading, "TFLOP", "GB", "FLOP a byte", "ms at least", "limit"]
        for stage in stages(self.cfg, self.grid, batch, HALF):
            limit = "arithmetic" if stage.intensity > device.ridge else "memory"
            yield [stage.name, *_figures(stage.operations, device), limit]
        yield ["all", *_figures(self.operations(batch), device), ""]

    def bounds(self) -> Iterator[list[str]]:
        """Least times of an update on several devices."""
        yield [
            "GPU", "clips", "arithmetic alone, ms", "eager, ms", "clips/s", "fused, ms", "clips/s"
        ]  # fmt: skip
        for device in DEVICES:
            for batch in BATCHES:
                cells = [device.name, str(batch), f"{1e3 * batch * self.flops / device.flops:.1f}"]
                for costs in (EAGER, FUSED):
                    seconds = device.seconds(self.operations(batch, costs))
                    cells += [f"{1e3 * seconds:.1f}", f"{batch / seconds:.0f}"]
                yield cells

    def hours(self, rates: Iterable[float]) -> Iterator[list[str]]:
        """What pre-training on AS-2M takes."""
        yield ["clips/s of a GPU", "GPU-hours", f"FLOPs, of the peak of an {H200.name}"]
        for rate in rates:
            share = rate * self.flops / H200.flops
            yield [f"{rate:g}", f"{CLIPS / rate / 3600:.1f}", f"{100 * share:.0f} %"]

    def gradients(self) -> Iterator[list[str]]:
        """What each GPU sends in an update."""
        counts = (2, 8, 16, 128)
        yield ["gradients", "MB", *(f"MB sent, {n} GPUs" for n in counts), "ms in a node (NVLink)"]
        for name, width in (("bf16", HALF), ("float32", SINGLE)):
            size = width * self.trained
            sent = [f"{2 * (n - 1) / n * size / 1e6:.0f}" for n in counts]
            seconds = all_reduce_seconds(size, GPUS_A_NODE, NVLINK)
            yield [name, f"{size / 1e6:.0f}", *sent, f"{1e3 * seconds:.1f}"]

    def links(self, rates: Sequence[float]) -> Iterator[list[str]]:
        """Nodes whose gradients travel in the time of the backward pass."""
        updates = [(batch, rate) for batch in BATCHES for rate in rates]
        yield [
            "link of a node", "gradients", "ms, 2 nodes", "ms, 16 nodes",
            *(f"nodes: {batch} clips, {rate:g}/s" for batch, rate in updates),
        ]  # fmt: skip
        share = self.backward_flops / self.flops
        times = [f"{1e3 * share * batch / rate:.1f}" for batch, rate in updates]
        yield ["*backward pass, ms*", "", "", "", *times]
        for name, bandwidth in LINKS.items():
            for precision, width in (("bf16", HALF), ("float32", SINGLE)):
                size = width * self.trained
                sums = [all_reduce_seconds(size, GPUS_A_NODE * n, bandwidth) for n in (2, 16)]
                nodes = [most_nodes(size, bandwidth, share * b / rate) for b, rate in updates]
                yield [name, precision, *(f"{1e3 * t:.1f}" for t in sums), *map(str, nodes)]


def loaders(times: Sequence[tuple[str, float]], rates: Iterable[float]) -> Iterator[list[str]]:
    """Tabulate the cores that feed a GPU.

    Args:
        times: kinds of files, and ms that a clip takes one core.
        rates: of the GPU, in clips a second.
    """
    yield ["clips/s of a GPU", *(name for name, _ in times)]
    for rate in rates:
        yield [f"{rate:g}", *(f"{rate * ms / 1000:.2f}" for _, ms in times)]


def _figures(operations: Sequence[Operation], device: Device) -> list[str]:
    flops, moved = (sum(op.flops for op in operations), sum(op.bytes for op in operations))
    milliseconds = 1e3 * device.seconds(operations)
    return [
        f"{flops / 1e12:.2f}", f"{moved / 1e9:.2f}", f"{flops / moved:.0f}", f"{milliseconds:.2f}"
    ]  # fmt: skip


def _parse_time(text: str) -> tuple[str, float]:
    name, _, milliseconds = text.rpartition("=")
    return name, float(milliseconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m eat_plugin.bench.flops", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", choices=sorted(WIDTHS), default="base", help="of the model")
    parser.add_argument(
        "--tables", choices=TABLES, default=TABLES, nargs="+", help="which to print (default: all)"
    )
    parser.add_argument(
        "--rates", metavar="N", type=float, nargs="+",
        help="clips/s of a GPU, for hours, links and loader (default: the goals of base)",
    )
    parser.add_argument(
        "--loader", metavar="NAME=MS", type=_parse_time, nargs="+", default=[],
        help="for loader: kinds of files, and the ms of one core that a clip of them takes",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    for name, table in _make_tables(args):
        heading, *rows = table
        if name in args.tables and rows:
            lines = [heading, ["---"] * len(heading), *rows]
            sys.stdout.writelines(f"| {' | '.join(line)} |\n" for line in lines)
            sys.stdout.write("\n")
    return 0


def _make_tables(args: argparse.Namespace) -> Iterator[tuple[str, Iterator[list[str]]]]:
    paper, rates = Paper(args.size), args.rates or RATES[args.size]
    yield "counts", paper.counts()
    for batch in BATCHES:
        yield "stages", paper.parts(batch, H200)
    yield "bounds", paper.bounds()
    yield "hours", paper.hours(rates)
    yield "gradients", paper.gradients()
    if rates:
        yield "links", paper.links(rates)
    if args.loader:
        yield "loader", loaders(args.loader, rates)


if __name__ == "__main__":
    sys.exit(main())
