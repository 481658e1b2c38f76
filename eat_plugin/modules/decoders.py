"""The convolutional decoder that predicts hidden patches from visible ones."""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compiled import Compiled
from .linear import Linear
from .recompute import recompute, recomputes


class ConvLayer(nn.Sequential):
    """Grouped 2-D convolution, LayerNorm over channels without weights, GELU, and a residual.

    Args:
        in_dim: input channels.
        out_dim: output channels, divisible by ``groups`` as ``in_dim`` is.
        kernel_size: side of the kernel, in patches; the grid keeps its size.
        groups: groups of the convolution.
        residual: add the input to the output, of as many channels.
        recompute: what backward computes again, one of ``recompute.CHOICES``.
        compiled: compile it, for training.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        kernel_size: int,
        groups: int,
        residual: bool = False,
        recompute: str = "none",
        compiled: bool = False,
    ) -> None:
        convolution = nn.Conv2d(
            in_dim, out_dim, kernel_size, padding=kernel_size // 2, groups=groups
        )
        super().__init__(convolution)
        self.residual = residual
        self.recompute = recompute
        self.compiled = compiled

    def forward(self, grid: Tensor) -> Tensor:
        """Map [N, in_dim, rows, columns] to [N, out_dim, rows, columns], channels last."""
        transform: Callable[..., Tensor] = transform_grid
        if self.compiled and self.training:
            transform = COMPILED.choose(self, grid)
        if self.recompute == "blocks" and recomputes(self):
            return recompute(transform, self, grid, is_random=False)
        return transform(self, grid)


def transform_grid(layer: ConvLayer, grid: Tensor) -> Tensor:
    """Do what a layer does."""
    rows, columns = grid.shape[2:]
    x = layer[0](grid)[:, :, :rows, :columns]  # an even kernel adds a row and a column
    if layer.recompute == "gelu" and recomputes(layer):
        x = recompute(_activate, x, is_random=False)
    else:
        x = _activate(x)
    return x + grid if layer.residual else x


def _activate(x: Tensor) -> Tensor:
    x = x.permute(0, 2, 3, 1)
    return F.gelu(F.layer_norm(x, x.shape[-1:], eps=1e-5)).permute(0, 3, 1, 2)


COMPILED = Compiled(transform_grid, "decoder's layers")


class ConvDecoder(nn.Module):
    """``ConvLayer``s with residuals over the patch grid, then a projection (EAT, sec. 3.3).

    Args:
        dim: width D of tokens, in and out.
        hidden_dim: channels of the layers.
        num_layers: number of layers.
        kernel_size: side of the kernels, in patches.
        groups: groups of the convolutions.
        residual: add each layer's input to its output where the widths agree.
        recompute: what backward computes again, one of ``recompute.CHOICES``.
        compiled: compile the layers, for training.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        num_layers: int,
        kernel_size: int,
        groups: int,
        residual: bool = True,
        recompute: str = "none",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for width in [dim, *[hidden_dim] * (num_layers - 1)][:num_layers]:
            adds = residual and width == hidden_dim
            self.blocks.append(
                ConvLayer(width, hidden_dim, kernel_size, groups, adds, recompute, compiled)
            )
        self.proj = Linear(hidden_dim if num_layers else dim, dim)

    def forward(
        self, tokens: Tensor, grid: tuple[int, int], rows: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """Predict some patches.

        Args:
            tokens: [N, L, D], every patch in its place.
            grid: (time, mel) size of the patch grid.
            rows: [M] which rows of the flattened [N * L, D] output are wanted. The projection is
                computed for those alone.
            padding: bool [N, L], True = padding; it is 0 before every layer, as what lies beyond
                the border is, so that a clip's patches do not depend on it. None for none.

        Returns:
            [M, D].
        """
        # Tokens lie in memory as [N, rows, columns, D]: this view is "channels last" for free.
        x = tokens.unflatten(1, grid).permute(0, 3, 1, 2)
        blank = None if padding is None else padding.unflatten(1, grid).unsqueeze(1)
        for layer in self.blocks:
            # masked_fill may put channels first again (PyTorch 2.1; there it costs more than time:
            # GELU's gradient is wrong on a CPU where that of its output has another layout).
            x = x if blank is None else torch.where(blank, 0.0, x)
            x = layer(x)
        return self.proj(x.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, rows))
