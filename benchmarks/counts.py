"""The cases of `eat bench` that are counted, not timed; they do not depend on the device."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Callable
from unittest import mock

import torch
from fairseq.optim import FairseqOptimizer, MemoryEfficientFP16Optimizer
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from eat_plugin.models.eat import EatModel
from eat_plugin.modules import transformer
from eat_plugin.modules.convolution import LAST
from eat_plugin.modules.decoders import ConvDecoder

from .plain_training import HALF_OPTIONS, PlainUpdate, compute_losses
from .timing import Count, Place, Prepare, hide_gpus
from .training import (
    CLIP_NORM,
    DECAY,
    FRAMES,
    LR,
    SIZES,
    draw_batch_masks,
    make_clips,
    make_model,
    make_optimizer,
)

# These compute nothing, but are not marked as views.
ALLOCATIONS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


def count_operations(function: Callable[[], Any]) -> int:
    """Count the ATen operations of a call, without views and allocations.

    Each operation counts as one, at any size, also one over a list of tensors
    (``torch._foreach_*``, a fused optimizer): a few kernels on a GPU, a loop on the CPU.
    """
    with _Counter() as counter:
        function()
    return counter.count


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_free = func.is_view or func.overloadpacket.__name__ in ALLOCATIONS
        self.count += func.namespace == "aten" and not is_free
        return func(*args, **(kwargs or {}))


def count_update(model: EatModel, dtype: torch.dtype) -> tuple[int, int]:
    """Count the operations of an update besides its forward and backward pass.

    These are: teacher step, division of the gradients by the sample size, clipping, optimizer step,
    zeroing of the gradients; all through fairseq's wrapper for the precision.

    Args:
        model: the model; it is not changed.
        dtype: float32 or bfloat16. The float32 weights of bfloat16 are kept by fairseq (``bf16``)
            in the plain form, by the optimizer (``memory_efficient_bf16``) in ours.

    Returns:
        Operations of fairseq's ``EMAModule``, ``Adam`` and ``clip_grad_norm_``, and of ours.
    """
    plain = PlainUpdate(model, LR, DECAY, CLIP_NORM, dtype=dtype)
    ours = copy.deepcopy(model).to(dtype=dtype).train()
    optimizer: FairseqOptimizer = make_optimizer(ours, LR)
    if dtype == torch.bfloat16:
        cfg = OmegaConf.create({"common": HALF_OPTIONS})
        optimizer = MemoryEfficientFP16Optimizer(cfg, None, optimizer)
    updates = iter((1, 2))
    return (
        _count_step(plain.model, plain.optimizer, lambda: plain.average.step(plain.source)),
        _count_step(ours, optimizer, lambda: ours.set_num_updates(next(updates))),
    )


def _count_step(
    model: nn.Module, optimizer: FairseqOptimizer, step_teacher: Callable[[], None]
) -> int:
    """Count the second update: the first one creates the optimizer's state."""

    def update() -> None:
        step_teacher()
        optimizer.multiply_grads(0.5)
        optimizer.clip_grad_norm(CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()

    counts = []
    for _ in range(2):
        optimizer.backward(torch.stack([p.sum() for p in model.parameters()]).sum())
        counts.append(count_operations(update))
    return counts[-1]


def count_saved_bytes(function: Callable[[], Any], excluded: Iterable[Tensor] = ()) -> int:
    """Count the bytes that autograd saves for backward in a call; shared memory counts once.

    Args:
        function: the call; its result has a gradient.
        excluded: tensors that do not count: parameters, and the input.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in excluded}
    # References to the storages prevent a second use of the same address.
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function()
    return sum(storage.nbytes() for storage in saved.values())


def count_activations(model: EatModel, source: Tensor, mask: Tensor, plain: bool = False) -> int:
    """Count the bytes that the losses of a batch save for backward, as on a GPU.

    In half precision on a CPU our attention keeps its table of weights; here it is fused.

    Args:
        model: the model, in training mode.
        source: [B, C, T, F], in the model's precision.
        mask: [B*K, L], 1 = hidden.
        plain: count the plain form.
    """
    assert model.teacher is not None
    teacher, num_visible = model.teacher.encoder, int((mask[0] == 0).sum())

    decoder = model.patch_encoder.decoder
    if isinstance(decoder, ConvDecoder):
        decoder.use_way(LAST)  # with auto, the first forward would also time convolutions

    def compute() -> None:
        if plain:
            compute_losses(model, teacher, source, mask)
        else:
            model(source, precomputed_mask=mask, num_visible=num_visible)

    with mock.patch.object(transformer, "MOST_IN_TABLE", 0):
        if model.cfg.compile:
            compute()  # compilation saves other tensors
        excluded = [*model.parameters(), *teacher.parameters(), source, mask]
        return count_saved_bytes(compute, excluded)


def compare_activations(model: EatModel, what: str) -> Count:
    """Count, for a clip, what the losses of both forms of a model in bfloat16 save for backward."""
    source = make_clips(1, model.patch_encoder.cfg.target_length).bfloat16()
    mask, _ = draw_batch_masks(model, 1)
    plain, ours = (count_activations(model, source, mask, form) for form in (True, False))
    return Count(what, "MiB", plain / 2**20, ours / 2**20)


def operations(place: Place) -> Count:
    """Operations of an update besides its forward and backward pass."""
    with hide_gpus():
        counts = count_update(make_model(SIZES["base"], FRAMES), torch.bfloat16)
    what = "optimizer, teacher, gradient norm and casts of an update, base, bfloat16"
    return Count(what, "operations", *counts)


def activations(recompute: str) -> Prepare:
    """Return the case of the memory that the losses of a clip save for backward."""

    def count(place: Place) -> Count:
        model = make_model({**SIZES["base"], "recompute": recompute}, FRAMES).bfloat16()
        note = "" if recompute == "none" else f", recompute={recompute}"
        what = (
            f"saved for backward of a clip x {model.cfg.clone_batch} clones, base, bfloat16{note}"
        )
        return compare_activations(model, what)

    return count


CASES: dict[str, Prepare] = {
    "operations": operations,
    "activations": activations("none"),
    "activations_gelu": activations("gelu"),
}
