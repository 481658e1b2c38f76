"""The cases of `eat bench` that compare an update of SSLAM's second stage with one of the first.

The first stage has the place of the plain form. Both have the packaged recipe: B clips under K
masks, and B clips with B mixtures under K / 2.
"""

from __future__ import annotations

from typing import Any, Callable

import torch
from omegaconf import OmegaConf

from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel

from .arguments import CUDA
from .counts import count_activations
from .timing import Case, Count, Form, Place, Prepare
from .training import (
    CLIP_NORM,
    LR,
    Update,
    draw_batch_masks,
    load_config,
    make_clips,
)

SECOND = {"retention_loss": 1.0, "cls_target": "last_targets"}


def make_models(size: str, options: dict[str, Any]) -> list[EatModel]:
    """Build the models of both stages, with the options of a file of config/size."""
    cfg = load_config(size).model
    del cfg["_name"]
    models = []
    for changes in ({}, {**SECOND, "clone_batch": cfg.clone_batch // 2}):
        merged: Any = OmegaConf.merge(OmegaConf.structured(EatConfig), cfg, options, changes)
        torch.manual_seed(0)
        models.append(EatModel(merged).train())
    return models


def updating(size: str, clips: int, clips_on_gpu: int, rounds: int) -> Prepare:
    """Return the case of whole updates of both stages."""

    def prepare(place: Place) -> Case:
        number = clips_on_gpu if place.device.type == CUDA else clips
        first, second = make_models(size, place.options)
        frames = first.patch_encoder.cfg.target_length
        source = make_clips(number, frames)

        def form(model: EatModel) -> Form:
            mask, num_visible = draw_batch_masks(model, number)

            def make() -> Callable[[], float]:
                update = Update(model.to(place.device, place.dtype), LR, CLIP_NORM)
                return lambda: update.step(source, mask, num_visible)

            return Form(make)

        clones = [model.cfg.clone_batch for model in (first, second)]
        what = (
            f"stage 2, {size}: {number} clips of {frames / 100:.0f} s and mixtures x {clones[1]} "
            f"clones; plain: stage 1, {number} x {clones[0]}; {place.precision}"
        )
        return Case(
            what,
            form(first),
            form(second),
            same=False,
            clips=number,
            most_rounds=rounds,
            is_all_ours=True,
        )

    return prepare


def activations(place: Place) -> Count:
    """Memory that the losses of a batch of base save for backward, in both stages."""
    models = [model.bfloat16() for model in make_models("base", {})]
    source = make_clips(2, models[0].patch_encoder.cfg.target_length).bfloat16()
    saved = [count_activations(model, source, draw_batch_masks(model, 2)[0]) for model in models]
    what = "saved for backward of 2 clips, stage 2, base, bfloat16; plain: stage 1"
    return Count(what, "MiB", *(size / 2**20 for size in saved))


CASES: dict[str, Prepare] = {
    "stage2_tiny": updating("tiny", 12, 12, rounds=10),
    "stage2_base": updating("base", 2, 12, rounds=2),
}
COUNTS: dict[str, Prepare] = {"stage2_activations": activations}
