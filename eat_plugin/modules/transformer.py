"""Transformer blocks. ``cfg`` has the options of ``models.config.EatConfig``."""

from __future__ import annotations

from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compiled import Compiled
from .linear import Linear
from .recompute import recompute, recomputes


def make_norm(cfg: Any) -> nn.LayerNorm:
    """Make a LayerNorm of the model's width."""
    return nn.LayerNorm(cfg.embed_dim, eps=cfg.norm_eps, elementwise_affine=cfg.norm_affine)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.num_heads = cfg.num_heads
        self.attention_dropout = cfg.attention_dropout
        self.qkv = Linear(cfg.embed_dim, 3 * cfg.embed_dim)
        self.proj = Linear(cfg.embed_dim, cfg.embed_dim)
        self.proj_drop = nn.Dropout(cfg.encoder_dropout)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Map [N, S, D] to [N, S, D]; no token attends to padding, bool [N, S]."""
        batch, length, dim = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [N, heads, S, D / heads]
        allowed = None if padding_mask is None else ~padding_mask[:, None, None, :]
        x = F.scaled_dot_product_attention(
            q, k, v, allowed, dropout_p=self.attention_dropout if self.training else 0.0
        )
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(batch, length, dim)))


class Mlp(nn.Module):
    """Two linear layers with a GELU between, dropout after each."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        hidden_dim = int(cfg.embed_dim * cfg.mlp_ratio)
        self.fc1 = Linear(cfg.embed_dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, cfg.embed_dim)
        self.drop = nn.Dropout(cfg.activation_dropout)
        self.recompute_gelu = cfg.recompute == "gelu"

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, S, D] to [N, S, D]."""
        hidden = self.fc1(x)
        if self.recompute_gelu and recomputes(self):
            return self.drop(recompute(self._project, hidden, is_random=self.drop.p > 0))
        return self.drop(self._project(hidden))

    def _project(self, hidden: Tensor) -> Tensor:
        return self.fc2(self.drop(F.gelu(hidden)))


def draw_drop_path(x: Tensor, rate: float) -> Tensor | None:
    """Draw the factors of stochastic depth for N sequences [N, S, D] (Huang et al. 2016).

    Returns:
        [N, 1, 1], float32 or float64: 0 with probability ``rate``, else 1 / (1 - rate). None if the
        rate is 0.
    """
    if rate == 0:
        return None
    # A factor in half precision would change the mean.
    dtype = torch.promote_types(x.dtype, torch.float32)
    keep = torch.empty(x.size(0), 1, 1, dtype=dtype, device=x.device)
    return keep.bernoulli_(1 - rate) / (1 - rate)


def scale_sequences(x: Tensor, factors: Tensor | None) -> Tensor:
    """Multiply each sequence of x [N, S, D] by its factor [N, 1, 1]; None for 1."""
    return x if factors is None else (x * factors).to(x.dtype)


class TransformerBlock(nn.Module):
    """Attention and MLP with residuals, normalised after (as EAT does) or before.

    Post-norm: ``x += attn(x); r = norm1(x); t = mlp(r); x = norm2(r + t)``.
    Pre-norm: ``x += attn(norm1(x)); t = mlp(norm2(x)); x += t``.

    The target output, which the student predicts, is t, or x with ``end_of_block_targets``.

    Args:
        cfg: options of the model.
        drop_path: stochastic depth rate of both branches.

    Attributes:
        compiled_in_evaluation: compile the block for evaluation too; for a teacher.
    """

    def __init__(self, cfg: Any, drop_path: float = 0.0) -> None:
        super().__init__()
        self.pre_norm = cfg.layer_norm_first
        self.end_of_block_target = cfg.end_of_block_targets
        self.norm1 = make_norm(cfg)
        self.attn = Attention(cfg)
        self.drop_path = drop_path
        self.norm2 = make_norm(cfg)
        self.mlp = Mlp(cfg)
        self.mlp_drop = nn.Dropout(cfg.post_mlp_drop)
        self.recompute = cfg.recompute
        rates = (cfg.encoder_dropout, cfg.attention_dropout, cfg.activation_dropout)
        self.is_random = max(*rates, cfg.post_mlp_drop) > 0
        self.compiled = cfg.compile
        self.compiled_in_evaluation = False

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the block's output and its target output, [N, S, D] each.

        Args:
            x: [N, S, D].
            padding_mask: bool [N, S], True = padding.
        """
        # Drawn outside of the compiled code, which blocks with different rates share.
        rate = self.drop_path if self.training else 0.0
        args = (self, x, padding_mask, draw_drop_path(x, rate), draw_drop_path(x, rate))
        transform: Callable[..., tuple[Tensor, Tensor]] = transform_sequences
        if self.compiled if self.training else self.compiled_in_evaluation:
            transform = COMPILED.choose(*args)
        if self.recompute == "blocks" and recomputes(self):
            return recompute(transform, *args, is_random=self.is_random)
        return transform(*args)


def transform_sequences(
    block: TransformerBlock,
    x: Tensor,
    padding_mask: Tensor | None,
    attention_factors: Tensor | None,
    mlp_factors: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute a block, given the drop path factors of its branches."""
    if block.pre_norm:
        x = x + scale_sequences(block.attn(block.norm1(x), padding_mask), attention_factors)
        target = block.mlp(block.norm2(x))
        x = x + scale_sequences(block.mlp_drop(target), mlp_factors)
    else:
        x = x + scale_sequences(block.attn(x, padding_mask), attention_factors)
        residual = block.norm1(x)
        target = block.mlp(residual)
        x = block.norm2(residual + scale_sequences(block.mlp_drop(target), mlp_factors))
    return x, x if block.end_of_block_target else target


COMPILED = Compiled(transform_sequences, "transformer blocks")
