"""Times of the decoder's convolution on a GPU: each way, and sizes of the Triton kernels' blocks.

    python -m benchmarks.convolution --rows 192 768

A layer of base in bfloat16: 768 channels in 16 groups of 48, a kernel of 3 x 3, a grid of 64 x 8.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from typing import Callable

import torch

from eat_plugin.modules.convolution import TRITON, convolve, ways_on

from .launching import say

GRID, CHANNELS, GROUPS, SIDE = (64, 8), 768, 16, 3
CALLS = 10
# Rows, warps and stages of the forward kernel; rows of a step, warps and stages of the backward's.
FORWARD = tuple(product((64, 128, 256), (4, 8), (2, 3, 4)))
BACKWARD = tuple(product((32, 64, 128), (4, 8), (2, 3, 4)))


def main(rows: list[int]) -> int:
    """Print a table for each number of rows; return 2 without a GPU."""
    if not torch.cuda.is_available():
        say("PyTorch finds no GPU")
        return 2
    say(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    layer = torch.nn.Conv2d(CHANNELS, CHANNELS, SIDE, padding=SIDE // 2, groups=GROUPS)
    layer = layer.cuda().to(torch.bfloat16)
    for number in rows:
        x = torch.randn(number, *GRID, CHANNELS, device="cuda", dtype=torch.bfloat16)
        x = x.permute(0, 3, 1, 2).requires_grad_()
        for way in ways_on(x):
            forward, both = time_layer(x, layer, way)
            say(f"{number} rows, {way}: forward {forward:.3f} ms, with backward {both:.3f} ms")
        if TRITON in ways_on(x):
            sweep(x, layer, number)
    return 0


def time_layer(x: torch.Tensor, layer: torch.nn.Conv2d, way: str) -> tuple[float, float]:
    """Return the milliseconds of forward, and of forward and backward."""
    gradient = torch.randn_like(x)

    def forward() -> torch.Tensor:
        return convolve(x, layer, way)

    def both() -> object:
        return torch.autograd.grad(forward(), [x, *layer.parameters()], gradient)

    return time_calls(forward), time_calls(both)


def time_calls(call: Callable[[], object]) -> float:
    """Return the milliseconds of a call."""
    for _ in range(3):
        call()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(CALLS):
        call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / CALLS


def sweep(x: torch.Tensor, layer: torch.nn.Conv2d, number: int) -> None:
    """Time sizes of blocks, the fastest last."""
    from eat_plugin.modules import triton_convolution as kernels

    names = ("ROWS", "ROWS_OF_SUM", "WARPS", "STAGES")
    before = {name: getattr(kernels, name) for name in names}
    for what, choices, column in (("ROWS", FORWARD, 0), ("ROWS_OF_SUM", BACKWARD, 1)):
        found = []
        for size, warps, stages in choices:
            for name, value in ((what, size), ("WARPS", warps), ("STAGES", stages)):
                setattr(kernels, name, value)
            try:
                found.append((time_layer(x, layer, TRITON)[column], size, warps, stages))
            except Exception as error:  # noqa: BLE001, more shared memory than there is, or others
                say(f"  {what}={size} WARPS={warps} STAGES={stages}: {type(error).__name__}")
        for name, value in before.items():
            setattr(kernels, name, value)
        for milliseconds, size, warps, stages in sorted(found, reverse=True):
            say(f"  {what}={size} WARPS={warps} STAGES={stages}: {milliseconds:.3f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[192, 768], help="clips x clones")
    sys.exit(main(parser.parse_args().rows))
