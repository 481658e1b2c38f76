"""The plain forms of feature extraction and fine-tuning, with the weights of a given model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from eat_plugin.models.classifier import EatClassifier
from eat_plugin.models.encoder import EatEncoder

from .plain_training import descend, make_adam, transform


def encode(encoder: EatEncoder, source: Tensor) -> Tensor:
    """Encode whole clips [B, C, T, F] to [B, E + L, D], the extra tokens first."""
    patches = encoder.patch_encoder
    x = patches.contextualize(patches.embed(source))
    for block in encoder.blocks:
        x, _ = transform(block, x)
    return x


@torch.no_grad()
def extract_features(encoder: EatEncoder, source: Tensor) -> Tensor:
    """Compute the features [B, L, D] of whole clips [B, C, T, F]."""
    return encode(encoder, source)[:, encoder.num_extra_tokens :]


class PlainFineTuning:
    """Updates a copy of a classifier with CLS pooling, without dropout and masks."""

    def __init__(
        self,
        model: EatClassifier,
        lr: float,
        clip_norm: float | None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model = copy.deepcopy(model).to(device=device, dtype=dtype).train()
        for own, given in zip(self.model.parameters(), model.parameters()):
            if hasattr(given, "optim_overrides"):  # deepcopy drops attributes
                own.optim_overrides = given.optim_overrides  # type: ignore[attr-defined]
        self.optimizer = make_adam(self.model, lr)
        self.clip_norm = clip_norm

    def step(self, source: Tensor, label: Tensor) -> float:
        """Do one update of cross-entropy with labels [B, classes]; return the mean loss."""
        model = self.model
        source = source.to(model.head.weight)
        label = label.to(source.device)
        x = encode(model.model, source)[:, 0]
        logits = model.head(x if model.fc_norm is None else model.fc_norm(x))
        smoothing = model.objective.smoothing
        targets = label * (1 - smoothing) + smoothing / label.size(1)
        loss = F.cross_entropy(logits.float(), targets)
        return descend(self.optimizer, loss, self.clip_norm)
