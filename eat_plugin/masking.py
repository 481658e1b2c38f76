"""Mask strategies over the patch grid of a spectrogram.

A mask is one byte per patch, 1 = hidden from the student, in time-major order. All masks of a
specification hide the same number of patches, so that visible patches form a dense tensor.

To add a strategy: a function ``(spec, num_masks, generator) -> uint8 [K, L]`` and its name in
``STRATEGIES``; ``model.modalities.image.mask_strategy`` chooses it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FLEXIBLE_BLOCKS = ((6, 4), (5, 5), (8, 3))
MAX_TABLE = 1024  # patches; a table of all blocks of such a grid takes 1 MiB


@dataclass(frozen=True)
class MaskSpec:
    """Specification of masks.

    Attributes:
        grid: number of patches along (time, mel), for instance (64, 8) for 10 s.
        mask_prob: share of hidden patches, between 0 and 1.
        mask_prob_adjust: added to the share of kept (inverse) or hidden (block) patches when blocks
            are counted, because blocks overlap.
        mask_length: side of a block, in patches.
        strategy: one of ``STRATEGIES``.

    Raises:
        ValueError: if it hides all patches, or none, or names an unknown strategy.
    """

    grid: tuple[int, int]
    mask_prob: float = 0.8
    mask_prob_adjust: float = 0.07
    mask_length: int = 5
    strategy: str = "inverse_block"

    def __post_init__(self) -> None:
        """Refuse impossible specifications before workers start."""
        if self.strategy not in STRATEGIES:
            choices = ", ".join(STRATEGIES)
            raise ValueError(f"mask strategy is {self.strategy!r}; choose one of {choices}")
        if not 0 < self.mask_prob < 1:
            raise ValueError(f"mask_prob is {self.mask_prob}; it must lie between 0 and 1")
        if self.mask_length < 1:
            raise ValueError(f"mask_length is {self.mask_length}; it must be 1 or more")
        if not 0 < self.num_visible < self.num_patches:
            raise ValueError(
                f"mask_prob={self.mask_prob} keeps {self.num_visible} of the {self.num_patches} "
                f"patches of a {self.grid[0]}x{self.grid[1]} grid; at least one must be kept and "
                "one hidden: change mask_prob or the input's size"
            )

    @classmethod
    def from_options(cls, options: Any, grid: tuple[int, int], flexible: bool = False) -> MaskSpec:
        """Translate options.

        Args:
            options: ``mask_strategy`` chooses the strategy; if it is None, ``inverse_mask``,
                ``mask_length`` and ``flexible`` do.
            grid: (time, mel) size of the patch grid.
            flexible: keep blocks of varying shapes, not squares.
        """
        strategy = getattr(options, "mask_strategy", None)  # older checkpoints do not have it
        if strategy is None:
            strategy = "inverse_block" if options.inverse_mask else "block"
            if flexible:
                strategy = "flexible"
            if options.mask_length == 1:
                strategy = "random"
        return cls(grid, options.mask_prob, options.mask_prob_adjust, options.mask_length, strategy)

    def resized(self, columns: int) -> MaskSpec:
        """Return the specification for a clip of so many time steps, in patches.

        Raises:
            ValueError: if the clip is so short that no patch would be kept, or none hidden.
        """
        return replace(self, grid=(columns, self.grid[1]))

    @property
    def num_patches(self) -> int:
        """Number of patches of the grid, L."""
        return self.grid[0] * self.grid[1]

    @property
    def num_visible(self) -> int:
        """Number of visible patches per mask, V."""
        if self.strategy == "block":
            return self.num_patches - int(self.num_patches * self.mask_prob)
        return int(self.num_patches * (1 - self.mask_prob))


def draw_masks(spec: MaskSpec, num_masks: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw masks, uint8 [K, L], with ``spec.num_visible`` zeros per row.

    All random numbers come from ``generator``; from the global one if None.
    """
    return STRATEGIES[spec.strategy](spec, num_masks, generator)


def join_masks(masks: list[Tensor]) -> Tensor:
    """Concatenate masks [K, L_b] of clips of different length to [clips * K, L]; padding is 1."""
    longest = max(mask.size(1) for mask in masks)
    return torch.cat([F.pad(mask, (0, longest - mask.size(1)), value=1) for mask in masks])


def draw_random(spec: MaskSpec, num_masks: int, generator: torch.Generator | None) -> Tensor:
    """Hide patches uniformly at random (MAE, He et al. 2022)."""
    scores = torch.rand(num_masks, spec.num_patches, generator=generator).numpy()
    return _hide_all_but_top(scores, spec.num_visible)


