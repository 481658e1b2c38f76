"""Masks turned into indices: which patches a student sees, and which it predicts.

In this file:
    PatchSplit       the patches of a batch, visible and hidden
    Ragged           what is to be known beside where clips differ in length
    split_patches    makes a PatchSplit of masks
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .patches import flat_indices, split_mask


@dataclass(frozen=True)
class Ragged:
    """Clips of different length, each of which sees its own number of patches V_n.

    Attributes:
        padding: bool [N, L], True for a patch of which the clip has nothing.
        unused: bool [N, V], True where a row of ``visible`` has no more patches: n >= V_n.
        used: [N_visible], where the others lie in a flattened [N * V, D].
        own_rows: [N_visible + N_hidden], where all but padding lies in a flattened [N * L, D].
        num_patches: of each clip, L_b; on the host.
        hidden_share: float64 [N], a row's number of hidden patches over the mean of all rows.
    """

    padding: Tensor
    unused: Tensor
    used: Tensor
    own_rows: Tensor
    num_patches: list[int]
    hidden_share: Tensor


@dataclass(frozen=True)
class PatchSplit:
    """The visible and the hidden patches of N = B * K masks over L patches.

    Attributes:
        visible: [N, V] indices of the visible patches, ascending; V is the most that a row has.
        visible_rows: [N_visible], where they lie in a flattened [N * L, D], row by row.
        hidden_rows: [N_hidden], where the hidden ones lie there.
        hidden_sources: [N_hidden], where those lie among the clips' own patches, [B * L, D].
        ragged: more about clips of different length; None where all are alike.
    """

    visible: Tensor
    visible_rows: Tensor
    hidden_rows: Tensor
    hidden_sources: Tensor
    ragged: Ragged | None = None

    def visible_tokens(self, x: Tensor) -> Tensor:
        """Flatten tokens [N, V, D], as ``visible`` picks them, to [N_visible, D]."""
        x = x.flatten(0, 1)
        return x if self.ragged is None else x.index_select(0, self.ragged.used)


def split_patches(
    mask: Tensor, num_visible: int | None, clones: int, padding: Tensor | None
) -> PatchSplit:
    """Turn masks into indices.

    Args:
        mask: [N, L], 1 = hidden. Without padding every row has the same number of ones.
        num_visible: number of zeros of a row, without padding. Where it is None it is counted.
        clones: K, how many consecutive rows share a clip.
        padding: bool [N / K, L]; the mask of these patches does not matter. Everything is counted,
            here and at once: a GPU waits for the host only here.

    Raises:
        ValueError: if rows differ in their number of ones, and there is no padding.
    """
    if padding is not None:
        return _split_ragged(mask, clones, padding)
    visible, hidden = split_mask(mask, num_visible)
    length = mask.size(1)
    return PatchSplit(
        visible,
        flat_indices(visible, length),
        flat_indices(hidden, length),
        flat_indices(hidden, length, clones),
    )


def _split_ragged(mask: Tensor, clones: int, padding: Tensor) -> PatchSplit:
    num_patches = padding.size(1) - padding.sum(dim=1)  # [B]
    padding = padding.repeat_interleave(clones, dim=0)  # [N, L]
    is_visible = (mask == 0) & ~padding
    is_hidden = (mask != 0) & ~padding
    num_hidden = is_hidden.sum(dim=1).double()
    counts = is_visible.sum(dim=1, keepdim=True)
    order = (~is_visible).to(torch.uint8).argsort(dim=1, stable=True)
    visible = order[:, : int(counts.max())]
    unused = torch.arange(visible.size(1), device=mask.device) >= counts
    hidden_rows = _true_rows(is_hidden)
    length = mask.size(1)
    clips = hidden_rows.div(length * clones, rounding_mode="floor")
    return PatchSplit(
        visible,
        _true_rows(is_visible),
        hidden_rows,
        clips * length + hidden_rows % length,
        Ragged(
            padding=padding,
            unused=unused,
            used=_true_rows(~unused),
            own_rows=_true_rows(~padding),
            num_patches=num_patches.tolist(),
            hidden_share=num_hidden / num_hidden.mean(),
        ),
    )


def _true_rows(values: Tensor) -> Tensor:
    return values.flatten().nonzero().squeeze(1)
