"""The student's prediction of hidden patches, from what its encoder makes of the visible ones.

In this file:
    predict_hidden    fill a grid with visible patches and noise, and decode it
    draw_noise        the noise that stands for hidden patches
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor

from ..modules.masked import PatchSplit
from .encoder import PatchEncoder

Seeds = Union[int, Sequence[int], None]


def predict_hidden(
    patches: PatchEncoder,
    tokens: Tensor,
    split: PatchSplit,
    grid: tuple[int, int],
    noise_seed: Seeds,
) -> Tensor:
    """Predict the hidden patches.

    Args:
        patches: has the decoder.
        tokens: [N, V, D], the encoder's output at visible patches, without extra tokens.
        split: which patches those are, and which are hidden.
        grid: (time, mel) size of the patch grid.
        noise_seed: see ``draw_noise``.

    Returns:
        [N_hidden, D].
    """
    decoder, cfg = patches.decoder, patches.cfg.decoder
    assert decoder is not None
    assert cfg is not None
    rows, num_patches = tokens.size(0), grid[0] * grid[1]
    visible = split.visible_tokens(F.dropout(tokens, cfg.input_dropout, patches.training))
    canvas = draw_noise(tokens, num_patches, patches.cfg.mask_noise_std, split, noise_seed)
    if cfg.add_positions_masked and patches.fixed_positional_encoder is not None:
        table = patches.fixed_positional_encoder(num_patches)[0]
        positions = table[split.hidden_rows % num_patches].to(canvas.dtype)
        canvas.index_add_(0, split.hidden_rows, positions)
    canvas.index_put_((split.visible_rows,), visible)  # index_copy would keep them for backward
    canvas = canvas.view(rows, num_patches, -1)
    if cfg.add_positions_all:
        canvas = patches.add_positions(canvas)
    padding = None if split.ragged is None else split.ragged.padding
    return decoder(canvas, grid, split.hidden_rows, padding)


def draw_noise(
    like: Tensor, num_patches: int, std: float, split: PatchSplit, noise_seed: Seeds
) -> Tensor:
    """Draw the noise that stands for hidden patches, N(0, std^2).

    Args:
        like: [N, V, D], of the kind of the result.
        num_patches: L.
        std: standard deviation; 0 for zeros.
        split: tells how long clips are.
        noise_seed: of the batch, or a list of one for each clip: then what a clip gets does not
            depend on the others. None draws from PyTorch's global generator.

    Returns:
        [N * L, D].
    """
    shape = (like.size(0) * num_patches, like.size(2))
    if std == 0:
        return like.new_zeros(shape)
    if noise_seed is None or isinstance(noise_seed, int):
        return like.new_zeros(shape).normal_(0, std, generator=_generator(like, noise_seed))
    ragged, clones = split.ragged, like.size(0) // len(noise_seed)
    lengths = [num_patches] * len(noise_seed) if ragged is None else ragged.num_patches
    noise = like.new_empty(sum(lengths) * clones, like.size(2))
    for part, seed in zip(noise.split([clones * length for length in lengths]), noise_seed):
        part.normal_(0, std, generator=_generator(like, seed))
    return noise if ragged is None else like.new_zeros(shape).index_copy(0, ragged.own_rows, noise)


def _generator(like: Tensor, seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator(like.device).manual_seed(seed)
