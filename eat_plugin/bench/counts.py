"""The cases of `eat bench` that are counted, not timed.

What is counted does not depend on the device.
"""

from __future__ import annotations

from typing import Callable

import torch

from .counting import count_update
from .gpus import hide_gpus
from .memory import count_activations, count_plain_activations
from .timing import Count, Place
from .training import FRAMES, SIZES, draw_batch_masks, make_clips, make_model


def operations(place: Place) -> Count:
    """Count the operations of an update beside its forward and backward pass."""
    with hide_gpus():
        counts = count_update(make_model(SIZES["base"], FRAMES), torch.bfloat16)
    return Count(
        "optimizer, teacher, gradient norm and casts of an update, base, bfloat16",
        "operations",
        *counts,
    )


def activations(recompute: str) -> Callable[[Place], Count]:
    """Return the case of what the losses of a clip keep in memory for backward."""

    def count(place: Place) -> Count:
        plain = make_model(SIZES["base"], FRAMES).bfloat16()
        ours = make_model({**SIZES["base"], "recompute": recompute}, FRAMES).bfloat16()
        source, (mask, _) = make_clips(1, FRAMES).bfloat16(), draw_batch_masks(ours, 1)
        note = "" if recompute == "none" else f", recompute={recompute}"
        return Count(
            f"kept for backward of a clip x {ours.cfg.clone_batch} clones, base, bfloat16{note}",
            "MiB",
            count_plain_activations(plain, source, mask) / 2**20,
            count_activations(ours, source, mask) / 2**20,
        )

    return count


CASES: dict[str, Callable[[Place], Count]] = {
    "operations": operations,
    "activations": activations("none"),
    "activations_gelu": activations("gelu"),
}
