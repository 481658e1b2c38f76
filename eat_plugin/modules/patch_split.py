"""Masks as indices: the patches that the student sees, and those that it predicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VariableLengths:
    """Clips of different length; row n has V_n visible patches.

    Attributes:
        padding: bool [N, L], True = padding.
        unused: bool [N, V], True where ``visible`` has no patch: column >= V_n.
        used: [N_visible], rows of the others in a flattened [N * V, D].
        own_rows: [N_visible + N_hidden], rows without padding in a flattened [N * L, D].
        num_patches: L_b of each clip, on the host.
        hidden_share: float64 [N], hidden patches of a row over the mean of all rows.
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
        visible: [N, V] indices of the visible patches, ascending; V is the largest of all rows.
        visible_rows: [N_visible], their rows in a flattened [N * L, D].
        hidden_rows: [N_hidden], rows of the hidden patches there.
        hidden_sources: [N_hidden], rows of the hidden patches in the clips' patches, [B * L, D].
        lengths: given for clips of different length.
    """

    visible: Tensor
    visible_rows: Tensor
    hidden_rows: Tensor
    hidden_sources: Tensor
    lengths: VariableLengths | None = None

    def flatten_visible(self, x: Tensor) -> Tensor:
        """Flatten tokens [N, V, D] in the order of ``visible`` to [N_visible, D]."""
        x = x.flatten(0, 1)
        return x if self.lengths is None else x.index_select(0, self.lengths.used)


def split_patches(
    mask: Tensor, num_visible: int | None, clones: int, padding: Tensor | None
) -> PatchSplit:
    """Turn masks into indices.

    Args:
        mask: [N, L], 1 = hidden. Without padding all rows have the same number of ones.
        num_visible: number of zeros per row, without padding; counted if None.
        clones: K, number of consecutive rows per clip.
        padding: bool [N / K, L]; the mask is ignored there. All counting is done here, at once: a
            GPU waits for the host nowhere else.

    Raises:
        ValueError: if rows have different numbers of ones, without padding.
    """
    if padding is not None:
        return _split_variable(mask, clones, padding)
    visible, hidden = split_mask(mask, num_visible)
    length = mask.size(1)
    return PatchSplit(
        visible,
        flat_indices(visible, length),
        flat_indices(hidden, length),
        flat_indices(hidden, length, clones),
    )


def _split_variable(mask: Tensor, clones: int, padding: Tensor) -> PatchSplit:
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
        VariableLengths(
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


def split_mask(mask: Tensor, num_visible: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the indices of visible and of hidden patches, ascending: int64 [N, V] and [N, L - V].

    Args:
        mask: [N, L], 1 = hidden, with the same number of ones in every row.
        num_visible: V. Counted and checked if None; a GPU then waits for the host.

    Raises:
        ValueError: if rows were counted and have different numbers of ones.
    """
    if num_visible is None:
        counts = (mask == 0).sum(dim=1)
        num_visible = int(counts[0])
        if bool((counts != num_visible).any()):
            raise ValueError(
                f"masks keep between {int(counts.min())} and {int(counts.max())} patches; every "
                "mask of a batch must keep the same number"
            )
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, :num_visible], order[:, num_visible:]


def flat_indices(indices: Tensor, num_tokens: int, clones: int = 1) -> Tensor:
    """Turn token indices [N, M] into indices [N * M] of flattened tokens [N / clones * L, ...].

    Row n belongs to sequence ``n // clones`` of L = ``num_tokens`` tokens.
    """
    sequences = torch.arange(indices.size(0), device=indices.device)
    if clones > 1:
        sequences = sequences.div(clones, rounding_mode="floor")
    return (indices + (sequences * num_tokens).unsqueeze(1)).flatten()


def pick_tokens(tokens: Tensor, indices: Tensor, clones: int = 1) -> Tensor:
    """Gather tokens [N / clones, L, D] by index [N, M] to [N, M, D] without copying sequences."""
    rows = flat_indices(indices, tokens.size(1), clones)
    picked = tokens.reshape(-1, tokens.size(2)).index_select(0, rows)
    return picked.view(*indices.shape, -1)
