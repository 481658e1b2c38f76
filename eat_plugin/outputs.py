"""Outputs of the models: plain dictionaries, as fairseq's stock ``model`` criterion needs them."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class FeatureOutput(TypedDict):
    """Output of ``extract_features``.

    Attributes:
        x: [B, S, D], output of the last block for S patches, after the extra tokens if kept.
        padding_mask: bool [B, S], True = padding, or None.
        layer_results: target output of each block, each [B, E + S, D].
        mask: uint8 [B, L], 1 = hidden, or None without a mask.
    """

    x: Tensor
    padding_mask: Tensor | None
    layer_results: list[Tensor]
    mask: Tensor | None


class PretrainingOutput(TypedDict, total=False):
    """Output of pre-training.

    Attributes:
        losses: loss by objective, times its weight. ``regression`` [N_hidden, D]; ``recon``
            [N_hidden, p*p*channels]; ``retention`` [N_hidden / 2, D], of the mixtures;
            ``cls`` [B*K, D] (DINO: a scalar), times ``sample_size``;
            ``dino``, a scalar, times ``sample_size``.
            With ``loss_average=elements`` their sums over ``sample_size`` are means of elements.
            Padding is excluded. Among clips of different length, a row of ``cls`` is also weighted
            by its number of hidden patches over the mean of all rows.
        loss_items: number of items by objective (hidden patches, or hidden patches times
            utterances); the sum of a loss over it is the mean of one item.
        sample_size: number of hidden patches that are predicted in the batch, over all clones (and
            mixtures).
        masked_pct: share of hidden patches.
        pred_var: mean over channels of the standard deviation of predictions, over all ranks.
        target_var: the same of the targets; near 0 after a collapse.
        ema_decay: decay of the teacher, times 1000.
        model_norm: L2 norm of the averaged parameters of the student at the last teacher step.
        ema_norm: L2 norm of the averages.
        dino_entropy: mean entropy of the targets of ``dino`` in nats.
        dino_entropy_of_mean: entropy of their mean over the clips of all ranks.
        dino_log_prototypes: the logarithm of their width, the largest that both can be.
    """

    losses: dict[str, Tensor]
    loss_items: dict[str, float]
    sample_size: int
    masked_pct: float
    pred_var: Tensor
    target_var: Tensor
    ema_decay: float
    model_norm: Tensor
    ema_norm: Tensor
    dino_entropy: Tensor
    dino_entropy_of_mean: Tensor
    dino_log_prototypes: Tensor


class ClassificationOutput(TypedDict, total=False):
    """Output of the classifier with targets.

    Attributes:
        losses: ``main``: [B] for cross-entropy and the asymmetric loss, [B, classes] for binary
            cross-entropy, [B, steps, classes] of time steps.
        sample_size: number of clips; of binary cross-entropy with several labels per clip, of
            positive labels; of time steps with sound.
        _predictions: [B, classes] or [B, steps, classes] probabilities, in evaluation.
        _targets: the same shape, in evaluation; -1 in padding.
        correct: number of correctly classified clips, in evaluation with one label per clip.
    """

    losses: dict[str, Tensor]
    sample_size: int | Tensor
    _predictions: Tensor
    _targets: Tensor
    correct: Tensor
