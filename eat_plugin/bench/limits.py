"""What GPUs and the links between them do at most, and how long an update takes at least.

In this file:
    Device, DEVICES       GPUs
    LINKS                 networks between nodes
    all_reduce_seconds    how long gradients travel
    most_nodes            how many nodes hide that behind the backward pass
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .gpus import PEAKS
from .operations import Operation

GPUS_A_NODE = 8
NVLINK = 450e9  # bytes a second from an H100 or H200 to the others of its node
# Bytes a second from a node to the others.
LINKS = {
    "100 Gb/s": 12.5e9, "200 Gb/s": 25e9, "400 Gb/s": 50e9, "8 x 400 Gb/s": 400e9,
}  # fmt: skip
BUCKET = 25 * 2**20  # bytes that DDP sends at once
LATENCY = 10e-6  # seconds that a step of a ring takes whatever it carries: an assumption
MOST_NODES = 1000


@dataclass(frozen=True)
class Device:
    """What a GPU does at most, by its maker's data sheet.

    Attributes:
        name: of the GPU.
        flops: of dense matrix products in bf16, a second.
        bandwidth: of its memory, in bytes a second.
    """

    name: str
    flops: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """FLOPs a byte below which its memory is the limit."""
        return self.flops / self.bandwidth

    def seconds(self, operations: Sequence[Operation]) -> float:
        """Time of operations one after the other: each waits for its arithmetic or its bytes."""
        return sum(max(op.flops / self.flops, op.bytes / self.bandwidth) for op in operations)


H200 = Device("H200", PEAKS["H200"], 4.8e12)
DEVICES = (Device("A100", PEAKS["A100"], 2.0e12), Device("H100", PEAKS["H100"], 3.35e12), H200)


def all_reduce_seconds(size: float, gpus: int, bandwidth: float) -> float:
    """Time of a ring all-reduce, in which each GPU sends ``2 (n - 1) / n`` of the bytes.

    Args:
        size: bytes of the gradients.
        gpus: n.
        bandwidth: of the slowest link of the ring, in bytes a second.
    """
    steps = 2 * (gpus - 1)
    return steps * (size / gpus / bandwidth + math.ceil(size / BUCKET) * LATENCY)


def most_nodes(size: float, bandwidth: float, seconds: float) -> int:
    """Count the nodes whose all-reduce takes no longer than a backward pass.

    Args:
        size: bytes of the gradients.
        bandwidth: of the link of a node, in bytes a second.
        seconds: of the backward pass.

    Returns:
        1 where two nodes are too many already, and no more than ``MOST_NODES``.
    """
    nodes = 1
    while nodes < MOST_NODES:
        if all_reduce_seconds(size, GPUS_A_NODE * (nodes + 1), bandwidth) > seconds:
            break
        nodes += 1
    return nodes
