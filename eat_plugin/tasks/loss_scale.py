"""The loss scale that float16 starts with."""

import logging
import math
from typing import Any

from ..data.frames import MEL_BINS
from ..options import patch_sides
from .run_config import RunConfig

logger = logging.getLogger(__name__)

FAIRSEQS = 128  # fairseq's first scale, for losses that are means
IMAGE = "model.modalities.image"


def fit_loss_scale(run: RunConfig) -> None:
    """Let float16 start with a scale that fits a sum over the hidden patches of a batch.

    fairseq halves its scale in each update whose gradients overflow, and leaves the update out: at
    12 clips of 10 s, base, 15 of them. A scale that is set is kept, and so is that of a checkpoint.
    """
    common: Any = None if run.root is None else run.root.get("common")
    if common is None or not (run.get("common.fp16") or run.get("common.amp")):
        return
    if run.get("common.cpu") or run.get("common.fp16_init_scale") != FAIRSEQS:
        return
    patches = count_hidden_patches(run)
    if patches < 2:
        return
    least = run.get("common.min_loss_scale") or 0.0
    scale = max(FAIRSEQS / 2 ** math.floor(math.log2(patches)), 2 * least)
    common.fp16_init_scale = scale
    logger.info(
        "common.fp16_init_scale: %.4g rather than %d, since the loss is a sum over %d patches",
        scale, FAIRSEQS, patches,
    )  # fmt: skip


def count_hidden_patches(run: RunConfig) -> int:
    """Return the hidden patches of an update in one process, about; 0 if unknown."""
    frames, size = run.get("task.target_length"), run.get(f"{IMAGE}.patch_size")
    clips, most_frames = run.get("dataset.batch_size"), run.get("dataset.max_tokens")
    if not frames or not size or not (clips or most_frames):
        return 0
    clips = min(value for value in (clips, (most_frames or 0) // frames) if value)
    height, width = run.get("task.images.size") or (frames, MEL_BINS)
    patch = patch_sides(size)
    grid = (height // patch[0]) * (width // patch[1])
    clones, share = run.get("model.clone_batch") or 1, run.get(f"{IMAGE}.mask_prob") or 1.0
    accumulated = (run.get("optimization.update_freq") or [1])[0]
    return int(clips * accumulated * clones * grid * share)
