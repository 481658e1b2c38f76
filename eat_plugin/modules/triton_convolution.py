"""Grouped convolution on tensors of channels-last layout, as Triton kernels.

cuDNN changes the layout of grouped convolutions twice, which takes longer than the arithmetic.
These kernels are implicit matrix products per group: rows are grid positions, the sum runs over
taps and the group's input channels. Sums are in float32. There are no atomic additions: the same
input gives the same bits.

Importing this module needs Triton. ``TRITON_INTERPRET=1`` runs the kernels on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 128  # grid positions per program
ROWS_OF_SUM = 64  # the same of the weights' gradient, per step of its sum
ROWS_OF_PART = 8192  # its sum is made in parts of this many positions, then the parts are added
MOST_COLUMNS = 128  # output channels per program
WARPS, STAGES = 4, 3


@triton.jit
def _load_tap(  # type: ignore[no-untyped-def]
    source, row, tap, group, channel, num_rows, height, width,
    IN: tl.constexpr, GROUPS: tl.constexpr, WIDE: tl.constexpr, TOP: tl.constexpr,
    LEFT: tl.constexpr,
):  # fmt: skip
    """Load channels of a group, [rows, channels], that a tap sees at grid positions; 0 outside."""
    down, right = tap // WIDE - TOP, tap % WIDE - LEFT
    place = row.to(tl.int32)  # divisions of 64 bits would take longer than the products
    y, x = (place // width) % height + down, place % width + right
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (row < num_rows)
    rows = source + (row + down * width + right) * (GROUPS * IN) + group * IN
    mask = inside[:, None] & (channel < IN)[None, :]
    return tl.load(rows[:, None] + channel[None, :], mask=mask, other=0.0)


@triton.jit
def _convolve(  # type: ignore[no-untyped-def]
    source, weight, bias, result, num_rows, height, width,
    IN: tl.constexpr, OUT: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr,
    WIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr, HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute ROWS positions of COLUMNS channels of a group.

    source [num_rows, GROUPS * IN], weight [GROUPS, TAPS, IN, OUT], bias [GROUPS * OUT],
    result [num_rows, GROUPS * OUT].
    """
    group = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    steps = tl.cdiv(IN, STEP)
    for step in range(TAPS * steps):  # one loop: Triton loads ahead in the innermost
        tap, channel = step // steps, step % steps * STEP + tl.arange(0, STEP)
        some = _load_tap(
            source, row, tap, group, channel, num_rows, height, width, IN, GROUPS, WIDE, TOP, LEFT
        )  # fmt: skip
        factors = tl.load(
            weight + ((group * TAPS + tap) * IN + channel[:, None]) * OUT + column[None, :],
            mask=(channel < IN)[:, None] & (column < OUT)[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(some, factors, total, input_precision=PRECISION)
    if HAS_BIAS:
        shift = tl.load(bias + group * OUT + column, mask=column < OUT, other=0.0)
        total += shift.to(tl.float32)[None, :]
    where = result + row[:, None] * (GROUPS * OUT) + group * OUT + column[None, :]
    tl.store(
        where, total.to(result.dtype.element_ty),
        mask=(row < num_rows)[:, None] & (column < OUT)[None, :],
    )  # fmt: skip


@triton.jit
def _sum_gradients(  # type: ignore[no-untyped-def]
    source, gradient, weights, biases, num_rows, height, width,
    IN: tl.constexpr, OUT: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr,
    WIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of one tap's weights over a part of the rows.

    source [num_rows, GROUPS * IN], gradient [num_rows, GROUPS * OUT]; results of a part:
    weights [GROUPS, TAPS, IN, OUT], biases [GROUPS, OUT], float32.
    """
    tap, group = tl.program_id(0) % TAPS, tl.program_id(0) // TAPS
    part = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) // BLOCKS * CHANNELS + tl.arange(0, CHANNELS)
    column = tl.program_id(2) % BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((CHANNELS, COLUMNS), tl.float32)
    shift = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(STEPS):
        row = (part * STEPS + step) * ROWS + tl.arange(0, ROWS)
        some = _load_tap(
            source, row, tap, group, channel, num_rows, height, width, IN, GROUPS, WIDE, TOP, LEFT
        )  # fmt: skip
        rows_out = gradient + row * (GROUPS * OUT) + group * OUT
        errors = tl.load(
            rows_out[:, None] + column[None, :],
            mask=(row < num_rows)[:, None] & (column < OUT)[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(tl.trans(some), errors, total, input_precision=PRECISION)
        shift += errors.to(tl.float32)
    part_of_group = part * GROUPS + group
    place = (part_of_group * TAPS + tap) * IN
    tl.store(
        weights + (place + channel[:, None]) * OUT + column[None, :], total,
        mask=(channel < IN)[:, None] & (column < OUT)[None, :],
    )  # fmt: skip
    if (tap == 0) & (tl.program_id(2) < BLOCKS):
        tl.store(biases + part_of_group * OUT + column, tl.sum(shift, axis=0), mask=column < OUT)


def _rounds_to_tf32() -> bool:
    cudnn: Any = torch.backends.cudnn
    try:
        return bool(cudnn.allow_tf32)
    except RuntimeError:  # PyTorch 2.9 and later, if the newer setting was used
        return bool(cudnn.conv.fp32_precision == "tf32")


def _launch_options(x: Tensor) -> dict[str, Any]:
    """Return options of both kernels; float32 is rounded to TF32 where cuDNN would do so."""
    exact = x.dtype == torch.float32 and not _rounds_to_tf32()
    return {"PRECISION": "ieee" if exact else "tf32", "num_warps": WARPS, "num_stages": STAGES}


def _block(channels: int) -> int:
    return min(MOST_COLUMNS, max(16, triton.next_power_of_2(channels)))


def _run(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, pad: tuple[int, int]
) -> Tensor:
    """Convolve x [N, H, W, C] with weight [groups, high, wide, in, out], padded (top, left)."""
    number, height, width, _ = x.shape
    high, wide, channels, columns = weight.shape[1:]
    num_rows = number * height * width
    result = x.new_empty(number, height, width, groups * columns)
    block, step = _block(columns), min(64, _block(channels))
    programs = (triton.cdiv(num_rows, ROWS), groups, triton.cdiv(columns, block))
    with torch.cuda.device_of(x):
        _convolve[programs](
            x, weight, weight if bias is None else bias, result, num_rows, height, width,
            IN=channels, OUT=columns, GROUPS=groups, TAPS=high * wide, WIDE=wide, TOP=pad[0],
            LEFT=pad[1], HAS_BIAS=bias is not None, ROWS=ROWS, STEP=step, COLUMNS=block,
            **_launch_options(x),
        )  # fmt: skip
    return result


@torch.library.custom_op("eat_plugin::convolve", mutates_args=())
def convolve(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """Convolve with zeros at the border; the grid keeps its size.

    Args:
        x: [N, H, W, groups * I], contiguous.
        weight: [groups * O, I, high, wide]. An even side looks one position further to the left
            or up than to the right or down.
        bias: [groups * O].
        groups: number of groups.

    Returns:
        [N, H, W, groups * O].
    """
    out, channels, high, wide = weight.shape
    factors = weight.view(groups, out // groups, channels, high, wide).permute(0, 3, 4, 2, 1)
    return _run(x, factors.contiguous(), bias, groups, (high // 2, wide // 2))


@torch.library.custom_op("eat_plugin::convolve_backward", mutates_args=())
def convolve_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, groups: int, needs_input: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input (empty if not needed), weight and bias."""
    out, channels, high, wide = weight.shape
    gradient, columns = gradient.contiguous(), out // groups
    by_input = x.new_empty(0)
    if needs_input:
        # The flipped kernel, its channels exchanged; what was left is right.
        factors = weight.view(groups, columns, channels, high, wide).flip(3, 4)
        factors = factors.permute(0, 3, 4, 1, 2).contiguous()
        pad = (high - 1 - high // 2, wide - 1 - wide // 2)
        by_input = _run(gradient, factors, None, groups, pad)
    number, height, width, _ = x.shape
    num_rows = number * height * width
    steps = min(ROWS_OF_PART // ROWS_OF_SUM, triton.cdiv(num_rows, ROWS_OF_SUM))
    parts = triton.cdiv(num_rows, steps * ROWS_OF_SUM)
    weights = x.new_empty(parts, groups, high, wide, channels, columns, dtype=torch.float32)
    biases = x.new_empty(parts, out, dtype=torch.float32)
    blocks = triton.cdiv(columns, _block(columns))
    programs = (groups * high * wide, parts, triton.cdiv(channels, _block(channels)) * blocks)
    with torch.cuda.device_of(x):
        _sum_gradients[programs](
            x, gradient, weights, biases, num_rows, height, width,
            IN=channels, OUT=columns, GROUPS=groups, TAPS=high * wide, WIDE=wide, TOP=high // 2,
            LEFT=wide // 2, ROWS=ROWS_OF_SUM, STEPS=steps, CHANNELS=_block(channels),
            COLUMNS=_block(columns), BLOCKS=blocks, **_launch_options(x),
        )  # fmt: skip
    by_weight = weights.sum(0).permute(0, 4, 3, 1, 2).reshape(weight.shape)
    return by_input, by_weight.to(weight.dtype).contiguous(), biases.sum(0).to(weight.dtype)


@convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return x.new_empty(*x.shape[:3], weight.size(0))


@convolve_backward.register_fake
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, groups: int, needs_input: bool
) -> tuple[Tensor, Tensor, Tensor]:
    by_input = torch.empty_like(x) if needs_input else x.new_empty(0)
    return by_input, torch.empty_like(weight), weight.new_empty(weight.size(0))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, groups = inputs
    ctx.save_for_backward(x, weight)
    ctx.groups = groups


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
    x, weight = ctx.saved_tensors
    needs_input = ctx.needs_input_grad[0]
    by_input, by_weight, by_bias = convolve_backward(gradient, x, weight, ctx.groups, needs_input)
    return by_input if needs_input else None, by_weight, by_bias, None


convolve.register_autograd(_backward, setup_context=_keep)
