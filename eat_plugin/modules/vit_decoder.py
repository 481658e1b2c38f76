"""The transformer decoder that predicts hidden patches from visible ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear
from .patch_split import PatchSplit
from .transformer import BLOCK_OPTIONS, TransformerBlock, make_norm


class VitDecoder(nn.Module):
    """Transformer blocks over visible tokens and mask tokens (MAE, He et al. 2022; BAT, 2026).

    Tokens have learned positions, so that their order does not matter: the visible ones of each
    row come first, then a mask token for each hidden patch. The last block computes the hidden
    ones only, which attend to all.

    Args:
        cfg: options of ``models.config.EatConfig``.
        table: [L, ``decoder_dim``], the positions at the start.
    """

    def __init__(self, cfg: Any, table: Tensor) -> None:
        super().__init__()
        options = cfg.modalities.image.decoder
        own = SimpleNamespace(**{name: getattr(cfg, name) for name in BLOCK_OPTIONS})
        own.embed_dim, own.mlp_ratio = options.decoder_dim, options.decoder_mlp_ratio
        if options.decoder_heads is not None:
            own.num_heads = options.decoder_heads
        self.mask_token = nn.Parameter(torch.empty(1, 1, own.embed_dim).normal_(std=0.02))
        self.positions = nn.Parameter(table.unsqueeze(0))
        self.in_proj = None
        if own.embed_dim != cfg.embed_dim:
            self.in_proj = Linear(cfg.embed_dim, own.embed_dim, bias=False)
        self.blocks = nn.ModuleList(TransformerBlock(own) for _ in range(options.decoder_layers))
        self.norm = make_norm(own) if cfg.layer_norm_first else None
        self.proj = Linear(own.embed_dim, cfg.embed_dim, bias=False)

    def forward(self, visible: Tensor, split: PatchSplit) -> Tensor:
        """Predict the hidden patches, [N_hidden, D], from tokens of the visible ones [N, V, D]."""
        x = visible if self.in_proj is None else self.in_proj(visible)
        masked = self.mask_token.to(x.dtype).expand(*split.hidden.shape, -1)
        places = torch.cat([split.visible, split.hidden], dim=1)
        x = torch.cat([x, masked], dim=1) + F.embedding(places, self.positions[0])
        padding = None
        if split.lengths is not None:
            padding = torch.cat([split.lengths.unused, split.lengths.hidden_unused], dim=1)
        for block in self.blocks[:-1]:
            x, _ = block(x, padding)
        x, _ = self.blocks[-1](x, padding, split.hidden.size(1))  # [N, M, D]
        return self.proj(split.flatten_hidden(x if self.norm is None else self.norm(x)))
