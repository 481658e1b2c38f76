"""Transformer blocks that also return the output which the student predicts."""

from __future__ import annotations

from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compiled import Compiled
from .linear import Linear
from .recompute import recompute, recomputes


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    ``dim`` is divisible by ``num_heads``; ``dropout`` is that of the output.
    """

    def __init__(
        self, dim: int, num_heads: int, attention_dropout: float = 0.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Attend within each sequence.

        Args:
            x: [N, S, D].
            padding_mask: bool [N, S], True = padding, to which no token attends.

        Returns:
            [N, S, D].
        """
        batch, length, dim = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [N, heads, S, D / heads]
        allowed = None if padding_mask is None else ~padding_mask[:, None, None, :]
        x = F.scaled_dot_product_attention(
            q, k, v, allowed, dropout_p=self.attention_dropout if self.training else 0.0
        )
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(batch, length, dim)))


class Mlp(nn.Module):
    """Two linear layers with a GELU between, dropout after each.

    With ``recompute_gelu``, backward computes GELU again instead of keeping its output.
    """

    def __init__(
        self, dim: int, hidden_dim: int, dropout: float = 0.0, recompute_gelu: bool = False
    ) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)
        self.recompute_gelu = recompute_gelu

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

    Args:
        dim: width D.
        num_heads: number of heads.
        mlp_ratio: hidden width of the MLP over D.
        norm_eps: epsilon of both LayerNorms.
        norm_affine: the LayerNorms have weights.
        pre_norm: normalise before each branch, not after.
        end_of_block_target: the target output is the block's output, not t.
        dropout: rate after the attention projection.
        attention_dropout: rate of the attention weights.
        activation_dropout: rate inside the MLP.
        mlp_dropout: rate after the MLP.
        drop_path: stochastic depth rate of both branches.
        recompute: one of ``recompute.CHOICES``.
        compiled: compile the block for training.

    Attributes:
        compiled_in_evaluation: compile the block for evaluation too; for a teacher.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
        norm_affine: bool = True,
        pre_norm: bool = False,
        end_of_block_target: bool = False,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        mlp_dropout: float = 0.0,
        drop_path: float = 0.0,
        recompute: str = "none",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.end_of_block_target = end_of_block_target
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps, elementwise_affine=norm_affine)
        self.attn = Attention(dim, num_heads, attention_dropout, dropout)
        self.drop_path = drop_path
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps, elementwise_affine=norm_affine)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation_dropout, recompute == "gelu")
        self.mlp_drop = nn.Dropout(mlp_dropout)
        self.recompute = recompute
        self.is_random = max(dropout, attention_dropout, activation_dropout, mlp_dropout) > 0
        self.compiled = compiled
        self.compiled_in_evaluation = False

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform a batch of sequences.

        Args:
            x: [N, S, D].
            padding_mask: bool [N, S], True = padding.

        Returns:
            The block's output and its target output, both [N, S, D].
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
