"""Values that say what is healthy in the curves of a run, from its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ..options import patch_sides

COLLAPSED = 0.1  # the default of model.min_target_var, which stops a run


class Reference(NamedTuple):
    """A value to compare a curve with.

    Attributes:
        kind: ``line``, at a value; ``band``, from 0 to a value; ``update``, at an update.
        value: the value or the update.
        label: its meaning, for the legend.
    """

    kind: Literal["line", "band", "update"]
    value: float
    label: str


def find_references(cfg: Mapping[str, Any]) -> dict[str, list[Reference]]:
    """Return the references of each curve, by its name in the log.

    Args:
        cfg: the configuration in a checkpoint; options that it lacks give no reference.
    """
    references: dict[str, list[Reference]] = {}
    optimization, scheduler = cfg.get("optimization") or {}, cfg.get("lr_scheduler") or {}
    clip_norm, warmup = optimization.get("clip_norm") or 0, scheduler.get("warmup_updates") or 0
    if clip_norm > 0:
        # fairseq logs the norm before it clips.
        references["gnorm"] = [Reference("line", clip_norm, f"clipped above {clip_norm:g}")]
    if warmup > 0:
        references["lr"] = [Reference("update", warmup, "end of warm-up")]
    model = cfg.get("model") or {}
    if "modalities" in model and "num_classes" not in model:
        references.update(_of_pretraining(model))
    return references


def _of_pretraining(model: Mapping[str, Any]) -> dict[str, list[Reference]]:
    """Return the references of pre-training; see ``models.objectives`` for the losses.

    A logged regression loss is ``weight * scale * sum((prediction - target)^2)`` of a patch, with a
    scale of ``loss_scale`` or 1 / sqrt(width).
    """
    references: dict[str, list[Reference]] = {}
    width, fixed_scale = model.get("embed_dim") or 0, model.get("loss_scale")
    image = model["modalities"].get("image") or {}
    patch = patch_sides(image["patch_size"]) if "patch_size" in image else (0, 0)
    size = math.prod(patch) * (image.get("in_chans") or 0)
    has_unit_norm = model.get("layer_norm_targets") or model.get("instance_norm_targets")
    is_squared = not model.get("loss_beta")

    def scale(size: int) -> float:
        return size**-0.5 if fixed_scale is None else float(fixed_scale)

    if has_unit_norm:
        # Normalised targets have a mean square of 1. The mean of the deviations of all channels is
        # then 1 at most, by Jensen's inequality, and 0 if all targets are alike.
        references["target_var"] = [
            Reference("line", 1.0, "highest possible"),
            Reference("band", model.get("min_target_var") or COLLAPSED, "collapsed"),
        ]
        if is_squared and width and model.get("d2v_loss"):
            zero = model["d2v_loss"] * scale(width) * width
            references["loss_regression"] = [Reference("line", zero, "predicting 0")]
    if is_squared and size and model.get("recon_loss"):
        # Patches have an unbiased variance of 1; those of padding are 0 and lower the loss.
        zero = model["recon_loss"] * scale(size) * (size - 1)
        references["loss_recon"] = [Reference("line", zero, "predicting 0")]
    if width and model.get("cls_loss") and model.get("utterance_level"):
        # The cross-entropy of a uniform prediction and any target is the logarithm of the width.
        uniform = model["cls_loss"] * math.log(width)
        references["loss_cls"] = [Reference("line", uniform, "predicting all evenly")]
    return references
