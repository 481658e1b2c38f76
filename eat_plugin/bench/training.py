"""The cases of `eat bench` that pre-train a model, beside fairseq's trainer.

In this file:
    make_model           a model with the published settings
    Update               whole updates of it
    make_optimizer       our optimizer
    start_without_noise  so that first losses can be compared
    make_clips           clips of noise
    draw_batch_masks     the masks of a batch
    CASES                the cases; each prepares its input at a place and returns a `Case`
"""

from __future__ import annotations

from typing import Any, Callable

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ..masking import MaskSpec, draw_masks
from ..models.config import EatConfig
from ..models.eat import EatModel
from ..optim.adamw import EatAdamW, EatAdamWConfig
from .plain_training import PlainUpdate, descend
from .timing import Case, Form, Place

FRAMES, MEL_BINS = 1024, 128
SIZES: dict[str, dict[str, int]] = {
    "base": {"depth": 12, "embed_dim": 768, "num_heads": 12, "average_top_k_layers": 12},
    "tiny": {"depth": 4, "embed_dim": 192, "num_heads": 3, "average_top_k_layers": 4},
}
LR, DECAY, CLIP_NORM = 5e-4, 0.9998, 4.0


def make_options(options: dict[str, Any], frames: int) -> dict[str, Any]:
    """Return the published settings of a model, but for some options."""
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
    return {
        "clone_batch": 16, "d2v_loss": 1.0, "cls_loss": 1.0, "ema_decay": DECAY,
        "ema_end_decay": DECAY, "ema_anneal_end_step": 1, "ema_encoder_only": False,
        "instance_norm_target_layer": True, "layer_norm_targets": True,
        "encoder_dropout": 0.0, "post_mlp_drop": 0.0, "attention_dropout": 0.0,
        "activation_dropout": 0.0, "norm_eps": 1e-6, "supported_modality": "IMAGE",
        "modalities": {"image": image}, **options,
    }  # fmt: skip


def make_model(options: dict[str, Any], frames: int) -> EatModel:
    """Build a model with the published settings, but for some options; its weights are the same."""
    cfg: Any = OmegaConf.merge(OmegaConf.structured(EatConfig), make_options(options, frames))
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
        self.optimizer = make_optimizer(model, lr, eps)
        self.clip_norm = clip_norm
        self.updates = 0

    def step(self, source: Tensor, mask: Tensor, num_visible: int) -> float:
        """Do one update; return the loss, over the number of hidden patches."""
        weight = next(self.model.parameters())
        source, mask = source.to(weight), mask.to(weight.device)
        self.model.set_num_updates(self.updates)
        result = self.model(
            source, precomputed_mask=mask, num_visible=num_visible, noise_seed=self.updates
        )
        loss = torch.stack([value.sum() for value in result["losses"].values()]).sum()
        self.updates += 1
        return descend(self.optimizer, loss / result["sample_size"], self.clip_norm)


def make_optimizer(model: nn.Module, lr: float, eps: float = 1e-8) -> EatAdamW:
    """Make our optimizer for a model, with the published settings but for learning rate and eps."""
    options = {"adam_betas": [0.9, 0.95], "adam_eps": eps, "weight_decay": 0.05, "lr": [lr]}
    cfg: Any = OmegaConf.merge(OmegaConf.structured(EatAdamWConfig), options)
    return EatAdamW(cfg, [p for p in model.parameters() if p.requires_grad])


def start_without_noise(model: EatModel, step: Callable[[], float]) -> Callable[[], float]:
    """Let the first call of a step go without the noise that stands for hidden patches.

    The noise differs in each form: without it the first losses can be compared.

    Args:
        model: whose step it is.
        step: does an update, and returns the loss.
    """
    image = model.patch_encoder.cfg
    std, image.mask_noise_std = image.mask_noise_std, 0.0

    def call() -> float:
        loss = step()
        image.mask_noise_std = std
        return loss

    return call


def make_clips(number: int, frames: int) -> Tensor:
    """Return spectrograms of noise, [B, 1, T, F] float32, and always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, 1, frames, MEL_BINS, generator=generator)


def draw_batch_masks(model: EatModel, clips: int) -> tuple[Tensor, int]:
    """Draw the masks of a batch, [B*K, L], always the same; return them and their visible patches.

    Args:
        model: whose options say how long a clip is, and how much of it is hidden.
        clips: B.
    """
    image = model.patch_encoder.cfg
    grid = (image.target_length // image.patch_size, MEL_BINS // image.patch_size)
    spec = MaskSpec.from_options(image, grid)
    generator = torch.Generator().manual_seed(0)
    return draw_masks(spec, clips * model.cfg.clone_batch, generator), spec.num_visible


def updating(size: str, clips: int, rounds: int) -> Callable[[Place], Case]:
    """Return the case of whole updates of a model, of so many clips under 16 masks each."""

    def prepare(place: Place) -> Case:
        model = make_model(SIZES[size], FRAMES)
        source = make_clips(clips, FRAMES)
        mask, num_visible = draw_batch_masks(model, clips)

        def make_plain() -> Callable[[], float]:
            plain = PlainUpdate(model, LR, DECAY, CLIP_NORM, device=place.device, dtype=place.dtype)
            return start_without_noise(plain.model, lambda: plain.step(source, mask))

        def make_ours() -> Callable[[], float]:
            own = make_model({**SIZES[size], **place.options}, FRAMES)
            ours = Update(own.to(place.device, place.dtype), LR, CLIP_NORM)
            return start_without_noise(own, lambda: ours.step(source, mask, num_visible))

        return Case(
            f"update {size}: {clips} x {model.cfg.clone_batch} clones of 10 s, {place.precision}",
            Form(make_plain),
            Form(make_ours),
            clips=clips,
            most_rounds=rounds,
        )

    return prepare


CASES: dict[str, Callable[[Place], Case]] = {
    "update_tiny": updating("tiny", 4, rounds=10),
    "update_base": updating("base", 1, rounds=5),
}
