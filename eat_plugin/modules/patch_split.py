"""Masks as indices: the patches that the student sees, and those that it predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class VariableLengths:
    """Clips of different length; row n has V_n visible patches.

    Attributes:
        padding: bool [N, L], True = padding.
        unused: bool [N, V], True where ``visible`` has no patch: column >= V_n.
        used: [N_visible], rows of the others in a flattened [N * V, D].
        hidden_unused: bool [N, M], True where ``hidden`` has no patch.
        hidden_used: [N_hidden], rows of the others in a flattened [N * M, D].
        own_rows: [N_visible + N_hidden], rows without padding in a flattened [N * L, D].
        num_patches: L_b of each clip, on the host.
        hidden_share: float64 [N], hidden patches of a row over the mean of all rows.
    """

    padding: Tensor
    unused: Tensor
    used: Tensor
    hidden_unused: Tensor
    hidden_used: Tensor
    own_rows: Tensor
    num_patches: list[int]
    hidden_share: Tensor


@dataclass(frozen=True)
class PatchSplit:
    """The visible and the hidden patches of N = B * K masks over L patches.

    Attributes:
        visible: [N, V] indices of the visible patches, ascending; V is the largest of all rows.
        visible_rows: [N_visible], their rows in a flattened [N * L, D].
        hidden: [N, M] indices of the hidden patches; M is the largest of all rows.
        hidden_rows: [N_hidden], rows of the hidden patches in a flattened [N * L, D].
        hidden_sources: [N_hidden], rows of the hidden patches in the clips' patches, [B * L, D].
        num_masked: number of patches that the student does not see; more than N_hidden where some
            were left out.
        lengths: given for clips of different length.
    """

    visible: Tensor
    visible_rows: Tensor
    hidden: Tensor
    hidden_rows: Tensor
    hidden_sources: Tensor
    num_masked: int
    lengths: VariableLengths | None = None

    def flatten_visible(self, x: Tensor) -> Tensor:
        """Flatten tokens [N, V, D] in the order of ``visible`` to [N_visible, D]."""
        x = x.flatten(0, 1)
        return x if self.lengths is None else x.index_select(0, self.lengths.used)

    def flatten_hidden(self, x: Tensor) -> Tensor:
        """Flatten tokens [N, M, D] in the order of ``hidden`` to [N_hidden, D]."""
        x = x.flatten(0, 1)
        return x if self.lengths is None else x.index_select(0, self.lengths.hidden_used)


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
        hidden,
        flat_indices(hidden, length),
        flat_indices(hidden, length, clones),
        hidden.numel(),
    )


def _split_variable(mask: Tensor, clones: int, padding: Tensor) -> PatchSplit:
    num_patches = padding.size(1) - padding.sum(dim=1)  # [B]
    padding = padding.repeat_interleave(clones, dim=0)  # [N, L]
    is_visible = (mask == 0) & ~padding
    is_hidden = (mask != 0) & ~padding
    visible, unused = _list_true(is_visible)
    hidden, hidden_unused = _list_true(is_hidden)
    hidden_rows = _true_rows(is_hidden)
    length = mask.size(1)
    clips = hidden_rows.div(length * clones, rounding_mode="floor")
    return PatchSplit(
        visible,
        _true_rows(is_visible),
        hidden,
        hidden_rows,
        clips * length + hidden_rows % length,
        len(hidden_rows),
        VariableLengths(
            padding=padding,
            unused=unused,
            used=_true_rows(~unused),
            hidden_unused=hidden_unused,
            hidden_used=_true_rows(~hidden_unused),
            own_rows=_true_rows(~padding),
            num_patches=num_patches.tolist(),
            hidden_share=_share_of(hidden_unused),
        ),
    )


def _list_true(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the true values of each row, ascending, and where there is none."""
    counts = values.sum(dim=1, keepdim=True)
    order = (~values).to(torch.uint8).argsort(dim=1, stable=True)
    indices = order[:, : int(counts.max())]
    return indices, torch.arange(indices.size(1), device=values.device) >= counts


def _share_of(hidden_unused: Tensor) -> Tensor:
    numbers = torch.logical_not(hidden_unused).sum(dim=1).double()
    return numbers / numbers.mean()


def keep_hidden(split: PatchSplit, share: float, scores: Tensor, clones: int) -> PatchSplit:
    """Leave out hidden patches: keep a share of each row, at least one, those of lowest scores.

    Args:
        split: all of them.
        share: between 0 and 1.
        scores: [N, L], random numbers.
        clones: K, number of consecutive rows per clip.
    """
    lengths, length = split.lengths, scores.size(1)
    own = scores.gather(1, split.hidden)
    most = max(1, math.ceil(share * split.hidden.size(1)))
    if lengths is None:
        hidden = split.hidden.gather(1, own.argsort(dim=1)[:, :most])
        rows, sources = flat_indices(hidden, length), flat_indices(hidden, length, clones)
        return replace(split, hidden=hidden, hidden_rows=rows, hidden_sources=sources)
    numbers = torch.logical_not(lengths.hidden_unused).sum(dim=1, keepdim=True)
    kept = (numbers.double() * share).ceil().clamp(min=1)
    order = own.masked_fill(lengths.hidden_unused, torch.inf).argsort(dim=1)
    hidden = split.hidden.gather(1, order[:, :most])
    unused = torch.arange(most, device=hidden.device) >= kept
    used = _true_rows(~unused)
    return replace(
        split,
        hidden=hidden,
        hidden_rows=flat_indices(hidden, length)[used],
        hidden_sources=flat_indices(hidden, length, clones)[used],
        lengths=replace(
            lengths, hidden_unused=unused, hidden_used=used, hidden_share=_share_of(unused)
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
