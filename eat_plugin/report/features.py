"""What an encoder attends to in a clip, and the main components of its patch features."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..modules.transformer import TransformerBlock

if TYPE_CHECKING:
    from ..models.encoder import EatEncoder


class FeatureView(NamedTuple):
    """Patches of a clip on the (time, mel) grid.

    Attributes:
        attention: attention of CLS to each patch in the last block, mean over heads, times the
            number of patches: 1 is even. [rows, columns]; None without a CLS token.
        components: the three main components of the last block's features, from 0 to 1, as colours
            [rows, columns, 3].
    """

    attention: np.ndarray | None
    components: np.ndarray


@torch.no_grad()
def view_features(encoder: EatEncoder, sources: list[Tensor]) -> list[FeatureView]:
    """Look at clips [1, T, F] of any lengths; the components are those of all clips together."""
    attentions: list[np.ndarray | None] = []
    features, grids = [], []
    extra = encoder.num_extra_tokens
    for source in (clip[None].to(next(encoder.parameters()).device) for clip in sources):
        outputs = encoder.block_outputs(source)
        grids.append(encoder.patch_encoder.grid_of(source))
        features.append(outputs[-1][0, extra:].float().cpu())
        attentions.append(None)
        if extra:
            patches = encoder.patch_encoder
            before = outputs[-2] if len(outputs) > 1 else patches.contextualize(
                patches.embed(source)
            )  # fmt: skip
            weights = attend(encoder.blocks[-1], before)[0, :, extra - 1, extra:]
            weights = weights.mean(dim=0) * weights.shape[-1]
            attentions[-1] = weights.float().cpu().unflatten(0, grids[-1]).numpy()
    components = _main_components(torch.cat(features))
    parts = components.split([len(x) for x in features])
    return [
        FeatureView(attention, part.unflatten(0, grid).numpy())
        for attention, part, grid in zip(attentions, parts, grids)
    ]


def attend(block: torch.nn.Module, x: Tensor) -> Tensor:
    """Return the attention of a block to its input [N, S, D]: [N, heads, S, S], rows sum to 1."""
    assert isinstance(block, TransformerBlock)
    x = block.norm1(x) if block.pre_norm else x
    attention = block.attn
    qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1))
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [N, heads, S, D / heads]
    return (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(dim=-1)


def _main_components(x: Tensor) -> Tensor:
    """Project [N, D] on its three main components, each scaled to 0..1 by its 1 % and 99 %."""
    centred = x - x.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred.double(), full_matrices=False)
    directions = directions[:3]
    # The sign of a component is arbitrary: make its largest weight positive.
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    projected = centred.double() @ (directions * largest.sign()).T
    low, high = (torch.quantile(projected, share, dim=0) for share in (0.01, 0.99))
    scaled = (projected - low) / (high - low).clamp(min=1e-12)
    return torch.nn.functional.pad(scaled.clamp(0, 1), (0, 3 - scaled.shape[1])).float()
