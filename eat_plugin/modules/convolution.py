"""Grouped convolution of channels-last tensors, in the way that is fastest on this machine.

Which one that is depends on device, libraries and shape. On an H100 cuDNN takes 21.0 ms for forward
and backward of a layer of 768 rows in channels last, and 8.9 ms in channels first. On a CPU PyTorch
2.13 takes less in channels last; PyTorch 2.1 takes 20 to 50 times as long in its backward.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import cache, partial

import torch
from torch import Tensor, nn

from .fastest import find_fastest

logger = logging.getLogger(__name__)

AUTO, LAST, FIRST, TRITON = "auto", "channels_last", "channels_first", "triton"
CHOICES = (AUTO, LAST, FIRST, TRITON)
POSITIONS_ON_CPU = 1024  # that are timed there: many take seconds, few show no difference


def convolve(x: Tensor, layer: nn.Conv2d, way: str) -> Tensor:
    """Convolve [N, C, rows, columns], channels last, to [N, O, rows, columns], channels last.

    The sides of the kernel may differ; the padding of a side k is k // 2. ``way`` is one of
    ``CHOICES`` but auto.
    """
    rows, columns = x.shape[2:]
    if way == TRITON:
        from .triton_convolution import convolve as convolve_by_triton

        assert layer.bias is not None
        weight, bias = layer.weight, layer.bias
        if torch.is_autocast_enabled():
            dtype = torch.get_autocast_gpu_dtype()
            x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        result: Tensor = convolve_by_triton(
            x.permute(0, 2, 3, 1).contiguous(), weight, bias, layer.groups
        )
        return result.permute(0, 3, 1, 2)
    if way == FIRST:
        x = x.contiguous(memory_format=torch.contiguous_format)
    y: Tensor = layer(x)[:, :, :rows, :columns]  # an even kernel adds a row and a column
    return y.contiguous(memory_format=torch.channels_last) if way == FIRST else y


def ways_on(x: Tensor) -> tuple[str, ...]:
    """Return the ways that can run on a device; the first is the default."""
    if x.is_cuda and has_triton() and x.dtype != torch.float64:
        return LAST, FIRST, TRITON
    return LAST, FIRST


@cache
def has_triton() -> bool:
    """Whether Triton is installed, and PyTorch (2.4 and later) can call its kernels."""
    return hasattr(torch.library, "custom_op") and importlib.util.find_spec("triton") is not None


def choose_way(x: Tensor, layer: nn.Conv2d) -> str:
    """Time forward and backward of a layer with each way; return the fastest.

    Distributed processes take that of rank 0: call it in all of them.

    Args:
        x: an input of the layer's kind, [N, C, rows, columns]. On a CPU N does not matter.
        layer: a convolution.
    """
    ways = ways_on(x)
    chosen, is_distributed = LAST, torch.distributed.is_available()
    is_distributed = is_distributed and torch.distributed.is_initialized()
    if not is_distributed or torch.distributed.get_rank() == 0:
        chosen = _measure(x, layer, ways)
    if is_distributed and torch.distributed.get_world_size() > 1:
        index = torch.tensor([ways.index(chosen)], device=x.device)
        torch.distributed.broadcast(index, 0)
        chosen = ways[int(index)]
    return chosen


def _measure(x: Tensor, layer: nn.Conv2d, ways: tuple[str, ...]) -> str:
    number, _, rows, columns = x.shape
    if not x.is_cuda:
        number = max(1, POSITIONS_ON_CPU // (rows * columns))
    sizes = (number, rows, columns, layer.in_channels)
    source = torch.ones(sizes, dtype=x.dtype, device=x.device).permute(0, 3, 1, 2).requires_grad_()
    gradient = source.new_ones(number, rows, columns, layer.out_channels).permute(0, 3, 1, 2)
    sources = [source, *(p for p in layer.parameters() if p.requires_grad)]

    def run(way: str) -> None:
        with torch.enable_grad():
            torch.autograd.grad(convolve(source, layer, way), sources, gradient)

    chosen, seconds = find_fastest({way: partial(run, way) for way in ways}, x.device)
    times = ", ".join(f"{way} {1000 * value:.2f} ms" for way, value in seconds.items())
    failed = [way for way in ways if way not in seconds]
    logger.info(
        "decoder's convolution: %s (forward and backward of a layer of %d x %d x %d patches: %s%s)",
        chosen, number, rows, columns, times, "; failed: " + ", ".join(failed) if failed else "",
    )  # fmt: skip
    return chosen
