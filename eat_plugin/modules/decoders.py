"""The convolutional decoder that predicts hidden patches from visible ones; the noise at these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compiled import Compiled, is_traced
from .convolution import AUTO, LAST, choose_way, convolve, ways_on
from .linear import Linear
from .patch_split import PatchSplit
from .recompute import BLOCKS, recompute, recomputes

Seeds = Union[int, Sequence[int], None]
SCORES = 4  # stream of random numbers other than those of the noise and of ``models.mixtures``


class ConvLayer(nn.Sequential):
    """Grouped 2-D convolution, LayerNorm over channels without weights, GELU, and a residual.

    There is no residual if the layer changes the number of channels.
    """

    def __init__(self, in_dim: int, cfg: Any, kernel: tuple[int, int]) -> None:
        options = cfg.modalities.image.decoder
        out_dim, (height, width) = options.decoder_dim, kernel
        padding = (height // 2, width // 2)
        convolution = nn.Conv2d(
            in_dim, out_dim, kernel, padding=padding, groups=options.decoder_groups
        )
        super().__init__(convolution)
        self.way = LAST
        self.residual = options.decoder_residual and in_dim == out_dim
        self.recompute = cfg.recompute
        self.compiled = cfg.compile

    def forward(self, grid: Tensor) -> Tensor:
        """Map [N, in_dim, rows, columns] to [N, out_dim, rows, columns], channels last."""
        transform: Callable[..., Tensor] = transform_grid
        if self.compiled and self.training:
            transform = COMPILED.choose(self, grid)
        if self.recompute == BLOCKS and recomputes(self):
            return recompute(transform, self, grid, is_random=False)
        return transform(self, grid)


def transform_grid(layer: ConvLayer, grid: Tensor) -> Tensor:
    """Compute a layer."""
    convolution: Any = layer[0]
    x = convolve(grid, convolution, layer.way)
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
    """``ConvLayer``s over the patch grid, then a projection (EAT, sec. 3.3).

    ``cfg`` has the options of ``models.config.EatConfig``; ``kernel`` are the sides of the kernels
    along (time, mel), ``decoder_kernel`` if None.

    Attributes:
        way: how convolutions are computed, see ``convolution``; with ``auto`` the first training
            forward chooses.
    """

    def __init__(self, cfg: Any, kernel: tuple[int, int] | None = None) -> None:
        super().__init__()
        options = cfg.modalities.image.decoder
        kernel = kernel or (options.decoder_kernel, options.decoder_kernel)
        dim, hidden_dim, num_layers = cfg.embed_dim, options.decoder_dim, options.decoder_layers
        widths = [dim, *[hidden_dim] * num_layers]  # the input of each layer, and of the projection
        self.blocks: Any = nn.ModuleList(ConvLayer(n, cfg, kernel) for n in widths[:num_layers])
        self.proj = Linear(widths[num_layers], dim)
        self._chosen_before = AUTO
        self.use_way(cfg.convolution)

    def use_way(self, way: str) -> None:
        """Compute the convolutions in a way, one of ``convolution.CHOICES``."""
        self.way = way
        for layer in self.blocks:
            layer.way = LAST if way == AUTO else way  # before training starts

    def continue_way(self, way: str) -> None:
        """Use the way that was chosen before, if ``auto`` is set and the machine has it."""
        if self.way == AUTO:
            self._chosen_before = way

    def forward(
        self, tokens: Tensor, grid: tuple[int, int], rows: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """Predict some patches, [M, D].

        Args:
            tokens: [N, L, D], all patches.
            grid: (time, mel) size of the patch grid.
            rows: [M] rows of the flattened output [N * L, D] to return; only they are projected.
            padding: bool [N, L], True = padding. It is set to 0 before every layer, like the border
                of the grid, so that a clip's patches do not depend on it.
        """
        # Memory holds [N, rows, columns, D]: this view is "channels last" without a copy.
        x = tokens.unflatten(1, grid).permute(0, 3, 1, 2)
        if len(self.blocks) and self.training and torch.is_grad_enabled() and not is_traced():
            self._settle_way(x)
        blank = None if padding is None else padding.unflatten(1, grid).unsqueeze(1)
        for layer in self.blocks:
            # Not masked_fill: in PyTorch 2.1 it may return channels first, and on a CPU GELU's
            # gradient is then wrong if that of its output has another layout.
            x = x if blank is None else torch.where(blank, 0.0, x)
            x = layer(x)
        return self.proj(x.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, rows))

    def _settle_way(self, x: Tensor) -> None:
        if self.way == AUTO and self._chosen_before in ways_on(x):
            self.use_way(self._chosen_before)
        elif self.way == AUTO:
            self.use_way(choose_way(x, self.blocks[-1][0]))
        elif self.way not in ways_on(x):
            raise ValueError(
                f"model.convolution is {self.way!r}, which cannot run here with {x.dtype} "
                f"on {x.device}: choose {', '.join((AUTO, *ways_on(x)))}"
            )


def draw_noise(
    like: Tensor, sizes: tuple[int, int, int], std: float, split: PatchSplit, noise_seed: Seeds
) -> Tensor:
    """Draw the decoder's input at hidden patches, N(0, std^2).

    Args:
        like: of the dtype and device of the result.
        sizes: (N, L, D).
        std: standard deviation; 0 for zeros.
        split: has the lengths of the clips.
        noise_seed: a seed; or one seed per clip, so that the noise of a clip does not depend on the
            others; or None for PyTorch's global generator.

    Returns:
        [N * L, D].
    """
    rows, num_patches, width = sizes
    shape = (rows * num_patches, width)
    if std == 0:
        return like.new_zeros(shape)
    if noise_seed is None or isinstance(noise_seed, int):
        return like.new_zeros(shape).normal_(0, std, generator=_generator(like, noise_seed))
    variable, clones = split.lengths, rows // len(noise_seed)
    lengths = [num_patches] * len(noise_seed) if variable is None else variable.num_patches
    noise = like.new_empty(sum(lengths) * clones, width)
    for part, seed in zip(noise.split([clones * length for length in lengths]), noise_seed):
        part.normal_(0, std, generator=_generator(like, seed))
    if variable is None:
        return noise
    return like.new_zeros(shape).index_copy(0, variable.own_rows, noise)


def draw_scores(split: PatchSplit, num_rows: int, num_patches: int, noise_seed: Seeds) -> Tensor:
    """Draw a random number for each patch of N rows, float32 [N, L]; of clips as ``draw_noise``."""
    seed: Seeds = None
    if isinstance(noise_seed, int):
        seed = noise_seed ^ SCORES
    elif noise_seed is not None:
        seed = [each ^ SCORES for each in noise_seed]
    like = torch.empty(0, device=split.visible.device)
    return draw_noise(like, (num_rows, num_patches, 1), 1.0, split, seed).view(num_rows, -1)


def _generator(like: Tensor, seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator(like.device).manual_seed(seed)
