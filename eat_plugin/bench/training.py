"""The cases of `eat bench` that train a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ..masking import MaskSpec, draw_masks
from ..models.config import EatConfig
from ..models.eat import EatModel
from ..optim.adamw import EatAdamW, EatAdamWConfig
from .plain_training import PlainUpdate
from .timing import Case

FRAMES, MEL_BINS = 1024, 128
SIZES: dict[str, dict[str, int]] = {
    "base": {"depth": 12, "embed_dim": 768, "num_heads": 12, "average_top_k_layers": 12},
    "tiny": {"depth": 4, "embed_dim": 192, "num_heads": 3, "average_top_k_layers": 4},
}
LR, DECAY, CLIP_NORM = 5e-4, 0.9998, 4.0


def make_model(options: dict[str, Any], frames: int) -> EatModel:
    """Build a model with the published settings, but for some options."""
    width = options["embed_dim"]
    decoder = {
        "decoder_dim": width, "decoder_groups": 16, "decoder_kernel": 3, "decoder_layers": 6,
        "input_dropout": 0.0,
    }  # fmt: skip
    image = {
        "in_chans": 1, "target_length": frames, "embed_dim": width, "inverse_mask": True,
        "mask_prob": 0.8, "mask_prob_adjust": 0.07, "mask_length": 5, "mask_noise_std": 0.01,
        "num_extra_tokens": 1, "prenet_depth": 0, "ema_local_encoder": True,
        "decoder": decoder,
    }  # fmt: skip
    given: dict[str, Any] = {
        "clone_batch": 16, "d2v_loss": 1.0, "cls_loss": 1.0, "ema_decay": DECAY,
        "ema_end_decay": DECAY, "ema_anneal_end_step": 1, "ema_encoder_only": False,
        "instance_norm_target_layer": True, "layer_norm_targets": True,
        "encoder_dropout": 0.0, "post_mlp_drop": 0.0, "attention_dropout": 0.0,
        "activation_dropout": 0.0, "norm_eps": 1e-6, "supported_modality": "IMAGE",
        "modalities": {"image": image},
    }  # fmt: skip
    cfg: Any = OmegaConf.merge(OmegaConf.structured(EatConfig), given, options)
    torch.manual_seed(0)
    return EatModel(cfg).train()


class Update:
    """Updates a model, as fairseq's trainer does.

    Args:
        model: the model.
        lr: learning rate.
        clip_norm: bound of the gradients' norm; None for no bound.
        eps: of Adam.
    """

    def __init__(
        self, model: EatModel, lr: float, clip_norm: float | None, eps: float = 1e-8
    ) -> None:
        self.model = model
        options = {"adam_betas": [0.9, 0.95], "adam_eps": eps, "weight_decay": 0.05, "lr": [lr]}
        cfg: Any = OmegaConf.merge(OmegaConf.structured(EatAdamWConfig), options)
        self.optimizer = EatAdamW(cfg, [p for p in model.parameters() if p.requires_grad])
        self.clip_norm = clip_norm
        self.updates = 0

    def step(self, source: Tensor, mask: Tensor, num_visible: int) -> float:
        """Do one update; return the loss, over the number of hidden patches."""
        self.model.set_num_updates(self.updates)
        result = self.model(
            source, precomputed_mask=mask, num_visible=num_visible, noise_seed=self.updates
        )
        loss = torch.stack([value.sum() for value in result["losses"].values()]).sum()
        loss = loss / result["sample_size"]
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip_norm is not None:
            self.optimizer.clip_grad_norm(self.clip_norm)
        self.optimizer.step()
        self.updates += 1
        return float(loss.detach())


def updating(size: str, clips: int, rounds: int) -> Callable[[Path], Case]:
    """Return the case of whole updates of a model, of so many clips under 16 masks each."""

    def prepare(folder: Path) -> Case:
        model = make_model(SIZES[size], FRAMES)
        plain = PlainUpdate(model, LR, DECAY, CLIP_NORM)
        ours = Update(model, LR, CLIP_NORM)
        spec = MaskSpec(model.patch_encoder.grid_of(torch.empty(1, 1, FRAMES, MEL_BINS)))
        generator = torch.Generator().manual_seed(0)
        source = torch.randn(clips, 1, FRAMES, MEL_BINS, generator=generator)
        mask = draw_masks(spec, clips * model.cfg.clone_batch, generator)
        return Case(
            f"update {size}: {clips} x {model.cfg.clone_batch} clones of 10 s, float32",
            lambda: plain.step(source, mask),
            lambda: ours.step(source, mask, spec.num_visible),
            same=False,
            clips=clips,
            most_rounds=rounds,
        )

    return prepare


CASES: dict[str, Callable[[Path], Case]] = {
    "update_tiny": updating("tiny", 4, rounds=10),
    "update_base": updating("base", 1, rounds=5),
}
