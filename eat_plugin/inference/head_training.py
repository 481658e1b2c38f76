"""Training and scoring of heads on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..choices import CGP, LCGP
from .heads import BlockLinears, MixtureHead, PrototypeHead
from .tokens import SplitTokens

BATCH = 48  # clips
RATE = 1e-3  # of AdamW
PROTOTYPES = (20, 10_000)  # least, most
UPDATES = (1_000, 20_000)  # least, most

Batches = Iterator[Tensor]
Score = Callable[[nn.Module, Tensor], Tensor]
"""A head, and the numbers of clips -> logits [..., B, classes]."""


class Plan(NamedTuple):
    """How a head is trained.

    Attributes:
        head: one of ``choices.HEADS``.
        prototypes: of ``cgp``; 0 for other heads.
        updates: number of updates of 48 clips.
        seed: of weights, order and dropout.
    """

    head: str
    prototypes: int
    updates: int
    seed: int

    @classmethod
    def choose(
        cls, head: str, clips: int, prototypes: int | None, updates: int | None, seed: int
    ) -> Plan:
        """Choose what is None by the number of training clips.

        Half as many prototypes as clips, and as many updates (48 epochs), within bounds: 10,000 and
        20,000 for the 20,000 clips of AudioSet-20K, as BAT's.
        """
        half = min(max(clips // 2, PROTOTYPES[0]), PROTOTYPES[1])
        epochs = min(max(clips, UPDATES[0]), UPDATES[1])
        number = (prototypes or half) if head == CGP else 0
        return cls(head, number, updates or epochs, seed)


def make_head(plan: Plan, blocks: int, width: int, classes: int) -> nn.Module:
    """Make a head, with weights drawn from the seed of the plan."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        if plan.head == CGP:
            return PrototypeHead(blocks, width, classes, plan.prototypes)
        kind = MixtureHead if plan.head == LCGP else BlockLinears
        return kind(blocks, width, classes)


class Clips:
    """The features of a split, as heads take them.

    Args:
        tokens: of the split.
        device: of the heads.
    """

    def __init__(self, tokens: SplitTokens, device: torch.device) -> None:
        self._tokens, self._device = tokens, device
        self._whole = torch.from_numpy(tokens.whole).to(device)

    def __len__(self) -> int:
        return len(self._tokens.usable)

    def score(self, head: nn.Module, numbers: Tensor) -> Tensor:
        """Return the logits of clips: [B, classes], of ``BlockLinears`` [blocks, B, classes]."""
        whole = self._whole[numbers.to(self._device)]
        if not isinstance(head, PrototypeHead):
            return head(whole)
        assert self._tokens.patches is not None
        parts = self._tokens.patches.take(numbers.tolist())
        patches, padding = _pad(parts)
        patches = patches.to(self._device).float()
        padding = None if padding is None else padding.to(self._device)
        return head(F.normalize(whole, dim=-1), patches, padding)


def _pad(parts: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None]:
    """Join patches [n, blocks, D] of clips to [B, n, blocks, D], and bool [B, n] of padding."""
    counts = torch.tensor([len(part) for part in parts])
    most = int(counts.max())
    joined = np.zeros((len(parts), most, *parts[0].shape[1:]), parts[0].dtype)
    for row, part in zip(joined, parts):
        row[: len(part)] = part
    padding = torch.arange(most) >= counts.unsqueeze(1)
    return torch.from_numpy(joined), padding if bool(padding.any()) else None


def train_head(
    head: nn.Module, clips: Clips, targets: np.ndarray, plan: Plan, single: bool
) -> Iterator[float]:
    """Train a head by AdamW; yield the loss of each update.

    Args:
        head: on its device; is changed.
        clips: the training clips.
        targets: [clips, classes], 0 or 1.
        plan: number of updates, seed.
        single: each clip has one class: cross-entropy; else binary cross-entropy per class.
    """
    device = next(head.parameters()).device
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE)
    wanted = torch.from_numpy(targets).float().to(device)
    noise = _Dropout(plan.seed, device)
    head.train()
    for numbers in _draw_batches(len(clips), plan):
        with noise:
            logits = clips.score(head, numbers)
        loss = _loss(logits, wanted[numbers.to(device)], single)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield float(loss.detach())


class _Dropout:
    """PyTorch's random numbers from a seed of their own, between two updates of the caller's."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        self._seed, self._updates = seed, 0

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=self._devices)
        self._fork.__enter__()
        torch.manual_seed(((self._seed << 32) + self._updates) % 2**63)
        self._updates += 1

    def __exit__(self, *error: object) -> None:
        self._fork.__exit__(*error)  # type: ignore[arg-type]


def _draw_batches(clips: int, plan: Plan) -> Batches:
    """Yield numbers of clips for each update; each epoch in another order."""
    generator, waiting = torch.Generator().manual_seed(plan.seed), torch.zeros(0, dtype=torch.int64)
    for _ in range(plan.updates):
        while len(waiting) < min(BATCH, clips):
            waiting = torch.cat([waiting, torch.randperm(clips, generator=generator)])
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def _loss(logits: Tensor, targets: Tensor, single: bool) -> Tensor:
    """Return the mean loss of clips; of several heads the sum, so that each learns as if alone."""
    heads = logits if logits.dim() == 3 else logits.unsqueeze(0)
    if single:
        losses = [F.cross_entropy(each, targets.argmax(dim=1)) for each in heads]
    else:
        losses = [F.binary_cross_entropy_with_logits(each, targets) for each in heads]
    return torch.stack(losses).sum()


@torch.no_grad()
def score_clips(head: nn.Module, clips: Clips, single: bool) -> np.ndarray:
    """Return the probabilities of clips, [clips, classes]; of ``BlockLinears`` [blocks, ...]."""
    head.eval()
    parts = [clips.score(head, part) for part in torch.arange(len(clips)).split(BATCH)]
    logits = torch.cat(parts, dim=-2)
    return (logits.softmax(dim=-1) if single else logits.sigmoid()).cpu().numpy()
