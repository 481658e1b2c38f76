"""The cases of `eat bench` that pre-train a model without fairseq's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from eat_plugin.masking import MaskSpec, draw_masks
from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel
from eat_plugin.optim.adamw import EatAdamW, EatAdamWConfig
from eat_plugin.tasks.choosing import choose_options
from eat_plugin.tasks.recipe import LENGTH_OF_PRETRAINING
from eat_plugin.tasks.run_config import RunConfig

from .launching import CONFIG
from .plain_training import PlainUpdate, descend
from .timing import Case, Form, Place, Prepare

FRAMES, MEL_BINS = 1024, 128
SIZES: dict[str, dict[str, int]] = {
    "base": {"depth": 12, "embed_dim": 768, "num_heads": 12, "average_top_k_layers": 12},
    "tiny": {"depth": 4, "embed_dim": 192, "num_heads": 3, "average_top_k_layers": 4},
}
FIXED = [  # the first for every size; the others for tiny
    "checkpoint.save_interval=1", "model.modalities.image.patch_size=16",
    "task.target_length=208", "task.norm=whole",
]  # fmt: skip
LR, DECAY, CLIP_NORM = 5e-4, 0.9998, 4.0


def load_config(
    size: str, overrides: Sequence[str] = (), name: str = "pretrain", groups: Sequence[str] = ()
) -> DictConfig:
    """Read config/NAME.yaml with a file of config/size, completed as fairseq does.

    ``groups`` are further files of config, as recipe/bat.

    What is chosen by the clips is fixed: of tiny square patches, windows of 2.08 s and one mean.
    """
    given: Any = OmegaConf.load(CONFIG / f"{name}.yaml")
    for name in ("defaults", "hydra"):
        del given[name]
    cfg: Any = OmegaConf.structured(FairseqConfig())
    OmegaConf.set_struct(cfg, False)
    chosen = [OmegaConf.load(CONFIG / f"{part}.yaml") for part in (f"size/{size}", *groups)]
    cfg = OmegaConf.merge(cfg, given, *chosen)
    fixed = FIXED if size == "tiny" else FIXED[:1]
    cfg = OmegaConf.merge(cfg, OmegaConf.from_dotlist([*fixed, *overrides]))
    add_defaults(cfg)
    resolved: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    choose_options(RunConfig(resolved.task), LENGTH_OF_PRETRAINING, None)
    return resolved


def make_options(options: dict[str, Any], frames: int) -> dict[str, Any]:
    """Return the model options of config/pretrain.yaml, with a constant decay and changes."""
    width = options["embed_dim"]
    image = {"target_length": frames, "embed_dim": width, "decoder": {"decoder_dim": width}}
    changes = {
        "ema_decay": DECAY, "ema_end_decay": DECAY, "ema_anneal_end_step": 1,
        "modalities": {"image": image}, **options,
    }  # fmt: skip
    published: Any = OmegaConf.load(CONFIG / "pretrain.yaml")
    merged: Any = OmegaConf.to_container(OmegaConf.merge(published.model, changes), resolve=True)
    del merged["_name"]
    return merged


def make_model(options: dict[str, Any], frames: int) -> EatModel:
    """Build a model of `make_options`, always with the same weights."""
    cfg: Any = OmegaConf.merge(OmegaConf.structured(EatConfig), make_options(options, frames))
    torch.manual_seed(0)
    return EatModel(cfg).train()


class Update:
    """Updates a model, as fairseq's trainer does."""

    def __init__(
        self, model: EatModel, lr: float, clip_norm: float | None, eps: float = 1e-8
    ) -> None:
        self.model = model
        self.optimizer = make_optimizer(model, lr, eps)
        self.clip_norm = clip_norm
        self.updates = 0

    def step(self, source: Tensor, mask: Tensor, num_visible: int) -> float:
        """Do one update; return the loss per hidden patch."""
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
    """Make our optimizer, with the published betas and weight decay."""
    options = {"adam_betas": [0.9, 0.95], "adam_eps": eps, "weight_decay": 0.05, "lr": [lr]}
    cfg: Any = OmegaConf.merge(OmegaConf.structured(EatAdamWConfig), options)
    return EatAdamW(cfg, [p for p in model.parameters() if p.requires_grad])


def start_without_noise(model: EatModel, step: Callable[[], float]) -> Callable[[], float]:
    """Turn off the noise at hidden patches in the first call of a step.

    Each form draws its own noise; without it their first losses can be compared.
    """
    image = model.patch_encoder.cfg
    std, image.mask_noise_std = image.mask_noise_std, 0.0

    def call() -> float:
        loss = step()
        image.mask_noise_std = std
        return loss

    return call


def make_clips(number: int, frames: int) -> Tensor:
    """Return spectrograms of noise, [B, 1, T, F] float32, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, 1, frames, MEL_BINS, generator=generator)


def draw_batch_masks(model: EatModel, clips: int) -> tuple[Tensor, int]:
    """Draw masks [B*K, L] for B clips, always the same; return them and their visible patches."""
    image, (frames, bins) = model.patch_encoder.cfg, model.patch_encoder.patch_sides
    grid = (image.target_length // frames, MEL_BINS // bins)
    spec = MaskSpec.from_options(image, grid)
    generator = torch.Generator().manual_seed(0)
    return draw_masks(spec, clips * model.cfg.clone_batch, generator), spec.num_visible


def updating(size: str, clips: int, rounds: int) -> Prepare:
    """Return the case of whole updates, with 16 masks per clip."""

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

        what = f"update {size}: {clips} x {model.cfg.clone_batch} clones of 10 s, {place.precision}"
        return Case(what, Form(make_plain), Form(make_ours), clips=clips, most_rounds=rounds)

    return prepare


def rounding(size: str, clips: int, rounds: int) -> Prepare:
    """Return the case of our updates in bfloat16; those in float32 have the plain form's place."""

    def prepare(place: Place) -> Case:
        source = make_clips(clips, FRAMES)

        def make(dtype: torch.dtype) -> Callable[[], float]:
            model = make_model({**SIZES[size], **place.options}, FRAMES)
            mask, num_visible = draw_batch_masks(model, clips)
            update = Update(model.to(place.device, dtype), LR, CLIP_NORM)
            return start_without_noise(model, lambda: update.step(source, mask, num_visible))

        what = f"update {size}: {clips} x 16 clones of 10 s, bfloat16; plain: ours, float32"
        plain, ours = (partial(make, dtype) for dtype in (torch.float32, torch.bfloat16))
        return Case(
            what, Form(plain), Form(ours), clips=clips, most_rounds=rounds, is_all_ours=True
        )

    return prepare


# Where `eat pretrain` may choose bfloat16 without a GPU.
ROUNDED: dict[str, Prepare] = {
    "bfloat16_tiny": rounding("tiny", 4, rounds=10),
    "bfloat16_base": rounding("base", 1, rounds=5),
}
CASES: dict[str, Prepare] = {
    "update_tiny": updating("tiny", 4, rounds=10),
    "update_base": updating("base", 1, rounds=5),
}
