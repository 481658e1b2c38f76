"""Cases of the Triton convolution, for a process of their own; prints relative errors as JSON.

On a machine without a GPU, TRITON_INTERPRET=1 must be set before Triton is imported.
"""

import json
import sys

import torch
import torch.nn.functional as F

from eat_plugin.modules import triton_convolution

# Number, rows, columns, channels in and out per group, groups, sides of the kernel, precision.
CASES = [
    (2, 5, 3, 48, 48, 2, 3, "float32"),  # as published, ragged rows
    (1, 7, 4, 8, 8, 4, 5, "float32"),
    (3, 4, 4, 12, 20, 1, 4, "float32"),  # even side
    (1, 1, 9, 200, 140, 1, 3, "float32"),  # more channels than a program has
    (2, 8, 8, 16, 16, 3, 1, "float32"),
    (5, 16, 4, 16, 16, 2, 3, "float32"),  # sums in several parts
    (2, 9, 1, 16, 16, 2, (5, 1), "float32"),  # a grid of one band
    (2, 6, 4, 16, 20, 2, (4, 7), "float32"),
    (2, 4, 6, 16, 16, 2, (3, 2), "float32"),
    (2, 5, 3, 48, 48, 2, 3, "float16"),
]


def errors_of(case, device):
    """The case, and its largest errors of output and gradients of input, weight and bias."""
    number, height, width, channels, columns, groups, side, precision = case
    dtype = getattr(torch, precision)
    high, wide = side if isinstance(side, tuple) else (side, side)
    torch.manual_seed(0)
    shapes = [
        (number, height, width, channels * groups), (columns * groups, channels, high, wide),
        (columns * groups,), (number, height, width, columns * groups),
    ]  # fmt: skip
    *inputs, gradient = [torch.randn(shape).to(device, dtype) for shape in shapes]
    sources = [value.clone().requires_grad_() for value in inputs]
    result = triton_convolution.convolve(*sources, groups)
    results = [result, *torch.autograd.grad(result, sources, gradient)]
    padding = (high // 2, wide // 2)
    x, weight, bias = exact = [value.double().requires_grad_() for value in inputs]
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=padding, groups=groups)
    y = y[:, :, :height, :width].permute(0, 2, 3, 1)
    expected = [y, *torch.autograd.grad(y, exact, gradient.double())]
    differences = [
        float((mine.double() - theirs).abs().max() / theirs.abs().max())
        for mine, theirs in zip(results, expected)
    ]
    return case, differences


if __name__ == "__main__":
    triton_convolution.ROWS_OF_PART = 128
    json.dump([errors_of(case, "cpu") for case in CASES], sys.stdout)
