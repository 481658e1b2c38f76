"""Losses and targets of EAT, as pure functions. ``models/objectives.py`` composes them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def regression_loss(
    prediction: Tensor, target: Tensor, beta: float = 0.0, scale: float | None = None
) -> Tensor:
    """Element-wise squared error, or smooth L1, in float32 (EAT eq. 3 and 4, before the mean).

    Args:
        prediction: [N, D].
        target: [N, D], without gradient.
        beta: error at which smooth L1 turns linear; 0 for the squared error.
        scale: constant factor; 1 / sqrt(D) if None.

    Returns:
        [N, D], unreduced.
    """
    factor = prediction.size(-1) ** -0.5 if scale is None else scale
    target = target.to(torch.promote_types(prediction.dtype, torch.float32))
    if beta > 0:
        prediction = prediction.to(target.dtype)
        return F.smooth_l1_loss(prediction, target, reduction="none", beta=beta) * factor
    return _SquaredError.apply(prediction, target, factor)


class _SquaredError(torch.autograd.Function):
    """(prediction - target)^2 * factor; keeps only the difference for backward."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, factor: float) -> Tensor:
        error = prediction - target
        ctx.save_for_backward(error)
        ctx.factor, ctx.dtype = factor, prediction.dtype
        return error.square().mul_(factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (error,) = ctx.saved_tensors
        return (error * gradient).mul_(2 * ctx.factor).to(ctx.dtype), None, None


def dino_loss(
    logits: Tensor,
    target: Tensor,
    centre: Tensor,
    student_temp: float,
    teacher_temp: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the student's and the teacher's distributions (DINO, Caron et al. 2021).

    Args:
        logits: [N, D], of the student.
        target: [N, D], of the teacher, without gradient.
        centre: [1, D], running mean of the targets, subtracted once.
        student_temp: temperature of the student's softmax.
        teacher_temp: temperature of the teacher's softmax, smaller to sharpen it.
        weights: [N], weights of rows with mean 1; None for 1.

    Returns:
        Scalar mean over rows.
    """
    logits, target = _at_least_float32(logits), _at_least_float32(target)
    expected = ((target - centre.to(target.dtype)) / teacher_temp).softmax(dim=-1)
    log_probs = (logits / student_temp).log_softmax(dim=-1)
    losses = (expected * log_probs).sum(dim=-1)
    return -(losses if weights is None else losses * weights.to(losses.dtype)).mean()


def asymmetric_loss(
    logits: Tensor, targets: Tensor, gamma_negative: float, gamma_positive: float, shift: float
) -> Tensor:
    """Binary cross-entropy with less weight on what is easy (Ridnik et al. 2021, eq. 7).

    With p the probability of the right answer, each term is ``-(1 - p)^gamma log(p)``. The
    probability of an absent class is lowered by ``shift`` before, so that those below it count 0.

    Args:
        logits: [N, classes].
        targets: [N, classes], from 0 to 1; between them (mixup, smoothing) both terms count.
        gamma_negative: exponent for absent classes.
        gamma_positive: exponent for those that are there.
        shift: of the probability of absent classes.

    Returns:
        [N, classes], float32.
    """
    logits, targets = _at_least_float32(logits), _at_least_float32(targets)
    absent = (logits.sigmoid() - shift).clamp(min=0)
    present = (-logits).sigmoid().pow(gamma_positive) * F.logsigmoid(logits)
    # Without a shift the logarithm of a confident mistake would be infinite.
    missed = absent.pow(gamma_negative) * (1 - absent).clamp(min=1e-8).log()
    return -(targets * present + (1 - targets) * missed)


def normalize_patches(values: Tensor) -> Tensor:
    """Standardise patch values [..., p*p*channels] by their mean and unbiased variance, in float32.

    Source: MAE, He et al. 2022, sec. 3.
    """
    values = _at_least_float32(values)
    centred = values - values.mean(dim=-1, keepdim=True)
    return centred / _patch_deviation(values)


def restore_patches(normalised: Tensor, values: Tensor) -> Tensor:
    """Invert ``normalize_patches``, with the mean and the deviation of ``values``."""
    values = _at_least_float32(values)
    return normalised * _patch_deviation(values) + values.mean(dim=-1, keepdim=True)


def _patch_deviation(values: Tensor) -> Tensor:
    return (values.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def average_layers(
    layer_outputs: list[Tensor],
    *,
    instance_norm_layer: bool = False,
    batch_norm_layer: bool = False,
    layer_norm_layer: bool = False,
    instance_norm: bool = False,
    layer_norm: bool = False,
    padding: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Average a teacher's layers into targets (data2vec 2.0, Baevski et al. 2022, sec. 3.2).

    Args:
        layer_outputs: each [B, L, D].
        instance_norm_layer: normalise each layer over L, per clip and channel.
        batch_norm_layer: normalise each layer over B and L, per channel; before instance norm.
        layer_norm_layer: normalise each layer over D; after instance norm.
        instance_norm: normalise the average over L; after ``layer_norm``.
        layer_norm: normalise the average over D.
        padding: bool [B, L], True = padding, which is excluded; or None.
        eps: epsilon of all these norms.

    Returns:
        [B, L, D], float32.
    """
    total = torch.zeros_like(layer_outputs[0], dtype=_at_least_float32(layer_outputs[0]).dtype)
    for output in layer_outputs:
        x = output.to(total.dtype)
        if batch_norm_layer:
            x = _normalize_batch(x, padding, eps)
        if instance_norm_layer:
            x = _normalize_clips(x, padding, eps)
        if layer_norm_layer:
            x = F.layer_norm(x, x.shape[-1:], eps=eps)
        total += x
    y = total / len(layer_outputs)
    if layer_norm:
        y = F.layer_norm(y, y.shape[-1:], eps=eps)
    if instance_norm:
        y = _normalize_clips(y, padding, eps)
    return y


def _normalize_clips(x: Tensor, padding: Tensor | None, eps: float) -> Tensor:
    """Standardise each channel of x [B, L, D] over the patches of each clip."""
    if padding is None:
        return F.instance_norm(x.transpose(1, 2), eps=eps).transpose(1, 2)
    return _standardize(x, padding, (1,), eps)


def _normalize_batch(x: Tensor, padding: Tensor | None, eps: float) -> Tensor:
    """Standardise each channel of x [B, L, D] over the patches of all clips."""
    if padding is None:
        return F.batch_norm(x.transpose(1, 2), None, None, training=True, eps=eps).transpose(1, 2)
    return _standardize(x, padding, (0, 1), eps)


def _standardize(x: Tensor, padding: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    blank = padding.unsqueeze(-1)
    count = (~blank).sum(dim=dims, keepdim=True)
    mean = x.masked_fill(blank, 0).sum(dim=dims, keepdim=True) / count
    centred = (x - mean).masked_fill(blank, 0)
    variance = centred.square().sum(dim=dims, keepdim=True) / count
    return centred * (variance + eps).rsqrt()


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
