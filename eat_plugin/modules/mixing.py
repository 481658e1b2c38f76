"""Augmentations of a training batch, on the device of the model.

Random numbers come from PyTorch's global CPU generator, which fairseq seeds by (seed, update): a
resumed run draws the same, and nothing waits for the device.
"""

from __future__ import annotations

import math
from typing import Callable

import torch
from torch import Tensor
from torch.distributions import Beta

# Mode -> map rows 0, ..., B - 1 to the rows whose random numbers they use.
MODES: dict[str, Callable[[Tensor], Tensor]] = {
    "batch": torch.zeros_like,
    "pair": lambda rows: torch.minimum(rows, rows.flip(0)),
    "elem": torch.clone,
}


def mix_batch(
    source: Tensor,
    targets: Tensor,
    *,
    mixup: float,
    cutmix: float,
    prob: float,
    switch_prob: float,
    mode: str,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mix each clip and its targets with a partner: row i with row B - 1 - i.

    mixup (Zhang et al. 2018): l * own + (1 - l) * partner, with l ~ Beta(mixup, mixup).
    cutmix (Yun et al. 2019): a box with sides int(T * sqrt(1 - l)) and int(F * sqrt(1 - l)) around
    a uniform centre, cut off at the border, comes from the partner, with l ~ Beta(cutmix, cutmix);
    targets are weighted by the remaining area. The middle row of an odd batch stays unchanged.

    Clips of different length: T is the longer length of the two clips, which is also the length of
    the result. Frames of only one of the two clips are not mixed.

    Args:
        source: [B, channels, T, F].
        targets: [B, classes].
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of cutmix; 0 for none.
        prob: probability of mixing.
        switch_prob: probability of cutmix if both are on.
        mode: one draw per ``batch``, per ``pair`` of partners, or per ``elem``.
        lengths: int64 [B], frames of each clip; padding must be finite. None for T.

    Returns:
        Mixed source and targets of the same shapes, and the lengths. Inputs are not modified.

    Raises:
        ValueError: if an option is out of range, or the shapes do not fit.
    """
    _check_mixing(mixup, cutmix, prob, switch_prob, mode)
    if source.dim() != 4 or targets.dim() != 2 or len(source) != len(targets):
        raise ValueError(
            f"source has shape {list(source.shape)} and targets {list(targets.shape)}; expected "
            "[B, channels, T, F] and [B, classes]"
        )
    if mixup == cutmix == 0:
        return source, targets, lengths
    num_clips = len(source)
    sizes = _common_sizes(source, lengths)
    row = MODES[mode](torch.arange(num_clips))
    own, is_cut = (x[row] for x in _draw_shares(num_clips, mixup, cutmix, prob, switch_prob))
    centres = torch.rand(num_clips, 2)[row]
    weight = _to_device(own.view(-1, 1, 1, 1), source)
    if bool(is_cut.any()):
        own, is_cut, centres = (_to_device(x, sizes) for x in (own, is_cut, centres))
        first, last = _place_boxes(1 - own, centres, sizes)
        own = torch.where(is_cut, 1 - (last - first).prod(dim=1) / sizes.prod(dim=-1), own)
        in_time = _spans(first[:, 0], last[:, 0], source, 2)
        in_mel = _spans(first[:, 1], last[:, 1], source, 3)
        cut = _to_device(is_cut.view(-1, 1, 1, 1), source)
        weight = torch.where(cut, (~(in_time & in_mel)).float(), weight)  # [B, 1, T, F]
    if lengths is not None:
        weight = _keep_unpaired_frames(weight, lengths, source)
        lengths = torch.where(_to_device(own, lengths) < 1, sizes[:, 0], lengths)
    return _blend(source, weight), _blend(targets, _to_device(own.view(-1, 1), targets)), lengths


def mask_spectrogram(
    source: Tensor,
    time_width: float | Tensor,
    mel_width: float,
    lengths: Tensor | None = None,
) -> Tensor:
    """Set one span of time and one of mel bins of each clip to 0 (SpecAugment, Park et al. 2019).

    Width w is uniform in [0, largest), start s uniform in [0, size - w); the span is int(s) to
    int(s) + int(w).

    Args:
        source: [B, channels, T, F]; not modified.
        time_width: largest width in frames, for all clips or per clip [B]; 0 for no mask.
        mel_width: largest width in bins; 0 for no mask.
        lengths: int64 [B], frames of each clip; the span lies within. None for T.

    Raises:
        ValueError: if a width is negative or exceeds its axis.
    """
    is_masked = torch.zeros((), dtype=torch.bool, device=source.device)
    for name, largest, axis in (("time_width", time_width, 2), ("mel_width", mel_width, 3)):
        size: int | Tensor = source.size(axis)
        if not isinstance(largest, Tensor) and not 0 <= largest <= size:
            raise ValueError(f"{name} is {largest}; it must lie between 0 and the axis's {size}")
        uniform = torch.rand(2, len(source))
        if axis == 2 and lengths is not None:
            size, uniform = lengths, _to_device(uniform, lengths)
        width = uniform[0] * largest
        first = (uniform[1] * (size - width)).long()
        is_masked = is_masked | _spans(first, first + width.long(), source, axis)
    return source.masked_fill(is_masked, 0)


def smooth_targets(targets: Tensor, amount: float) -> Tensor:
    """Smooth targets [B, classes]: t * (1 - amount) + amount / classes.

    Raises:
        ValueError: if ``amount`` is not in [0, 1].
    """
    _check_share("amount", amount)
    return targets * (1 - amount) + amount / targets.size(-1)


def _draw_shares(
    num: int, mixup: float, cutmix: float, prob: float, switch_prob: float
) -> tuple[Tensor, Tensor]:
    """Draw the share of itself that a clip keeps (1: not mixed), and whether it is cut: [num]."""
    chance = torch.rand(num, 2)
    is_cut = torch.full((num,), cutmix > 0)
    if mixup > 0:
        is_cut &= chance[:, 0] < switch_prob
    own = torch.where(is_cut, _draw_beta(cutmix, num), _draw_beta(mixup, num))
    return own.where(chance[:, 1] < prob, torch.ones(())), is_cut


def _draw_beta(alpha: float, num: int) -> Tensor:
    """Draw from Beta(alpha, alpha), or ones if alpha is 0: [num]."""
    return Beta(alpha, alpha).sample((num,)) if alpha > 0 else torch.ones(num)


def _common_sizes(source: Tensor, lengths: Tensor | None) -> Tensor:
    """Return (T, F) as [2], or for each clip and its partner together [B, 2]."""
    if lengths is None:
        return torch.tensor(source.shape[2:])
    longer = torch.maximum(lengths, lengths.flip(0))
    return torch.stack([longer, torch.full_like(longer, source.size(3))], dim=1)


def _keep_unpaired_frames(weight: Tensor, lengths: Tensor, source: Tensor) -> Tensor:
    """Weight a clip by 1 after the end of its partner, and by 0 after its own end."""
    start = torch.zeros_like(lengths)
    own, partner = _spans(start, lengths, source, 2), _spans(start, lengths.flip(0), source, 2)
    return torch.where(own == partner, weight, own.to(weight.dtype))


def _place_boxes(shares: Tensor, centres: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Place boxes of area ``shares`` [B] around ``centres`` [B, 2] in (T, F), [2] or [B, 2].

    Shares and centres lie between 0 and 1. Return the first index inside and the first index
    behind, int [B, 2] each, along (time, mel), cut off at the border.
    """
    sides = (shares.sqrt()[:, None] * size).long()
    first = (centres * size).long() - sides // 2
    return first.clamp(min=0), torch.minimum(first + sides, size)


def _spans(first: Tensor, last: Tensor, source: Tensor, axis: int) -> Tensor:
    """Mark indices first <= i < last [B] of an axis: bool, [B, 1, T, 1] or [B, 1, 1, F]."""
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    index = torch.arange(source.size(axis), device=source.device).view(shape)
    first, last = (_to_device(edge.view(-1, 1, 1, 1), source) for edge in (first, last))
    return (first <= index) & (index < last)


def _blend(values: Tensor, own: Tensor) -> Tensor:
    """Weight rows by ``own`` and their partners by 1 - ``own``, in float32 at least."""
    mixed = values * own + values.flip(0) * (1 - own)
    return mixed.to(values.dtype) if values.is_floating_point() else mixed


def _to_device(drawn: Tensor, like: Tensor) -> Tensor:
    return drawn.to(like.device, non_blocking=True)


def _check_mixing(mixup: float, cutmix: float, prob: float, switch_prob: float, mode: str) -> None:
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if not 0 <= alpha < math.inf:
            raise ValueError(f"{name} is {alpha}; it must be 0 (none) or a positive number")
    _check_share("prob", prob)
    _check_share("switch_prob", switch_prob)
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; choose one of {', '.join(MODES)}")


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is {share}; it must lie between 0 and 1")