def draw_inverse_block(spec: MaskSpec, num_masks: int, generator: torch.Generator | None) -> Tensor:
    """Keep a few square blocks, hide the rest (EAT, Chen et al. 2024, section 3.2)."""
    return _keep_blocks(spec, num_masks, generator, (spec.mask_length, spec.mask_length))


def draw_flexible(spec: MaskSpec, num_masks: int, generator: torch.Generator | None) -> Tensor:
    """Keep blocks of one of the shapes ``FLEXIBLE_BLOCKS``, the shape drawn once a call."""
    choice = torch.randint(len(FLEXIBLE_BLOCKS), (), generator=generator)
    return _keep_blocks(spec, num_masks, generator, FLEXIBLE_BLOCKS[int(choice)])


def draw_block(spec: MaskSpec, num_masks: int, generator: torch.Generator | None) -> Tensor:
    """Hide square blocks, keep the rest (BEiT, Bao et al. 2022)."""
    size = (spec.mask_length, spec.mask_length)
    covered = _cover_blocks(spec, num_masks, generator, size, spec.mask_prob)
    scores = torch.rand(num_masks, spec.num_patches, generator=generator).numpy()
    return _hide_all_but_top(scores - covered, spec.num_visible)


STRATEGIES = {
    "inverse_block": draw_inverse_block,
    "block": draw_block,
    "random": draw_random,
    "flexible": draw_flexible,
}


def _keep_blocks(
    spec: MaskSpec, num_masks: int, generator: torch.Generator | None, size: tuple[int, int]
) -> Tensor:
    covered = _cover_blocks(spec, num_masks, generator, size, 1 - spec.mask_prob)
    # Covered patches have higher scores than all others, at random among themselves. The best V
    # drop patches uniformly from a large cover, or add them uniformly to a small one.
    scores = torch.rand(num_masks, spec.num_patches, generator=generator).numpy()
    return _hide_all_but_top(scores + covered, spec.num_visible)


def _cover_blocks(
    spec: MaskSpec,
    num_masks: int,
    generator: torch.Generator | None,
    size: tuple[int, int],
    share: float,
) -> np.ndarray:
    """Cover the grid with blocks around centres drawn with replacement: bool [K, L].

    A block starts ``mask_length // 2`` before its centre, and is cut off at the border. On a grid
    with fewer rows or columns than a block has, blocks count with the area that fits.
    """
    height, width = (min(pair) for pair in zip(size, spec.grid))
    share = max(0.0, share + spec.mask_prob_adjust)
    num_blocks = int(spec.num_patches * (share / (height * width)))
    drawn = torch.randint(spec.num_patches, (num_masks, num_blocks), generator=generator)
    centres, offset = drawn.numpy(), spec.mask_length // 2
    if spec.num_patches <= MAX_TABLE:
        blocks = _block_table(spec.grid, size, offset).take(centres, axis=0)
    else:
        blocks = _blocks_around(centres, spec.grid, size, offset)
    return np.bitwise_or.reduce(blocks, axis=1)


@lru_cache(maxsize=64)
def _block_table(grid: tuple[int, int], size: tuple[int, int], offset: int) -> np.ndarray:
    """Return the block around each patch of a grid, bool [L, L]."""
    return _blocks_around(np.arange(grid[0] * grid[1]), grid, size, offset)


def _blocks_around(
    centres: np.ndarray, grid: tuple[int, int], size: tuple[int, int], offset: int
) -> np.ndarray:
    """Return the blocks around some patches [...], bool [..., L]."""
    hits = []
    for axis, length in enumerate(grid):
        centre = centres // grid[1] if axis == 0 else centres % grid[1]
        distance = np.arange(length) - centre[..., None]  # [..., length]
        # A block that is larger than the grid always has its centre.
        first = -offset if length >= size[axis] else -min(offset, size[axis] - 1)
        hits.append((distance >= first) & (distance < size[axis] + first))
    blocks = hits[0][..., :, None] & hits[1][..., None, :]
    return blocks.reshape(*centres.shape, -1)


def _hide_all_but_top(scores: np.ndarray, num_visible: int) -> Tensor:
    """Turn scores, float32 [K, L], into masks that keep the ``num_visible`` best patches per row.

    NumPy's partition is many times faster than PyTorch's ``topk``.
    """
    worse = scores.shape[1] - num_visible
    least = np.partition(scores, worse, axis=1)[:, worse, None]
    hidden = scores < least
    if np.count_nonzero(hidden) != worse * len(scores):  # equal scores, at 1 mask in 10,000
        order = scores.argpartition(worse, axis=1)
        np.put_along_axis(hidden, order[:, :worse], True, axis=1)
        np.put_along_axis(hidden, order[:, worse:], False, axis=1)
    return torch.from_numpy(hidden.view(np.uint8))
