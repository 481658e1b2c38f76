"""Published checkpoints of BAT (Ghaffari et al. 2026, arXiv 2602.16305) in our own form.

They have one of two layouts: a dictionary with ``encoder``, ``decoder`` and ``ema_encoder``; or
flat names, ``student.encoder.*``. The student's encoder is taken. Only this file knows the names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What the files do not say: how the input of the encoder was made.
TASK: dict[str, Any] = {"_name": "eat_pretraining", "frontend": "db"}
HEAD_WIDTH = 64  # channels of an attention head, of all published sizes
MEL_BINS = 128
PREFIXES = ("student.encoder.", "encoder.")
NAMED = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
IMAGE = "modality_encoders.IMAGE."
# Their names -> ours; those of blocks are the same.
NAMES = {
    "cls_token": f"{IMAGE}extra_tokens",
    "pos_embed": f"{IMAGE}fixed_positional_encoder.positions",
    "patch_embed.proj.weight": f"{IMAGE}local_encoder.proj.weight",
    "patch_embed.proj.bias": f"{IMAGE}local_encoder.proj.bias",
    "pre_norm.weight": f"{IMAGE}context_encoder.norm.weight",
    "pre_norm.bias": f"{IMAGE}context_encoder.norm.bias",
}
OF_BLOCK = re.compile(
    r"blocks\.(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|attn\.gate|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
)


def convert_bat(state: Any, path: str) -> dict[str, Any] | None:
    """Return a BAT checkpoint as one of ours, an encoder without a teacher; None for other files.

    Args:
        state: what is in the file.
        path: of the file, for messages.

    Raises:
        ValueError: it is one, but of another model: a weight is unknown, or its heads are.
    """
    if not isinstance(state, Mapping) or "cfg" in state:
        return None
    weights = _find_encoder(state)
    if weights is None and isinstance(state.get("state_dict"), Mapping):
        weights = _find_encoder(state["state_dict"])
    if weights is None:
        return None
    for name in weights:
        if name not in NAMES and not OF_BLOCK.fullmatch(name):
            raise ValueError(f"{path} looks like a BAT checkpoint, but has weights {name!r}")
    options = _read_options(weights, state.get("config"), path)
    return {
        "cfg": {
            "common": {"seed": 1},
            "optimization": {"max_update": 0},
            "task": {**TASK, "target_length": options["modalities"]["image"]["target_length"]},
            "model": options,
        },
        "model": {NAMES.get(name, name): value for name, value in weights.items()},
    }


def _find_encoder(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the student's encoder, by its own names."""
    encoder = state.get("encoder")
    if isinstance(encoder, Mapping):
        candidates = [dict(encoder)]
    else:
        candidates = [
            {name[len(p) :]: value for name, value in state.items() if str(name).startswith(p)}
            for p in PREFIXES
        ]
    return next((found for found in candidates if all(name in found for name in NAMED)), None)


def _read_options(weights: Mapping[str, Any], config: Any, path: str) -> dict[str, Any]:
    """Read the options of the model from the shapes of its weights, heads from ``config``."""
    width = weights["cls_token"].shape[-1]
    channels, frames, bins = weights["patch_embed.proj.weight"].shape[1:]
    columns = weights["pos_embed"].shape[1] * bins // MEL_BINS
    depth = 1 + max(int(found[1]) for found in map(OF_BLOCK.fullmatch, weights) if found)
    heads = config.get("num_heads") if isinstance(config, Mapping) else None
    if heads is None:
        heads, rest = divmod(width, HEAD_WIDTH)
        if rest:
            raise ValueError(
                f"{path} is a BAT checkpoint of width {width}, which is no multiple of "
                f"{HEAD_WIDTH}, and does not say its number of attention heads"
            )
    no_dropout = dict.fromkeys(("encoder_dropout", "attention_dropout", "post_mlp_drop"), 0.0)
    return {
        "_name": "eat",
        "skip_ema": True,
        "depth": depth,
        "embed_dim": width,
        "num_heads": heads,
        "mlp_ratio": weights["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "average_top_k_layers": depth,
        "attention_gate": "blocks.0.attn.gate.weight" in weights,
        "end_of_block_targets": True,
        **no_dropout,
        "modalities": {
            "image": {
                "in_chans": channels,
                "patch_size": frames if frames == bins else [frames, bins],
                "embed_dim": width,
                "num_extra_tokens": 1,
                "prenet_depth": 0,
                "positions": "published",
                "max_length": columns,
                "target_length": columns * frames,
                "decoder": None,
            }
        },
    }
