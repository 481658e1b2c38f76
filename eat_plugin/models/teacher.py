"""The teacher: an exponential moving average of the student. It makes the targets."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import average_layers
from ..modules.foreach import in_float32
from ..modules.patches import mean_patches
from .config import EatConfig
from .encoder import EatEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .step import PretrainingObjective


class Teacher:
    """Exponential moving average of a student's encoder (data2vec 2.0, sec. 3.1).

    It is not an ``nn.Module``: fairseq, DDP and optimizers do not see its parameters. The averages
    are float32 for any precision of the student. If the teacher computes in float32 too, its
    weights *are* the averages; otherwise they are copies, refreshed after every step.

    Args:
        student: the model to start from.
        cfg: its configuration.
        objectives: those that the targets are for.

    Attributes:
        parts: averages of the modules that objectives name, by name.
        averages: averaged tensors by name; a checkpoint stores them under ``_ema``.
        decay: decay of the last step.
        norms: L2 norms of the averaged parameters after the last step, by log name.
    """

    def __init__(
        self, student: EatEncoder, cfg: EatConfig, objectives: list[PretrainingObjective]
    ) -> None:
        self.cfg = cfg
        self.makes_clip_targets = any(one.needs_utterance_target for one in objectives)
        self.decay = cfg.ema_decay
        self.norms: dict[str, Tensor] = {}
        encoder = EatEncoder(cfg)
        if not cfg.ema_encoder_only and not cfg.modalities.image.ema_local_encoder:
            encoder.patch_encoder.local_encoder = None
        own = student.state_dict()
        nn.Module.load_state_dict(encoder, {name: own[name] for name in encoder.state_dict()})
        if cfg.ema_encoder_only:
            del encoder.modality_encoders
            encoder.norm = None
        self.encoder = encoder.requires_grad_(False).eval()
        self.module: nn.Module = encoder.blocks if cfg.ema_encoder_only else encoder
        self.parts: dict[str, nn.Module] = {}
        for name in (name for one in objectives for name in one.averaged_parts):
            self.parts[name] = copy.deepcopy(student.get_submodule(name)).requires_grad_(False)
        self._weights = _name_parameters(self.module, self.parts)
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
        parts = {name: student.get_submodule(name) for name in self.parts}
        pairs = [
            (name, parameter.detach())
            for name, parameter in _name_parameters(source, parts).items()
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
        local: Tensor | None,
        padding: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Encode clips and turn the last blocks into targets.

        Args:
            student: has the parts that the teacher shares.
            source: [B, C, T, F].
            local: [B, L, D], the student's patch embeddings of the same clips; None to compute
                them.
            padding: bool [B, L], True = padding, or None.
            kept: int64 [M], the patches that the teacher sees of each clip, and makes targets of;
                None for whole clips.

        Returns:
            Targets of patches [B, L, D] (or [B, M, D]), and of clips [B, D], by
            ``model.cls_target`` (None if no objective needs them); float32.
        """
        x, layers = self.encode(student, source, local, padding, kept)
        cfg = self.cfg
        norms: Any = {
            "batch_norm_layer": cfg.batch_norm_target_layer,
            "layer_norm_layer": cfg.layer_norm_target_layer,
            "padding": padding,
            "eps": cfg.target_norm_eps,
        }
        whole = {
            **norms, "instance_norm_layer": cfg.instance_norm_target_layer,
            "instance_norm": cfg.instance_norm_targets, "layer_norm": cfg.layer_norm_targets,
        }  # fmt: skip
        targets = average_layers(layers, **whole)
        if not self.makes_clip_targets:
            return targets, None
        if cfg.cls_target == "targets":
            return targets, mean_patches(targets, padding)
        if cfg.cls_target == "last_targets":
            return targets, mean_patches(average_layers(layers[-1:], **whole), padding)
        if cfg.cls_target == "cls":
            clip = x[:, cfg.modalities.image.num_extra_tokens - 1].to(targets.dtype)
        else:
            chosen = layers if cfg.cls_target == "layers" else layers[-1:]
            clip = mean_patches(average_layers(chosen, **norms), padding)
        return targets, F.layer_norm(clip, clip.shape[-1:], eps=cfg.target_norm_eps)

    def encode(
        self,
        student: EatEncoder,
        source: Tensor,
        local: Tensor | None,
        padding: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode clips; arguments as in ``make_targets``.

        Returns:
            Output of the last block, [B, E + L, D]; and the target outputs of the blocks that make
            the targets, without extra tokens, each [B, L, D].
        """
        dtype = next(iter(self._weights.values())).dtype
        is_shared = self.cfg.ema_encoder_only  # all but the blocks
        patches = student.patch_encoder if is_shared else self.encoder.patch_encoder
        if not is_shared and patches.local_encoder is not None:
            local = patches.local_features(source.to(dtype))
        elif local is None:
            local = student.patch_encoder.local_features(source)
        x = patches.add_positions(local if is_shared else local.to(dtype))
        x = patches.contextualize(x if kept is None else x.index_select(1, kept))
        own = x.dtype
        x, layers = self.encoder.run_blocks(x.to(dtype), student.token_padding(padding))
        if is_shared and student.norm is not None:
            x = student.norm(x.to(own))
        extra = self.cfg.modalities.image.num_extra_tokens
        return x, [layer[:, extra:] for layer in layers[-self.cfg.average_top_k_layers :]]

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


def _name_parameters(module: nn.Module, parts: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Name the parameters of a module and of other parts of the model, which it may contain."""
    named = dict(module.named_parameters())
    for part, other in parts.items():
        named.update((f"{part}.{name}", value) for name, value in other.named_parameters())
    return named


def annealed_decay(cfg: EatConfig, num_updates: int) -> float:
    """Decay at an update: linear from ``ema_decay`` to ``ema_end_decay``, then constant."""
    if num_updates >= cfg.ema_anneal_end_step:
        return cfg.ema_end_decay
    remaining = 1 - num_updates / cfg.ema_anneal_end_step
    return cfg.ema_end_decay - (cfg.ema_end_decay - cfg.ema_decay) * remaining
