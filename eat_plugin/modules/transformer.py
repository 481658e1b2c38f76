"""Transformer blocks. ``cfg`` has the options of ``models.config.EatConfig``."""

from __future__ import annotations

import math
from typing import Any, Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compiled import Compiled
from .linear import Linear, is_half_on_cpu
from .recompute import BLOCKS, recompute, recomputes

MOST_IN_TABLE = 640  # tokens for a table of weights in memory
# Options of a block.
BLOCK_OPTIONS = (
    "embed_dim", "num_heads", "mlp_ratio", "attention_gate", "layer_norm_first",
    "end_of_block_targets", "norm_eps", "norm_affine", "encoder_dropout", "attention_dropout",
    "activation_dropout", "post_mlp_drop", "recompute", "compile",
)  # fmt: skip


def make_norm(cfg: Any) -> nn.LayerNorm:
    """Make a LayerNorm of the model's width."""
    return nn.LayerNorm(cfg.embed_dim, eps=cfg.norm_eps, elementwise_affine=cfg.norm_affine)


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, dropout: float) -> Tensor:
    """Scaled dot-product attention, [N, heads, Q, C] over [N, heads, S, C].

    ``allowed``, bool, has True where a query may attend to a token.
    """
    if not is_half_on_cpu(q) or k.size(2) > MOST_IN_TABLE:
        return F.scaled_dot_product_attention(q, k, v, allowed, dropout_p=dropout)
    # The backward of PyTorch's fused attention takes 2 to 7 times as long there as these products.
    q, k, v = (part.contiguous() for part in (q * q.size(3) ** -0.5, k, v))
    scores = q @ k.transpose(2, 3)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return F.dropout(scores.softmax(dim=3), dropout) @ v


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    With ``attention_gate`` the heads' output is multiplied by ``sigmoid(gate(x))``, for each token
    and channel, before the last projection (BAT, Ghaffari et al. 2026, arXiv 2602.16305).
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.num_heads = cfg.num_heads
        self.gate = Linear(cfg.embed_dim, cfg.embed_dim) if cfg.attention_gate else None
        self.attention_dropout = cfg.attention_dropout
        self.qkv = Linear(cfg.embed_dim, 3 * cfg.embed_dim)
        self.proj = Linear(cfg.embed_dim, cfg.embed_dim)
        self.proj_drop = nn.Dropout(cfg.encoder_dropout)
        self.recompute_gated = cfg.recompute == "gelu"

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, num_queries: int | None = None
    ) -> Tensor:
        """Map [N, S, D] to [N, Q, D], the last Q = ``num_queries`` tokens; None for all.

        No token attends to padding, bool [N, S].
        """
        q, k, v = self._project(x, num_queries)  # each [N, heads, S or Q, D / heads]
        allowed = None if padding_mask is None else ~padding_mask[:, None, None, :]
        attended = attend(q, k, v, allowed, self.attention_dropout if self.training else 0.0)
        attended = attended.transpose(1, 2).flatten(2)
        if self.gate is None:
            return self.proj_drop(self.proj(attended))
        gate = self.gate(last_tokens(x, num_queries))
        if self.recompute_gated and recomputes(self):
            return self.proj_drop(recompute(self._project_gated, attended, gate, is_random=False))
        return self.proj_drop(self._project_gated(attended, gate))

    def _project_gated(self, attended: Tensor, gate: Tensor) -> Tensor:
        return self.proj(attended * gate.sigmoid())

    def _project(self, x: Tensor, num_queries: int | None) -> tuple[Tensor, ...]:
        """Return queries, keys and values; queries of the last tokens only."""
        heads, dim = self.num_heads, x.size(2)
        if num_queries is None:
            qkv = self.qkv(x).unflatten(2, (3, heads, -1))
            return qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q = self.qkv.compute(last_tokens(x, num_queries), 0, dim).unflatten(2, (heads, -1))
        kv = self.qkv.compute(x, dim, 3 * dim).unflatten(2, (2, heads, -1))
        return (q.transpose(1, 2), *kv.permute(2, 0, 3, 1, 4).unbind(0))


def last_tokens(x: Tensor, number: int | None) -> Tensor:
    """Return the last tokens of x [N, S, D]; None for all."""
    return x if number is None else x[:, x.size(1) - number :]


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

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, num_queries: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the block's output and its target output, [N, S, D] each.

        Args:
            x: [N, S, D].
            padding_mask: bool [N, S], True = padding.
            num_queries: compute the last tokens only, [N, Q, D]; they attend to all. None for all.
        """
        # Drawn outside of the compiled code, which blocks with different rates share.
        rate = self.drop_path if self.training else 0.0
        factors = (draw_drop_path(x, rate), draw_drop_path(x, rate))
        args = (self, x, padding_mask, *factors, num_queries)
        transform: Callable[..., tuple[Tensor, Tensor]] = transform_sequences
        if self.compiled if self.training else self.compiled_in_evaluation:
            transform = COMPILED.choose(*args)
        if self.recompute == BLOCKS and recomputes(self):
            return recompute(transform, *args, is_random=self.is_random)
        return transform(*args)


def transform_sequences(
    block: TransformerBlock,
    x: Tensor,
    padding_mask: Tensor | None,
    attention_factors: Tensor | None,
    mlp_factors: Tensor | None,
    num_queries: int | None,
) -> tuple[Tensor, Tensor]:
    """Compute a block, given the drop path factors of its branches."""
    branch = block.attn(block.norm1(x) if block.pre_norm else x, padding_mask, num_queries)
    x = last_tokens(x, num_queries) + scale_sequences(branch, attention_factors)
    if block.pre_norm:
        target = block.mlp(block.norm2(x))
        x = x + scale_sequences(block.mlp_drop(target), mlp_factors)
    else:
        residual = block.norm1(x)
        target = block.mlp(residual)
        x = block.norm2(residual + scale_sequences(block.mlp_drop(target), mlp_factors))
    return x, x if block.end_of_block_target else target


COMPILED = Compiled(transform_sequences, "transformer blocks")
