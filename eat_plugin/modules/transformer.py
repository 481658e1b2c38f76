"""Transformer blocks that also return the output a student is trained to predict."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    Args:
        dim: width D, divisible by ``num_heads``.
        num_heads: number of heads.
        attention_dropout: dropout rate of the attention weights.
        dropout: dropout rate of the output.
    """

    def __init__(
        self, dim: int, num_heads: int, attention_dropout: float = 0.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Attend within each sequence.

        Args:
            x: [N, S, D].
            padding_mask: bool [N, S], True where a token is padding that nobody may attend to.

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
    """Two linear layers with a GELU between; dropout after each."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, S, D] to [N, S, D]."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch for whole sequences (Huang et al. 2016).

    Args:
        rate: probability that a sequence loses the branch; the others are scaled up to match.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return x [N, S, D] with some of its N sequences zeroed, in training only."""
        if not self.training or self.rate == 0:
            return x
        keep = torch.empty(x.size(0), 1, 1, dtype=x.dtype, device=x.device)
        return x * keep.bernoulli_(1 - self.rate) / (1 - self.rate)


class TransformerBlock(nn.Module):
    """Attention and MLP with residuals, normalised after (as EAT does) or before.

    Post-norm: ``x += attn(x); r = norm1(x); t = mlp(r); x = norm2(r + t)``.
    Pre-norm: ``x += attn(norm1(x)); t = mlp(norm2(x)); x += t``.

    Args:
        dim: width D.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over D.
        norm_eps: epsilon of both LayerNorms.
        norm_affine: whether the LayerNorms have weights.
        pre_norm: normalise before each branch rather than after.
        end_of_block_target: the target output is the block's output rather than t.
        dropout: rate after the attention projection.
        attention_dropout: rate on the attention weights.
        activation_dropout: rate inside the MLP.
        mlp_dropout: rate after the MLP.
        drop_path: stochastic depth rate of both branches.
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
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.end_of_block_target = end_of_block_target
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps, elementwise_affine=norm_affine)
        self.attn = Attention(dim, num_heads, attention_dropout, dropout)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps, elementwise_affine=norm_affine)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), activation_dropout)
        self.mlp_drop = nn.Dropout(mlp_dropout)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Transform a batch of sequences.

        Args:
            x: [N, S, D].
            padding_mask: bool [N, S], True = padding.

        Returns:
            The block's output and its target output, both [N, S, D].
        """
        if self.pre_norm:
            x = x + self.drop_path(self.attn(self.norm1(x), padding_mask))
            target = self.mlp(self.norm2(x))
            x = x + self.drop_path(self.mlp_drop(target))
        else:
            x = x + self.drop_path(self.attn(x, padding_mask))
            residual = self.norm1(x)
            target = self.mlp(residual)
            x = self.norm2(residual + self.drop_path(self.mlp_drop(target)))
        return x, x if self.end_of_block_target else target
