"""What the models return: the contract between models and criterions.

The dictionaries stay plain ``dict`` at run time, so that fairseq's stock ``model`` criterion reads
them as well as ours.
"""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class FeatureOutput(TypedDict):
    """What ``extract_features`` returns.

    Attributes:
        x: [B, S, D] output of the last block; S counts patches, and the CLS token first where
            extra tokens were kept.
        padding_mask: bool [B, S], True = padding, or None.
        layer_results: the target output of each block, each [B, 1 + S, D].
        mask: uint8 [B, L], 1 = hidden, or None where nothing was masked.
    """

    x: Tensor
    padding_mask: Tensor | None
    layer_results: list[Tensor]
    mask: Tensor | None


class PretrainingOutput(TypedDict, total=False):
    """What the student returns in pre-training.

    Attributes:
        losses: name -> loss, times its weight. ``regression`` [N_hidden, D]; ``cls`` [B*K, D] (or a
            scalar, in the DINO variant), times ``sample_size``; ``recon`` [N_hidden, p*p*channels].
            Of clips of different length, a row of ``cls`` also counts by its own number of hidden
            patches, over the mean of all rows; of padding there is nothing.
        loss_items: name -> number of items that the sum of this loss is divided by to get the mean
            of one item (a hidden patch, an utterance).
        sample_size: number of hidden patches of the batch, over all clones.
        masked_pct: share of patches that is hidden.
        pred_var: scalar, mean over channels of the standard deviation of the predictions, over all
            processes.
        target_var: the same of the targets; a value near 0 tells of a collapse.
        ema_decay: the teacher's decay, times 1000.
        model_norm: L2 norm of the student's averaged parameters at the last teacher step.
        ema_norm: L2 norm of the teacher's.
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


class ClassificationOutput(TypedDict, total=False):
    """What the classifier returns when it is given targets.

    Attributes:
        losses: ``main``, the loss: [B] for cross-entropy, [B, classes] for binary cross-entropy.
        sample_size: number of clips, or of positive labels where clips have several.
        _predictions: [B, classes] probabilities, in evaluation.
        _targets: [B, classes], in evaluation.
        correct: scalar, number of clips classified right, in evaluation with one label a clip.
    """

    losses: dict[str, Tensor]
    sample_size: int | Tensor
    _predictions: Tensor
    _targets: Tensor
    correct: Tensor
