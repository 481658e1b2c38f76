"""Heads that learn from the frozen features of all blocks of a model (BAT, arXiv 2602.16305).

Names and layout of the weights are those of BAT's published probes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DROPOUT = 0.2
INITIAL_STD = 0.02  # of prototypes


class BlockMixture(nn.Module):
    """A mixture of blocks: their weights are a softmax, equal at the start."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.block_attention = nn.Parameter(torch.zeros(blocks))

    @property
    def weights(self) -> Tensor:
        """The weight of each block, [blocks]; their sum is 1."""
        return self.block_attention.softmax(dim=0)

    def mix(self, x: Tensor) -> Tensor:
        """Average over blocks: [..., blocks, D] to [..., D]."""
        return torch.einsum("...bd,b->...d", x, self.weights)


class PrototypeHead(BlockMixture):
    """Convex gated probing, ``cgp``: how similar the patches of a clip are to prototypes.

    Each prototype gives a clip three numbers, from the cosines of its direction with the mixed
    tokens: the least over patches, that of CLS, the largest over patches. A linear layer follows.

    Args:
        blocks: of the model.
        width: of a token, D.
        classes: number of logits.
        prototypes: number of prototypes, K.
    """

    def __init__(self, blocks: int, width: int, classes: int, prototypes: int) -> None:
        super().__init__(blocks)
        vectors = torch.randn(prototypes, width, 1, 1) * INITIAL_STD
        self.prototype_vectors = nn.Parameter(vectors)
        self.fc = nn.Linear(3 * prototypes, classes)

    def forward(self, whole: Tensor, patches: Tensor, padding: Tensor | None = None) -> Tensor:
        """Compute the logits [B, classes].

        Args:
            whole: CLS of each block, of length 1, [B, blocks, D].
            patches: tokens of length 1, [B, n, blocks, D].
            padding: bool [B, n], True where a clip has no patch.
        """
        cosines = self._compare(patches)  # [B, n, K]
        low = high = cosines
        if padding is not None:
            low = cosines.masked_fill(padding.unsqueeze(-1), 2.0)
            high = cosines.masked_fill(padding.unsqueeze(-1), -2.0)
        return self._classify(low.amin(dim=1), self._compare(whole), high.amax(dim=1))

    def score_frames(self, grid: Tensor) -> Tensor:
        """Compute the logits of each time step, [B, T, classes].

        The mean over mel is in the place of CLS.

        Args:
            grid: tokens of length 1, [B, T, mel, blocks, D].
        """
        cosines = self._compare(grid)  # [B, T, mel, K]
        return self._classify(cosines.amin(dim=2), cosines.mean(dim=2), cosines.amax(dim=2))

    def _compare(self, x: Tensor) -> Tensor:
        """Compare the mixed blocks with prototypes: [..., blocks, D] to [..., K]."""
        return self.mix(x) @ F.normalize(self.prototype_vectors.flatten(1), dim=1).T

    def _classify(self, low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
        found = torch.stack([low, middle, high], dim=-1).flatten(-2)  # [..., 3 K]
        return self.fc(F.dropout(found, DROPOUT, self.training))


class MixtureHead(BlockMixture):
    """The linear variant, ``lcgp``: a linear layer on mixed vectors.

    Args:
        blocks: of the model.
        width: of a vector, D.
        classes: number of logits.
    """

    def __init__(self, blocks: int, width: int, classes: int) -> None:
        super().__init__(blocks)
        self.fc = nn.Linear(width, classes)

    def forward(self, whole: Tensor) -> Tensor:
        """Compute the logits [B, classes] of vectors [B, blocks, D]."""
        return self.fc(F.dropout(self.mix(whole), DROPOUT, self.training))


class BlockLinears(nn.Module):
    """A linear layer for each block, which learn next to each other.

    Args:
        blocks: of the model.
        width: of a vector, D.
        classes: number of logits.
    """

    def __init__(self, blocks: int, width: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, classes) for _ in range(blocks))

    def forward(self, whole: Tensor) -> Tensor:
        """Compute the logits of each block, [blocks, B, classes], of vectors [B, blocks, D]."""
        x = F.dropout(whole, DROPOUT, self.training)
        return torch.stack([layer(x[:, block]) for block, layer in enumerate(self.layers)])
