"""A configuration in plain words: batches, model, losses, cost; and its mistakes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..models.eat import EatModel
from ..modules.recompute import BLOCKS, CHOICES
from ..options import clips_of_batch
from ..prepare.amounts import count, describe_bytes
from .cost import Cost, count_checkpoints, find_grid
from .finding import CONFIGURATION, ERROR, MACHINE, OK, WARNING, Finding

PUBLISHED_ROWS = 12 * 16  # clips of a process and masks of each, of the published run
HEAVIER = 1.5  # times the published weight of the utterance loss
WIDTH_FOR_GPU = 512
FULL = 0.9  # of a disk or memory: estimates are not exact


class Batches(NamedTuple):
    """Numbers of a run.

    Attributes:
        size: clips of a process in a forward pass; at most those of an epoch.
        processes: of the run.
        steps: forward passes of an update.
        updates: of the run.
        clips: of an epoch; 0 if unknown.
    """

    size: int
    processes: int
    steps: int
    updates: int
    clips: int

    @property
    def per_update(self) -> int:
        """Clips of an update, at most those of an epoch."""
        product = self.size * self.processes * self.steps
        return min(product, self.clips) if self.clips else product

    @property
    def per_epoch(self) -> int:
        """Updates of an epoch."""
        return max(1, math.ceil(self.clips / self.per_update))

    @property
    def epochs(self) -> float:
        """Epochs of the run."""
        return self.updates / self.per_epoch


def count_batches(cfg: Any, clips: int, frames: float = 0) -> Batches:
    """Read the numbers of a run from its configuration.

    Args:
        cfg: of the run.
        clips: of an epoch; 0 if unknown.
        frames: of a clip, on average; 0 for those of the window.
    """
    most = cfg.dataset.max_tokens
    frames = (frames or cfg.task.target_length) if most else 1
    size = clips_of_batch(cfg.dataset.batch_size, most, frames)
    if clips:
        size = min(size, clips)
    processes = cfg.distributed_training.distributed_world_size
    if cfg.common.cpu and not cfg.distributed_training.distributed_no_spawn:
        processes = 1
    found = Batches(
        size, processes, cfg.optimization.update_freq[0], cfg.optimization.max_update, clips
    )
    last = cfg.optimization.max_epoch * found.per_epoch if clips else 0
    limits = [number for number in (found.updates, last) if number > 0]
    return found._replace(updates=min(limits, default=0))


def _show(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def describe_batches(batches: Batches) -> Finding:
    """Say how many clips, updates and epochs a run has."""
    parts = [f"{count(batches.size, 'clip')}"]
    parts += [f"{batches.processes} processes"] * (batches.processes > 1)
    parts += [f"{batches.steps} steps"] * (batches.steps > 1)
    is_product = batches.per_update == batches.size * batches.processes * batches.steps
    product = f" ({' x '.join(parts)})" if len(parts) > 1 and is_product else ""
    seen = f"an update has {count(batches.per_update, 'clip')}{product}"
    if not batches.clips:
        return Finding(CONFIGURATION, OK, f"{seen}, the run {batches.updates} updates")
    seen = (
        f"{seen}, an epoch {batches.per_epoch} updates ({count(batches.clips, 'clip')}), the run "
        f"{batches.updates} updates: {_show(batches.epochs)} epochs"
    )
    if batches.epochs < 1:
        fix = f"optimization.max_update={batches.per_epoch} for one epoch"
        return Finding(CONFIGURATION, WARNING, f"{seen}; not all clips are seen", fix)
    return Finding(CONFIGURATION, OK, seen)


def describe_model(cfg: Any, model: Any, cost: Cost) -> Finding:
    """Say how large the model and its input are."""
    encoder = model if isinstance(model, EatModel) else model.model
    own, (rows, columns) = encoder.cfg, find_grid(encoder, cfg)
    window = f"a window of {cfg.task.target_length / 100:g} s"
    if encoder.image_shape is not None:
        window = "an image"
    sides = " x ".join(map(str, encoder.patch_encoder.patch_sides))
    seen = (
        f"{own.depth} blocks of width {own.embed_dim}, {cost.trained:,} trained parameters; "
        f"{window} is {rows * columns} patches of {sides}"
    )
    if isinstance(model, EatModel):
        seen += f", seen under {count(own.clone_batch, 'mask')}"
    return Finding(CONFIGURATION, OK, seen)


def describe_losses(model: Any, batches: Batches) -> list[Finding]:
    """Name the losses with their weights, and the balance of patch loss and utterance loss."""
    if not isinstance(model, EatModel):
        loss, classes = str(model.cfg.loss).rpartition(".")[2].lower(), model.cfg.num_classes
        return [Finding(CONFIGURATION, OK, f"loss: {loss}, of {count(classes, 'class')}")]
    named = [f"{one.name} x {one.weight:g} (model.{one.weight_option})" for one in model.objectives]
    findings = [Finding(CONFIGURATION, OK, f"losses: {', '.join(named)}")]
    cfg = model.cfg
    is_sound = model.image_shape is None  # of the published run that is compared with
    if is_sound and cfg.cls_loss > 0 and cfg.d2v_loss > 0 and not cfg.utterance_level:
        findings.append(check_balance(cfg.cls_loss / cfg.d2v_loss, batches.size, cfg.clone_batch))
    return findings


def check_balance(weight: float, clips: int, clones: int) -> Finding:
    """Compare the weight of the utterance loss with that of the published run.

    fairseq divides the sum of all losses by the number of hidden patches. The published utterance
    loss is a sum over clips and masks of a process, times that number: it grows with both.

    Args:
        weight: of the utterance loss over that of the patch loss.
        clips: of a process in a forward pass.
        clones: masks of a clip.
    """
    balanced = PUBLISHED_ROWS / (clips * clones)
    seen = (
        f"the utterance loss grows with the batch of a process, as published: with {clips} clips x "
        f"{clones} masks and model.cls_loss={weight:g} it weighs {weight / balanced:.3g} times "
        "what it does in the published run (12 x 16)"
    )
    advice = f"model.cls_loss={balanced:.4g} keeps the published balance"
    if weight > HEAVIER * balanced:
        return Finding(CONFIGURATION, WARNING, seen, advice)
    return Finding(CONFIGURATION, OK, f"{seen}; {advice}" if weight != balanced else seen)


def check_time(cfg: Any, batches: Batches, rate: float, source: str, width: int) -> Finding:
    """Say how long a run takes.

    Args:
        cfg: of the run.
        batches: of the run.
        rate: clips per second of a process.
        source: of the rate, in words.
        width: of the model.
    """
    hours = batches.updates * batches.per_update / (rate * batches.processes) / 3600
    shown = f"{_show(hours)} hours" if hours >= 1 else f"{60 * hours:.2g} minutes"
    seen = f"about {rate:.3g} clips/s of a process, {shown} in all ({source})"
    if cfg.common.cpu and width >= WIDTH_FOR_GPU:
        return Finding(CONFIGURATION, WARNING, seen, "a GPU; --size tiny is for CPUs")
    return Finding(CONFIGURATION, OK, seen)


def check_memory(
    needed: float, available: float | None, is_gpu: bool, source: str, recompute: str
) -> Finding:
    """Compare the memory of an update with that of the device.

    Args:
        needed: bytes.
        available: bytes; None if unknown.
        is_gpu: it is that of a GPU.
        source: of the number, in words.
        recompute: ``model.recompute``.
    """
    seen = f"a process needs about {describe_bytes(needed)} of memory ({source})"
    if available is None or needed <= FULL * available:
        return Finding(CONFIGURATION, OK, seen)
    place = "the GPU" if is_gpu else "the machine"
    seen = f"{seen}, {place} has {describe_bytes(available)}"
    fix = "a smaller dataset.batch_size with more optimization.update_freq"
    if recompute != BLOCKS:
        less = CHOICES[CHOICES.index(recompute) + 1] if is_gpu else BLOCKS
        fix = f"model.recompute={less}, or {fix}"
    return Finding(CONFIGURATION, WARNING if needed <= available else ERROR, seen, fix)


def check_disk(cfg: Any, batches: Batches, size: float, free: int, place: str) -> Finding:
    """Compare the checkpoints that a run keeps with the free bytes of its disk.

    Args:
        cfg: of the run.
        batches: of the run.
        size: bytes of a checkpoint.
        free: bytes.
        place: a folder on the disk.
    """
    number = count_checkpoints(cfg, batches.updates, batches.epochs if batches.clips else 0)
    seen = (
        f"checkpoints take up to {describe_bytes(number * size)} ({number} x "
        f"{describe_bytes(size)}, one of them being written), {place} has {describe_bytes(free)} "
        "free"
    )
    if number * size <= FULL * free:
        return Finding(MACHINE, OK, seen)
    fix = "make room, choose another --out, or lower checkpoint.keep_interval_updates"
    return Finding(MACHINE, ERROR if number * size > free else WARNING, seen, fix)
