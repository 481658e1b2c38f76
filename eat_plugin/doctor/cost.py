"""What a run costs: parameters, memory, checkpoints, arithmetic and time; no weights are made."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import torch

from ..models.bat_options import VIT
from ..models.eat import EatModel
from ..models.flops import finetuning_flops, update_flops
from ..modules.linear import Linear
from ..modules.recompute import BLOCKS
from ..processor import bfloat16_gain

FLOAT32, HALF, MOMENTS = 4, 2, 8  # bytes per value; of Adam's two moments
# Values of a token that a block keeps for backward, in widths: 9 and twice the MLP; and those that
# a decoder layer keeps. By recompute: all; without GELU and norms. They give 708 and 520 MiB for a
# clip of base in bfloat16, counted are 712 and 524 (docs/performance.md).
KEPT = {"none": (9, 2, 3), "gelu": (9, 1, 2), "blocks": (1, 0, 1)}
# More of a block with a gate: the gate, the gated output.
GATED = {"none": 2, "gelu": 1, "blocks": 0}
PEAK = 1.08  # peak over what is kept: 768 of 712 MiB per clip (base, H100)
# The same on a CPU, where freed memory stays in fragments: 1.1 to 1.6 were measured.
PEAK_IN_MAIN_MEMORY = 1.35
LIBRARIES = 0.6e9  # bytes of main memory of a process before it has a model, without a GPU
# Share of the speed of matrix products that whole updates reach: on an H100 136 of about 550
# TFLOP/s (base, 12 clips), on a CPU 0.52 (tiny) and 0.79 (base, 1 clip, 4 masks).
SHARES = {"cuda": 0.25, "cpu": 0.65}
ROWS, WIDTH, WIDER = 1648, 768, 3072  # of the products: the tokens of a clip of base, and its MLP
SECONDS = 0.3  # of measuring products


class Cost(NamedTuple):
    """What a model costs in a process.

    Attributes:
        trained: number of trained parameters.
        fixed: bytes of weights, gradients, optimizer and teacher.
        per_clip: bytes of a clip in an update, at its peak.
        checkpoint: bytes of a checkpoint.
        flops: of a clip in an update.
    """

    trained: int
    fixed: float
    per_clip: float
    checkpoint: float
    flops: float

    def memory(self, clips: int) -> float:
        """Bytes of a batch of clips, at its peak."""
        return self.fixed + clips * self.per_clip


def weigh(cfg: Any, model: Any, is_gpu: bool = True) -> Cost:
    """Compute the cost of a model from ``launch.trial.build_without_values``.

    Args:
        cfg: of the run.
        model: an ``EatModel``, or a classifier with its encoder as ``model``.
        is_gpu: it trains on a GPU.
    """
    encoder = model if isinstance(model, EatModel) else model.model
    grid = find_grid(encoder, cfg)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    half = bool(cfg.common.fp16 or cfg.common.bf16)
    own = HALF if half else FLOAT32
    state = model.state_dict()
    averages = state.pop("_ema", {})
    weights, averaged = (sum(each.numel() for each in part.values()) for part in (state, averages))
    moments = trained * (MOMENTS + FLOAT32 * half)
    teacher = averaged * (FLOAT32 + HALF * half)  # in float32 its weights are the averages
    saved = 0 if cfg.checkpoint.no_save_optimizer_state else moments
    frozen = bool(getattr(model, "frozen", False))
    if isinstance(model, EatModel):
        flops = update_flops(encoder.cfg, grid)
    else:
        flops = finetuning_flops(encoder.cfg, grid, frozen)
    return Cost(
        trained,
        weights * own + trained * own + moments + teacher,
        0 if frozen else _count_peak(cfg, encoder, grid, is_gpu),
        weights * own + averaged * FLOAT32 + saved,
        flops,
    )


def find_grid(encoder: Any, cfg: Any) -> tuple[int, int]:
    """Return the number of patches along time and mel bins, or of rows and columns."""
    shape = encoder.image_shape
    sides = (cfg.task.target_length, 128) if shape is None else shape[1:]
    patch = encoder.patch_encoder.patch_sides
    return sides[0] // patch[0], sides[1] // patch[1]


def _count_peak(cfg: Any, encoder: Any, grid: tuple[int, int], is_gpu: bool) -> float:
    """Count the bytes of a clip in an update, at its peak."""
    recompute = encoder.cfg.recompute
    if recompute == BLOCKS:  # plus the working memory of one recomputed block
        kept, _ = _count_kept(cfg, encoder, grid, BLOCKS)
        _, block = _count_kept(cfg, encoder, grid, "none")
        return PEAK * (kept + block)
    if is_gpu:
        return PEAK * _count_kept(cfg, encoder, grid, recompute)[0]
    return PEAK_IN_MAIN_MEMORY * _count_kept(cfg, encoder, grid, "none")[0]


def _count_kept(
    cfg: Any, encoder: Any, grid: tuple[int, int], recompute: str
) -> tuple[float, float]:
    """Count the bytes that a clip keeps for its backward pass: of all blocks, of the largest."""
    own, image = encoder.cfg, encoder.cfg.modalities.image
    patches = math.prod(grid)
    constant, times_mlp, of_decoder = KEPT[recompute]
    constant += GATED[recompute] * own.attention_gate
    clones, visible, layer, layers = 1, patches, 0.0, 0
    if isinstance(encoder, EatModel):
        clones = own.clone_batch * (2 if own.retention_loss > 0 else 1)  # and of its mixture
        visible = int(patches * (1 - image.mask_prob))
        if encoder.patch_encoder.decoder is not None:
            decoder = image.decoder
            if decoder.decoder_kind == VIT:
                of_decoder = constant + times_mlp * decoder.decoder_mlp_ratio
                patches = visible + int(decoder.hidden_share * (patches - visible))
            layer = patches * decoder.decoder_dim * of_decoder
            layers = decoder.decoder_layers
    tokens = visible + image.num_extra_tokens
    block = tokens * own.embed_dim * (constant + times_mlp * own.mlp_ratio)
    is_half = cfg.common.fp16 or cfg.common.bf16 or cfg.common.amp
    size = clones * (HALF if is_half else FLOAT32)
    return size * (block * own.depth + layer * layers), size * max(block, layer)


def count_checkpoints(cfg: Any, updates: int, epochs: float) -> int:
    """Count the checkpoints that fairseq's options keep at most, with the one being written.

    ``checkpoint_last.pt`` counts too, though it may be a second name of another one.

    Args:
        cfg: of the run.
        updates: of the run.
        epochs: of the run.
    """
    options = cfg.checkpoint
    if options.no_save:
        return 0
    kept = 0
    interval, keep = options.save_interval_updates, options.keep_interval_updates
    if interval > 0:
        kept += min(updates // interval, keep if keep > 0 else updates)
        pattern = options.keep_interval_updates_pattern
        kept += updates // math.lcm(interval, pattern) if keep > 0 and pattern > 0 else 0
    if not options.no_epoch_checkpoints:
        saved, keep = int(epochs) // options.save_interval, options.keep_last_epochs
        kept += min(saved, keep if keep > 0 else saved)
    if not cfg.dataset.disable_validation:
        kept += 1 + max(0, options.keep_best_checkpoints)
    return kept + (not options.no_last_checkpoints) + 1


def measure_products(device: str, dtype: torch.dtype, seconds: float) -> float:
    """Measure the speed of matrix products of a model's size, in FLOP/s."""
    layer = Linear(WIDTH, WIDER, device=device, dtype=dtype)
    rows = ROWS if device == "cpu" else 16 * ROWS
    x = torch.ones(rows, WIDTH, device=device, dtype=dtype)

    def run(times: int) -> None:
        with torch.no_grad():
            for _ in range(times):
                layer(x)
        if device != "cpu":
            torch.cuda.synchronize()

    run(3)
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run(4)
        number += 4
    return 2.0 * rows * WIDTH * WIDER * number / (time.perf_counter() - began)


def expect_rate(cost: Cost, cfg: Any) -> tuple[float, float]:
    """Expect the clips per second of a process, and return the measured FLOP/s of products too."""
    device = "cpu" if cfg.common.cpu or not torch.cuda.is_available() else "cuda"
    dtype = torch.float32
    if device == "cuda" and (cfg.common.fp16 or cfg.common.bf16 or cfg.common.amp):
        dtype = torch.float16 if cfg.common.fp16 or cfg.common.amp else torch.bfloat16
    products = measure_products(device, dtype, SECONDS)
    share = SHARES[device]
    if device == "cpu" and cfg.common.bf16:
        share *= bfloat16_gain()
    return share * products / cost.flops, products
