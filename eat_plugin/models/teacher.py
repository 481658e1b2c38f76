"""The teacher: an exponential moving average of the student. It makes the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..losses import average_layers
from ..modules.foreach import in_float32
from .config import EatConfig
from .encoder import EatEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping


class Teacher:
    """Exponential moving average of a student's encoder (data2vec 2.0, sec. 3.1).

    It is not an ``nn.Module``: fairseq, DDP and optimizers do not see its parameters. The averages
    are float32 for any precision of the student. If the teacher computes in float32 too, its
    weights *are* the averages; otherwise they are copies, refreshed after every step.

    Attributes:
        averages: averaged tensors by name; a checkpoint stores them under ``_ema``.
        decay: decay of the last step.
        norms: L2 norms of the averaged parameters after the last step, by log name.
    """

    def __init__(self, student: EatEncoder, cfg: EatConfig) -> None:
        self.cfg = cfg
        self.decay = cfg.ema_decay
        self.norms: dict[str, Tensor] = {}
        copy = EatEncoder(cfg)
        if not cfg.ema_encoder_only and not cfg.modalities.image.ema_local_encoder:
            copy.patch_encoder.local_encoder = None
        own = student.state_dict()
        nn.Module.load_state_dict(copy, {name: own[name] for name in copy.state_dict()})
        if cfg.ema_encoder_only:
            del copy.modality_encoders
        self.encoder = copy.requires_grad_(False).eval()
        self.module: nn.Module = copy.blocks if cfg.ema_encoder_only else copy
        self._weights = dict(self.module.named_parameters())
        self.averages = {name: weight.data for name, weight in self._weights.items()}

    def match_precision(self, weight: Tensor) -> None:
        """Move to the device and precision of one of the student's weights."""
        precise = torch.float64 if weight.dtype == torch.float64 else torch.float32
        own = weight.dtype if self.cfg.ema_same_dtype else precise
        for name, average in self.averages.items():
            self.averages[name] = average.to(weight.device, precise)
            self._weights[name].data = self.averages[name].to(own)

    @torch.no_grad()
    def step(self, student: EatEncoder, decay: float) -> None:
        """Average once: teacher = decay * teacher + (1 - decay) * student."""
        self.decay = decay
        if decay >= 1:
            return
        source: nn.Module = student.blocks if self.cfg.ema_encoder_only else student
        pairs = [
            (name, parameter.detach())
            for name, parameter in source.named_parameters()
            if name in self.averages and parameter.requires_grad
        ]
        new = in_float32([parameter for _, parameter in pairs])
        old = [self.averages[name] for name, _ in pairs]
        torch._foreach_lerp_(old, new, 1 - decay)
        weights = [self._weights[name].data for name, _ in pairs]
        # In float32 weights and averages are the same tensors, except in a deep copy of the model.
        if any(w.data_ptr() != average.data_ptr() for w, average in zip(weights, old)):
            torch._foreach_copy_(weights, old)
        if self.cfg.log_norms:
            norms = torch.stack(torch._foreach_norm([*new, *old])).view(2, -1).norm(dim=1)
            self.norms = {"model_norm": norms[0], "ema_norm": norms[1]}

    @torch.no_grad()
    def make_targets(
        self,
        student: EatEncoder,
        source: Tensor,
        local: Tensor,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Encode whole clips and turn the last blocks into targets.

        Args:
            student: has the parts that the teacher shares.
            source: [B, C, T, F].
            local: [B, L, D], the student's patch embeddings of the same clips.
            padding: bool [B, L], True = padding, or None.

        Returns:
            [B, L, D], float32.
        """
        dtype = next(iter(self._weights.values())).dtype
        owner = student if self.cfg.ema_encoder_only else self.encoder
        patches = owner.patch_encoder
        if owner is not student and patches.local_encoder is not None:
            local = patches.local_features(source.to(dtype))
        x = patches.contextualize(patches.add_positions(local.to(dtype))).to(dtype)
        _, layers = self.encoder.run_blocks(x, student.token_padding(padding))
        cfg = self.cfg
        extra = cfg.modalities.image.num_extra_tokens
        return average_layers(
            [layer[:, extra:] for layer in layers[-cfg.average_top_k_layers :]],
            instance_norm_layer=cfg.instance_norm_target_layer,
            batch_norm_layer=cfg.batch_norm_target_layer,
            layer_norm_layer=cfg.layer_norm_target_layer,
            instance_norm=cfg.instance_norm_targets,
            layer_norm=cfg.layer_norm_targets,
            padding=padding,
        )

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy averages.

        Raises:
            ValueError: if names or shapes differ.
        """
        own = {name: list(average.shape) for name, average in self.averages.items()}
        given = {name: list(average.shape) for name, average in state.items()}
        different = {n for n in own.keys() | given.keys() if own.get(n) != given.get(n)}
        if different:
            name = min(different)
            raise ValueError(
                f"the checkpoint's teacher (_ema) has {name!r} of shape {given.get(name)}, the "
                f"model's of {own.get(name)} (None: no such tensor); tensors that differ: "
                f"{len(different)}; do model.ema_encoder_only and ema_local_encoder agree?"
            )
        for name, average in self.averages.items():
            average.copy_(state[name])
            self._weights[name].data.copy_(average)


def annealed_decay(cfg: EatConfig, num_updates: int) -> float:
    """Decay at an update: linear from ``ema_decay`` to ``ema_end_decay``, then constant."""
    if num_updates >= cfg.ema_anneal_end_step:
        return cfg.ema_end_decay
    remaining = 1 - num_updates / cfg.ema_anneal_end_step
    return cfg.ema_end_decay - (cfg.ema_end_decay - cfg.ema_decay) * remaining
