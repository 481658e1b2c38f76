"""The passes of a pre-training step: student, teacher and decoder. A GPU may replay them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..modules.patch_split import PatchSplit, pick_tokens
from ..options import require

if TYPE_CHECKING:
    from .config import EatConfig
    from .eat import EatModel

DROPOUTS = ("encoder_dropout", "attention_dropout", "activation_dropout", "post_mlp_drop")


class Passes(NamedTuple):
    """What the passes compute; B clips, K clones, L patches, E + V tokens, width D.

    Attributes:
        student: [B*K, E + V, D], output of the student.
        targets: [B, L, D], float32, made by the teacher.
        hidden_targets: [N_hidden, D], the targets at hidden patches.
        prediction: [N_hidden, D], output of the decoder; None without a decoder.
        utterance_target: [B, D], float32; None if no objective needs it.
    """

    student: Tensor
    targets: Tensor
    hidden_targets: Tensor
    prediction: Tensor | None
    utterance_target: Tensor | None


def run_passes(
    model: EatModel,
    source: Tensor,
    target: Tensor,
    split: PatchSplit,
    canvas: Tensor | None,
    padding: Tensor | None,
) -> Passes:
    """Compute the passes; with ``model.cuda_graph`` in training, by a graph of the GPU.

    Args:
        model: student, teacher and decoder.
        source: [B, C, T, F], input of the student.
        target: [B, C, T, F], input of the teacher.
        split: visible and hidden patches of the B * K masks.
        canvas: see ``StudentPatches.draw_canvas``.
        padding: bool [B, L], True = padding; clips of different length run without a graph.
    """
    if model.replayed is None or not model.training or padding is not None:
        return _compute(model, source, target, split, canvas, padding)

    def compute(
        source: Tensor, target: Tensor | None, canvas: Tensor | None, visible: Tensor,
        visible_rows: Tensor, hidden: Tensor, hidden_rows: Tensor, hidden_sources: Tensor,
    ) -> Passes:  # fmt: skip
        own = PatchSplit(
            visible, visible_rows, hidden, hidden_rows, hidden_sources, split.num_masked
        )
        return _compute(model, source, source if target is None else target, own, canvas, None)

    assert model.teacher is not None
    inputs = (
        source, None if target is source else target, canvas, split.visible, split.visible_rows,
        split.hidden, split.hidden_rows, split.hidden_sources,
    )  # fmt: skip
    of_teacher = list(model.teacher.encoder.parameters())
    return Passes(*model.replayed(compute, inputs, model, of_teacher))


def _compute(
    model: EatModel,
    source: Tensor,
    target: Tensor,
    split: PatchSplit,
    canvas: Tensor | None,
    padding: Tensor | None,
) -> Passes:
    assert model.teacher is not None
    patches = model.patch_encoder
    # The student sees the visible patches of each clone.
    local = patches.local_features(source)  # [B, L, D]
    student = encode_visible(model, local, split)
    # The teacher sees whole clips and makes the targets.
    targets, clip_targets = model.teacher.make_targets(model, target, local, padding)
    hidden_targets = targets.flatten(0, 1).index_select(0, split.hidden_sources)
    # The decoder predicts the hidden patches.
    prediction = None
    if patches.decoder is not None:
        visible = student[:, model.num_extra_tokens :]
        prediction = patches.predict_hidden(visible, split, patches.grid_of(source), canvas)
    return Passes(student, targets, hidden_targets, prediction, clip_targets)


def encode_visible(model: EatModel, local: Tensor, split: PatchSplit) -> Tensor:
    """Encode the visible patches of embeddings without positions [B, L, D]: [B*K, E + V, D]."""
    patches = model.patch_encoder
    tokens = pick_tokens(patches.add_positions(local), split.visible, model.cfg.clone_batch)
    unused = None if split.lengths is None else model.token_padding(split.lengths.unused)
    return model.run_blocks(patches.contextualize(tokens), unused, keep_targets=False)[0]


def validate_graph(cfg: EatConfig) -> None:
    """Refuse random choices that a graph of the GPU would repeat in each update.

    Raises:
        ValueError: names the option and its value.
    """
    if not cfg.cuda_graph:
        return
    rule = "with model.cuda_graph=true the host cannot leave out blocks: set it to 0"
    require(cfg.layerdrop == 0, "model.layerdrop", cfg.layerdrop, rule)
    inner = {"gelu": ("activation_dropout",), "blocks": DROPOUTS}.get(cfg.recompute, ())
    for name in inner:
        rate = getattr(cfg, name)
        rule = f"model.cuda_graph=true and model.recompute={cfg.recompute} need 0"
        require(rate == 0, f"model.{name}", rate, rule)
