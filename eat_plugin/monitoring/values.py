"""The values that monitoring logs: their names and meanings, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..modules.patches import mean_patches
from .spread import measure_clips, measure_tokens

if TYPE_CHECKING:
    from ..models.examination import Examined

PREFIX = "monitor_"  # of all names
# What is measured, and the quantities of each: the names are PREFIX + "target_rank" and so on.
VECTORS = {
    "target": "the teacher's targets",
    "patch": "the student's features of patches",
    "mean": "the means of these over each clip",
    "cls": "the student's CLS tokens",
}
OF_TOKENS = {
    "variance": "variance of all patches, mean over channels",
    "rank": "effective rank of all patches",
    "across": "variance across clips at the same position, over the mean square; 0: all clips same",
    "positions": "share of the variance that positions alone explain; 1: all clips are the same",
}
OF_CLIPS = {
    "variance": "variance across clips, mean over channels",
    "rank": "effective rank across clips",
    "cosine": "mean cosine between two clips; 1: all clips have the same direction",
}
TARGET_RANK, TARGET_ACROSS = f"{PREFIX}target_rank", f"{PREFIX}target_across"
PATCH_VARIANCE = f"{PREFIX}patch_variance"
PROBE = f"{PREFIX}knn_"  # and the metric: accuracy or mAP of frozen features
TIME = f"{PREFIX}time"  # % of the time since the start


def describe_values() -> dict[str, str]:
    """Return the meaning of each value, by its name in the log."""
    described = {
        f"{PREFIX}{vectors}_{quantity}": f"{of}: {meaning}"
        for vectors, of in VECTORS.items()
        for quantity, meaning in (OF_TOKENS if vectors in ("target", "patch") else OF_CLIPS).items()
    }
    for metric in ("accuracy", "mAP"):
        described[f"{PROBE}{metric}"] = f"{metric} of nearest neighbours, by the means of patches"
    described[TIME] = "share of the time that monitoring took, in %"
    return described


def pool_clips(found: Examined) -> Tensor:
    """Return one vector per clip, the mean of its patches: float32 [M, D]."""
    return mean_patches(found.patches.float(), found.padding)


def measure(found: Examined) -> dict[str, float]:
    """Measure the vectors of clips; return the values by their names in the log."""
    assert found.targets is not None
    measured = {
        "target": measure_tokens(found.targets, found.padding),
        "patch": measure_tokens(found.patches, found.padding),
        "mean": measure_clips(pool_clips(found)),
    }
    if found.cls is not None:
        measured["cls"] = measure_clips(found.cls)
    named = {
        f"{PREFIX}{vectors}_{quantity}": value
        for vectors, values in measured.items()
        for quantity, value in values.items()
    }
    # One transfer from the device.
    return dict(zip(named, torch.stack([value.float() for value in named.values()]).tolist()))
