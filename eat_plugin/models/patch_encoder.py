"""Spectrograms or images to the tokens that enter the blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..modules.gradients import scale_gradient
from ..modules.patches import (
    MEL_BINS,
    FixedPositions,
    PatchEmbedding,
    blank_padding,
    image_size_of,
)
from ..modules.transformer import make_norm
from ..options import patch_sides

if TYPE_CHECKING:
    from .config import EatConfig


class ContextEncoder(nn.Module):
    """LayerNorm (in post-norm models) and dropout before the blocks."""

    def __init__(self, cfg: EatConfig) -> None:
        super().__init__()
        self.norm = None if cfg.layer_norm_first else make_norm(cfg)
        self.dropout = nn.Dropout(cfg.modalities.image.prenet_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, S, D] to [N, S, D]."""
        return self.dropout(x if self.norm is None else self.norm(x))


class PatchEncoder(nn.Module):
    """Turn spectrograms or images into the tokens that enter the blocks."""

    def __init__(self, cfg: EatConfig) -> None:
        super().__init__()
        image = cfg.modalities.image
        self.cfg = image
        self.image_size = image_size_of(image)  # (H, W); None: the input is a spectrogram
        self.patch_sides = patch_sides(image.patch_size)  # (frames, mel bins)
        self.extra_tokens = None
        if image.num_extra_tokens > 0:
            self.extra_tokens = nn.Parameter(torch.zeros(1, image.num_extra_tokens, cfg.embed_dim))
            first = 1 if image.init_extra_token_zero else 0
            nn.init.normal_(self.extra_tokens[:, first:], std=image.extra_token_std)
        embedding = PatchEmbedding(image.in_chans, self.patch_sides, image.embed_dim)
        self.local_encoder: nn.Module | None = embedding
        if image.embed_dim != cfg.embed_dim:
            projection = nn.Linear(image.embed_dim, cfg.embed_dim)
            self.local_encoder = nn.Sequential(embedding, projection)
        if image.local_grad_mult <= 0:
            self.local_encoder.requires_grad_(False)  # or several ranks wait for its gradient
        self.fixed_positional_encoder = None
        if image.fixed_positions:
            p, q = self.patch_sides
            height, width = self.image_size or (image.max_length * p, MEL_BINS)
            self.fixed_positional_encoder = FixedPositions(
                height // p, width // q, cfg.embed_dim, image.positions
            )
        self.context_encoder = ContextEncoder(cfg)

    def grid_of(self, source: Tensor) -> tuple[int, int]:
        """Return the size of the patch grid of [B, C, T, F], (time, mel).

        Raises:
            ValueError: if the source does not fit the model.
        """
        channels, (p, q), (height, width) = self.cfg.in_chans, self.patch_sides, source.shape[2:]
        if self.image_size is not None:
            expected = f"images [B, {channels}, {', '.join(map(str, self.image_size))}]"
            fits = (height, width) == self.image_size
        else:
            expected = (
                f"[B, {channels}, T, {MEL_BINS}] with T divisible by patch_size={p} "
                "(for [B, 1, mel, time] set model.modalities.image.mel_by_time)"
            )
            fits = width == MEL_BINS and height % p == 0
        if source.size(1) != channels or not fits:
            raise ValueError(f"the input has shape {tuple(source.shape)}; expected {expected}")
        return height // p, width // q

    def prepare(self, source: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Check a source [B, C, T, F] and its padding, bool [B, L]; set the padding to 0.

        Raises:
            ValueError: if the source does not fit the model, or the padding the source.
        """
        grid = self.grid_of(source)
        if padding_mask is None:
            return source, None
        check_mask_shape("padding_mask", padding_mask, source.size(0), grid)
        padding_mask = padding_mask.bool()
        return blank_padding(source, padding_mask, self.patch_sides), padding_mask

    def local_features(self, source: Tensor) -> Tensor:
        """Embed the patches of [B, C, T, F], without positions: [B, L, D]."""
        assert self.local_encoder is not None
        if self.cfg.local_grad_mult <= 0:
            with torch.no_grad():
                return self.local_encoder(source)
        x = self.local_encoder(source)
        if self.cfg.local_grad_mult != 1:
            x = scale_gradient(x, self.cfg.local_grad_mult)
        return x

    def embed(self, source: Tensor) -> Tensor:
        """Embed the patches of [B, C, T, F], with positions: [B, L, D]."""
        return self.add_positions(self.local_features(source))

    def add_positions(self, x: Tensor) -> Tensor:
        """Add the table of positions to tokens [B, L, D]."""
        if self.fixed_positional_encoder is None:
            return x
        return x + self.fixed_positional_encoder(x.size(1))

    def contextualize(self, x: Tensor) -> Tensor:
        """Prepend the extra tokens to [N, S, D] and normalise: [N, E + S, D]."""
        return self.context_encoder(prepend(self.extra_tokens, x))


def prepend(extra_tokens: Tensor | None, x: Tensor) -> Tensor:
    """Put tokens [1, E, D] before those of each sequence [N, S, D]: [N, E + S, D]."""
    if extra_tokens is None:
        return x
    return torch.cat([extra_tokens.expand(x.size(0), -1, -1), x], dim=1)


def check_mask_shape(name: str, mask: Tensor, rows: int, grid: tuple[int, int]) -> None:
    """Raise ValueError unless a mask is of some rows and the patches of a grid."""
    expected = (rows, grid[0] * grid[1])
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"{name} has shape {tuple(mask.shape)}; expected {expected}: clips (times clones), "
            f"{grid[0]}x{grid[1]} patches"
        )
