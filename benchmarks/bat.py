"""The cases of `eat bench` for the recipe bat.

The plain form computes what BAT's published code does: tables of attention, and a decoder that
computes all patches in all blocks. In half the decoder has half of the hidden patches.
"""

from __future__ import annotations

from typing import Any, Callable

import torch
from omegaconf import OmegaConf

from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel

from .arguments import CUDA
from .counts import compare_activations
from .plain_training import PlainUpdate
from .timing import Case, Count, Form, Place, Prepare
from .training import DECAY, LR, Update, draw_batch_masks, load_config, make_clips


def make_model(size: str, share: float, options: dict[str, Any]) -> EatModel:
    """Build a model of config/bat.yaml with a constant decay, always with the same weights."""
    cfg = load_config(size, name="bat", groups=["recipe/bat"]).model
    del cfg["_name"]
    constant = {"ema_decay": DECAY, "ema_end_decay": DECAY, "ema_anneal_end_step": 1}
    share_of = {"modalities": {"image": {"decoder": {"hidden_share": share}}}}
    merged: Any = OmegaConf.merge(OmegaConf.structured(EatConfig), cfg, constant, share_of, options)
    torch.manual_seed(0)
    return EatModel(merged).train()


def updating(size: str, clips: int, clips_on_gpu: int, rounds: int, share: float = 1) -> Prepare:
    """Return the case of whole updates."""

    def prepare(place: Place) -> Case:
        number = clips_on_gpu if place.device.type == CUDA else clips
        model = make_model(size, share, {})
        frames = model.patch_encoder.cfg.target_length
        source = make_clips(number, frames)
        mask, num_visible = draw_batch_masks(model, number)

        def make_plain() -> Callable[[], float]:
            plain = PlainUpdate(model, LR, DECAY, None, device=place.device, dtype=place.dtype)
            return lambda: plain.step(source, mask)

        def make_ours() -> Callable[[], float]:
            own = make_model(size, share, place.options).to(place.device, place.dtype)
            ours = Update(own, LR, None)
            return lambda: ours.step(source, mask, num_visible)

        what = (
            f"bat, {size}: {number} x {model.cfg.clone_batch} clones of {frames / 100:.0f} s, "
            f"{place.precision}{_describe(share)}"
        )
        return Case(
            what, Form(make_plain), Form(make_ours), same=share == 1, clips=number,
            most_rounds=rounds,
        )  # fmt: skip

    return prepare


def activations(size: str, share: float = 1) -> Prepare:
    """Return the case of the memory that the losses of a clip save for backward."""

    def count(place: Place) -> Count:
        model = make_model(size, share, {}).bfloat16()
        what = f"saved for backward of a clip, bat, {size}, bfloat16{_describe(share)}"
        return compare_activations(model, what)

    return count


def _describe(share: float) -> str:
    return "" if share == 1 else f", ours: hidden_share={share:g}"


CASES: dict[str, Prepare] = {
    "update_bat_tiny": updating("tiny", 12, 12, rounds=10),
    "update_bat_small": updating("small", 1, 12, rounds=5),
    "update_bat_small_half": updating("small", 1, 12, rounds=5, share=0.5),
    "update_bat": updating("base", 1, 12, rounds=3),
    "update_bat_2": updating("base", 2, 24, rounds=3),
    "update_bat_half": updating("base", 1, 12, rounds=3, share=0.5),
}
COUNTS: dict[str, Prepare] = {
    "activations_bat_small": activations("small"),
    "activations_bat": activations("base"),
    "activations_bat_half": activations("base", share=0.5),
}
