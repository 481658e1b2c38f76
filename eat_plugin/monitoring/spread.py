"""How vectors spread over tokens, over positions and across clips: pure functions.

M clips, L tokens of a clip, width D. Results are float32 scalars, on the device of the vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 1e-12  # a variance below this is none: ratios of it are 0
MOST_TOKENS = 512  # whose rank is computed, drawn from all: more take longer than the model


def measure_tokens(x: Tensor, padding: Tensor | None = None) -> dict[str, Tensor]:
    """Measure the tokens of several clips.

    The variance of all tokens has two parts: that of the means of the positions, and that across
    clips at the same position. Both are estimated without bias, so that few clips do not look like
    an effect of positions.

    Args:
        x: [M, L, D], M > 1.
        padding: bool [M, L], True = padding, which is left out; or None.

    Returns:
        ``variance``, the mean over channels over all tokens; ``rank``, see ``effective_rank``;
        ``across``, the variance across clips at the same position over the mean square, 0 if all
        clips give the same; ``positions``, the share of the variance that positions alone explain,
        1 if all clips give the same.
    """
    x = x.float()
    own = torch.ones(x.shape[:2], device=x.device) if padding is None else (~padding).float()
    x = x.masked_fill(own.unsqueeze(-1) == 0, 0)
    counts = own.sum(dim=0)  # [L] clips that have a position
    means = x.sum(dim=0) / counts.clamp(min=1).unsqueeze(-1)  # [L, D]
    total = own.sum()
    mean = x.sum(dim=(0, 1)) / total
    within = ((x - means) * own.unsqueeze(-1)).square().sum() / (counts - 1).clamp(min=0).sum()
    of_means = ((means - mean).square().sum(dim=-1) * counts).sum() / total
    between = (of_means - within * (counts > 0).sum() / total).clamp(min=0)
    tokens = x[own.bool()]
    return {
        "variance": tokens.var(dim=0).mean(),
        "rank": effective_rank(_draw(tokens)),
        "across": _ratio(within, x.square().sum() / total),
        "positions": _ratio(between, between + within),
    }


def measure_clips(x: Tensor) -> dict[str, Tensor]:
    """Measure one vector per clip, [M, D].

    Returns:
        ``variance``, the mean over channels; ``rank``, see ``effective_rank``, at most M - 1;
        ``cosine``, the mean between two clips, 1 if all clips give the same.
    """
    x = x.float()
    unit = F.normalize(x, dim=-1)
    pairs = len(x) * (len(x) - 1)
    cosine = (unit.sum(dim=0).square().sum() - unit.square().sum()) / pairs
    return {"variance": x.var(dim=0).mean(), "rank": effective_rank(x), "cosine": cosine}


def effective_rank(x: Tensor) -> Tensor:
    """Compute the effective rank of vectors [N, D] about their mean; 0 if they are all the same.

    It is the exponential of the entropy of the singular values, divided by their sum (Roy and
    Vetterli 2007): 1 for a line, D for the same variance in all directions.
    """
    x = x.double() - x.double().mean(dim=0)
    square = x.T @ x if x.size(0) >= x.size(1) else x @ x.T
    if not bool(torch.isfinite(square).all()):
        return torch.full((), torch.nan, device=x.device)
    values = torch.linalg.eigvalsh(square).clamp(min=0)
    if values[-1] / len(x) < LEAST:
        return torch.zeros((), device=x.device)
    values = values.sqrt()
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().float()


def _draw(tokens: Tensor) -> Tensor:
    """Draw some of many tokens [N, D], always the same ones."""
    if len(tokens) <= MOST_TOKENS:
        return tokens
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    return tokens[order[:MOST_TOKENS].to(tokens.device)]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > LEAST, part / whole.clamp(min=LEAST), torch.zeros_like(whole))
