"""FLOPs of an update, counted from the configuration: matrix products and convolutions."""

from __future__ import annotations

import math

from ..masking import MaskSpec
from ..options import patch_sides
from .bat_options import VIT
from .config import EatConfig, decoder_kernel

EMBEDDING, TEACHER = "patch embedding", "teacher"


def attention_flops(cfg: EatConfig, length: int) -> float:
    """Count the FLOPs of attention in all blocks, forward, over ``length`` tokens."""
    layers = 4 + cfg.attention_gate
    return cfg.depth * (2 * layers * length * cfg.embed_dim**2 + 4 * length**2 * cfg.embed_dim)


def mlp_flops(cfg: EatConfig, length: int) -> float:
    """Count the FLOPs of the MLPs of all blocks, forward, over ``length`` tokens."""
    return cfg.depth * 4 * length * cfg.embed_dim * int(cfg.embed_dim * cfg.mlp_ratio)


def _convolution_flops(cfg: EatConfig, grid: tuple[int, int], hidden: int) -> dict[str, float]:
    """Count the FLOPs of a convolutional decoder for a clone, forward."""
    image, inner, convolutions = cfg.modalities.image, cfg.embed_dim, 0.0
    decoder, kernel = image.decoder, decoder_kernel(image)
    assert decoder is not None
    # An even side of the kernel adds a row or a column.
    places = math.prod(n + 1 - side % 2 for n, side in zip(grid, kernel))
    for _ in range(decoder.decoder_layers):
        weights = math.prod(kernel) * (inner // decoder.decoder_groups) * decoder.decoder_dim
        convolutions, inner = convolutions + 2 * places * weights, decoder.decoder_dim
    return {
        "decoder: convolutions": convolutions,
        "decoder: projection": 2 * hidden * inner * cfg.embed_dim,
    }


def _transformer_flops(cfg: EatConfig, visible: int, hidden: int) -> dict[str, float]:
    """Count the FLOPs of a transformer as decoder for a clone, forward."""
    decoder = cfg.modalities.image.decoder
    assert decoder is not None
    width, length = decoder.decoder_dim, visible + hidden
    # All but keys and values; the last block computes them for the hidden patches only.
    asked = length * (decoder.decoder_layers - 1) + hidden
    attention = 2 * (2 + cfg.attention_gate) * asked * width**2 + 4 * asked * length * width
    attention += decoder.decoder_layers * 4 * length * width**2
    projections = hidden + visible * (width != cfg.embed_dim)
    return {
        "decoder: attention": attention,
        "decoder: MLP": 4 * asked * width * int(width * decoder.decoder_mlp_ratio),
        "decoder: projections": 2 * projections * width * cfg.embed_dim,
    }


def count_flops(cfg: EatConfig, grid: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """Count the FLOPs of a clip in an update, forward and backward, per part of the model.

    Matrix products and convolutions count, with two FLOPs per multiply-add: the student over all
    clones forward and backward, the teacher forward. Backward has twice the FLOPs of forward, but a
    spectrogram needs no gradient. Recomputation in backward (attention weights,
    ``model.recompute``) does not count. With ``retention_loss`` mixtures are as many clips again,
    and the teacher also encodes the mixed time steps of each clip alone.

    Args:
        cfg: the model.
        grid: (time, mel) size of the patch grid.
    """
    image, width, clones = cfg.modalities.image, cfg.embed_dim, cfg.clone_batch
    patches, values = grid[0] * grid[1], math.prod(patch_sides(image.patch_size)) * image.in_chans
    visible = MaskSpec.from_options(image, grid).num_visible
    share = 1.0 if image.decoder is None else image.decoder.hidden_share
    hidden = max(1, math.ceil(share * (patches - visible)))

    length = visible + image.num_extra_tokens
    embedding = 2 * patches * values * image.embed_dim
    widening = 2 * patches * image.embed_dim * width * (image.embed_dim != width)
    forward: dict[str, float] = {
        "student: attention": clones * attention_flops(cfg, length),
        "student: MLP": clones * mlp_flops(cfg, length),
    }
    decoder, mixes = image.decoder, cfg.retention_loss > 0
    if decoder is not None and (cfg.d2v_loss > 0 or cfg.recon_loss > 0 or mixes):
        if decoder.decoder_kind == VIT:
            counted = _transformer_flops(cfg, visible, hidden)
        else:
            counted = _convolution_flops(cfg, grid, hidden)
        forward.update((name, clones * flops) for name, flops in counted.items())
    reconstruction = 2 * clones * hidden * width * values * (cfg.recon_loss > 0)
    distribution = 2 * clones * width**2 * (cfg.cls_loss > 0 and cfg.utterance_level)
    if reconstruction or distribution:
        forward["losses"] = reconstruction + distribution
    trained = image.local_grad_mult > 0
    own_embedding = image.ema_local_encoder and not cfg.ema_encoder_only
    length = patches + image.num_extra_tokens
    teacher = attention_flops(cfg, length) + mlp_flops(cfg, length)
    teacher += (embedding + widening) * own_embedding
    clips = 2 if mixes else 1
    parts = {
        EMBEDDING: (embedding + widening, (embedding + 2 * widening) * trained),
        **{name: (flops, 2 * flops) for name, flops in forward.items()},
    }
    return {
        **{name: (clips * first, clips * second) for name, (first, second) in parts.items()},
        TEACHER: (teacher * (clips + mixes * cfg.mixed_share), 0.0),
    }


def update_flops(cfg: EatConfig, grid: tuple[int, int]) -> float:
    """Count the FLOPs of a clip in an update, see `count_flops`."""
    return sum(sum(pair) for pair in count_flops(cfg, grid).values())


def finetuning_flops(cfg: EatConfig, grid: tuple[int, int], frozen: bool = False) -> float:
    """Count the FLOPs of a clip in an update of fine-tuning, forward and backward.

    Args:
        cfg: the encoder.
        grid: (time, mel) size of the patch grid.
        frozen: the encoder is not trained, so that it has no backward pass.
    """
    image, patches = cfg.modalities.image, grid[0] * grid[1]
    length = patches + image.num_extra_tokens
    values = math.prod(patch_sides(image.patch_size)) * image.in_chans
    embedding = 2 * patches * values * image.embed_dim
    blocks = attention_flops(cfg, length) + mlp_flops(cfg, length)
    return embedding + blocks if frozen else 2 * embedding + 3 * blocks
