"""The cases of `eat bench` that use an encoder: feature extraction and fine-tuning."""

from __future__ import annotations

from typing import Any, Callable

import torch
from omegaconf import OmegaConf
from torch import Tensor

from eat_plugin.models.classifier import EatClassifier
from eat_plugin.models.classifier_config import EatClassifierConfig
from eat_plugin.models.eat import EatModel

from .plain_encoding import PlainFineTuning, extract_features
from .plain_training import descend
from .timing import Case, Form, Place, Prepare
from .training import (
    CLIP_NORM,
    FRAMES,
    SIZES,
    make_clips,
    make_model,
    make_optimizer,
    make_options,
)

ESC_FRAMES, ESC_CLASSES = 512, 50
LR = 5e-5


def make_classifier(options: dict[str, Any], frames: int) -> EatClassifier:
    """Build a classifier of ESC-50, always with the same random weights.

    Drop path and SpecAugment are off, since random results cannot be compared.
    """
    width, heads, depth = (options[name] for name in ("embed_dim", "num_heads", "depth"))
    given = make_options(options, frames)
    # In a run these are interpolations of other sections.
    given["modalities"]["image"].update(num_alibi_heads=heads, model_depth=depth, embed_dim=width)
    given.update(
        max_update=1, seed=1, target_length=frames, num_classes=ESC_CLASSES, single_label=True,
        model_path=None, loss="ce", label_smoothing=0.1, drop_path_rate=0.0, specaug=False,
        layer_decay=0.65,
    )  # fmt: skip
    cfg: Any = OmegaConf.merge(OmegaConf.structured(EatClassifierConfig), given)
    torch.manual_seed(0)
    return EatClassifier(cfg).train()


class FineTuning:
    """Updates a classifier, as fairseq's trainer does."""

    def __init__(self, model: EatClassifier, lr: float, clip_norm: float | None) -> None:
        self.model = model
        self.optimizer = make_optimizer(model, lr)
        self.clip_norm = clip_norm

    def step(self, source: Tensor, label: Tensor) -> float:
        """Do one update with labels [B, classes]; return the mean loss."""
        source = source.to(self.model.head.weight)
        output: Any = self.model(source, label.to(source.device))
        loss = output["losses"]["main"].sum() / output["sample_size"]
        return descend(self.optimizer, loss, self.clip_norm)


def extracting(size: str, clips: int, rounds: int) -> Prepare:
    """Return the case of features of a batch of clips of 10 s."""

    def prepare(place: Place) -> Case:
        source = make_clips(clips, FRAMES).to(place.device, place.dtype)

        def place_model(options: dict[str, Any]) -> EatModel:
            model = make_model({**SIZES[size], "skip_ema": True, **options}, FRAMES).eval()
            return model.to(place.device, place.dtype)

        def make_plain() -> Callable[[], Tensor]:
            model = place_model({})
            return lambda: extract_features(model, source)

        def make_ours() -> Callable[[], Tensor]:
            model = place_model(place.options)
            if place.compile:
                model.compile_evaluation()
            return torch.no_grad()(lambda: model.extract_features(source)["x"])

        what = f"features {size}: {clips} x 10 s, {place.precision}"
        return Case(what, Form(make_plain), Form(make_ours), clips=clips, most_rounds=rounds)

    return prepare


def fine_tuning(size: str, clips: int, rounds: int) -> Prepare:
    """Return the case of whole updates of a classifier of ESC-50."""

    def prepare(place: Place) -> Case:
        source = make_clips(clips, ESC_FRAMES).to(place.device)
        label = torch.eye(ESC_CLASSES)[torch.arange(clips) % ESC_CLASSES].to(place.device)

        def make_plain() -> Callable[[], float]:
            model = make_classifier(SIZES[size], ESC_FRAMES)
            plain = PlainFineTuning(model, LR, CLIP_NORM, place.device, place.dtype)
            return lambda: plain.step(source, label)

        def make_ours() -> Callable[[], float]:
            model = make_classifier({**SIZES[size], **place.options}, ESC_FRAMES)
            ours = FineTuning(model.to(place.device, place.dtype), LR, CLIP_NORM)
            return lambda: ours.step(source, label)

        what = f"fine-tune {size}: {clips} x {ESC_FRAMES / 100:.0f} s, {place.precision}"
        return Case(what, Form(make_plain), Form(make_ours), clips=clips, most_rounds=rounds)

    return prepare


CASES: dict[str, Prepare] = {
    "features_1": extracting("base", 1, rounds=5),
    "features_32": extracting("base", 32, rounds=2),
    "finetune_1": fine_tuning("base", 1, rounds=5),
    "finetune_32": fine_tuning("base", 32, rounds=2),
}
