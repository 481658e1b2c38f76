"""What a pre-training update computes and moves, operation by operation, on paper.

In this file:
    Costs              how often a chain of operations goes through memory: EAGER, FUSED
    Operation          FLOPs and bytes of one of them
    list_operations    those of an update
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..masking import MaskSpec
from ..models.config import DecoderConfig, EatConfig


class Costs(NamedTuple):
    """Values that are read or written for each value that comes out, forward and backward.

    Attributes:
        residual: the sum before a norm. Backward: what is used twice adds up its gradients.
        norm: LayerNorm. Backward: once for the input, once for scale and shift.
        decoder_norm: LayerNorm without scale and shift, and GELU.
        decoder_residual: the sum after them.
    """

    residual: tuple[int, int]
    norm: tuple[int, int]
    decoder_norm: tuple[int, int]
    decoder_residual: tuple[int, int]


EAGER = Costs(residual=(3, 3), norm=(2, 5), decoder_norm=(4, 6), decoder_residual=(3, 3))
# The sum and its norm are one kernel, and so is all that follows a convolution of the decoder.
FUSED = Costs(residual=(2, 1), norm=(2, 5), decoder_norm=(2, 3), decoder_residual=(1, 1))
GELU, COPY = (2, 3), (2, 2)
GATHER = (2, 4)  # backward: adds to what is there, which was set to 0 before

EMBEDDING, ATTENTION, MLP = "patch embedding, tokens", "student: attention", "student: MLP"
NORMS, DECODER_INPUT = "student: norms, residuals", "decoder: input"
CONVOLUTIONS, DECODER_NORMS = "decoder: convolutions", "decoder: LayerNorm, GELU, residual"
PROJECTION, TEACHER = "decoder: projection", "teacher"
TARGETS, LOSSES, OPTIMIZER, EMA = "targets", "losses", "optimizer", "EMA"


@dataclass(frozen=True)
class Operation:
    """One operation of an update, with its gradient or as part of it.

    Attributes:
        stage: the part of the update that it belongs to.
        flops: of matrix products and convolutions, two a multiply-add; 0 of all others.
        bytes: read from and written to the device's memory.
        backward: it belongs to the backward pass.
    """

    stage: str
    flops: float
    bytes: float
    backward: bool = False


def list_operations(
    cfg: EatConfig,
    grid: tuple[int, int],
    batch: int,
    bytes_per_value: int,
    trained: int = 0,
    averaged: int = 0,
    costs: Costs = EAGER,
) -> list[Operation]:
    """List the operations of an update as they run one after the other.

    Assumptions: every operation reads its inputs from the device's memory and writes its results
    there, nothing stays in a cache, and what is small beside activations and weights (masks,
    indices, statistics of norms) moves for free. Attention does not write its table of weights, and
    its backward pass computes that table again, which is not counted: only what is needed counts as
    FLOPs. Bias and scale gradients are sums. Dropout is off. In half precision losses and targets
    are float32, and so are the averages, and what the optimizer keeps beside parameters
    (``memory_efficient_bf16``): it copies gradients to float32 for their norm and for its step.

    Args:
        cfg: the model.
        grid: (time, mel) size of a clip's patch grid.
        batch: clips, B.
        bytes_per_value: of parameters and activations: 2 for bf16 and fp16, 4 for float32.
        trained: number of trained parameters, for the optimizer.
        averaged: number of parameters that the teacher averages.
        costs: of chains: ``EAGER``, or ``FUSED`` as ``model.compile`` does.
    """
    ledger = _Ledger(bytes_per_value, costs)
    image = cfg.modalities.image
    num_patches, rows = grid[0] * grid[1], batch * cfg.clone_batch
    num_visible = MaskSpec.from_options(image, grid).num_visible
    hidden = rows * (num_patches - num_visible)
    length = num_visible + image.num_extra_tokens

    _add_embedding(ledger, cfg, EMBEDDING, batch * num_patches, image.local_grad_mult > 0)
    ledger.pointwise(EMBEDDING, rows * num_visible * cfg.embed_dim, GATHER)
    ledger.pointwise(EMBEDDING, rows * length * cfg.embed_dim, COPY)  # CLS goes before the others
    ledger.pointwise(EMBEDDING, rows * length * cfg.embed_dim, costs.norm)
    for _ in range(cfg.depth):
        _add_block(ledger, cfg, (ATTENTION, MLP, NORMS), rows, length)
    decoder = image.decoder
    if decoder is not None and (cfg.d2v_loss > 0 or cfg.recon_loss > 0):
        _add_decoder(ledger, cfg, decoder, grid, rows, num_visible)
    _add_teacher(ledger, cfg, batch, num_patches)
    _add_losses(ledger, cfg, rows, hidden)
    _add_steps(ledger, cfg, trained, averaged)
    return ledger.operations


class _Ledger:
    """Collects operations.

    Args:
        width: bytes of a value of a parameter or an activation.
        costs: of chains of operations.
    """

    def __init__(self, width: int, costs: Costs) -> None:
        self.width, self.wide, self.costs = width, max(4, width), costs
        self.operations: list[Operation] = []

    def product(
        self,
        stage: str,
        flops: float,
        values: tuple[float, float, float],
        trained: bool = True,
        input_grad: bool = True,
    ) -> None:
        """Add a product of an input with weights; ``values``: of input, weights and output."""
        moved = sum(values) * self.width
        self.operations.append(Operation(stage, flops, moved))
        if trained and input_grad:
            self.operations.append(Operation(stage, flops, moved, backward=True))
        if trained:
            self.operations.append(Operation(stage, flops, moved, backward=True))
            self.move(stage, values[2], backward=True)  # the gradient of the bias

    def linear(
        self, stage: str, rows: float, inner: int, outer: int, trained: bool = True,
        input_grad: bool = True,
    ) -> None:
        """Add a product of a [rows, inner] input with [inner, outer] weights."""
        values = (rows * inner, float(inner * outer), rows * outer)
        self.product(stage, 2 * rows * inner * outer, values, trained, input_grad)

    def pointwise(
        self, stage: str, values: float, cost: tuple[int, int], trained: bool = True
    ) -> None:
        """Add an operation on each value, and its gradient."""
        self.move(stage, values * cost[0])
        if trained:
            self.move(stage, values * cost[1], backward=True)

    def move(
        self, stage: str, narrow: float = 0, wide: float = 0, backward: bool = False
    ) -> None:
        """Add operations that move so many values of the model's precision, and of float32."""
        moved = narrow * self.width + wide * self.wide
        self.operations.append(Operation(stage, 0, moved, backward))


def _add_embedding(
    ledger: _Ledger, cfg: EatConfig, stage: str, patches: int, trained: bool
) -> None:
    """Add patch embedding and positions."""
    image = cfg.modalities.image
    values = image.patch_size**2 * image.in_chans
    ledger.linear(stage, patches, values, image.embed_dim, trained, input_grad=False)
    if image.embed_dim != cfg.embed_dim:
        ledger.linear(stage, patches, image.embed_dim, cfg.embed_dim, trained)
    ledger.pointwise(stage, patches * cfg.embed_dim, (3, 0), trained)


def _add_block(
    ledger: _Ledger,
    cfg: EatConfig,
    stages: tuple[str, str, str],
    sequences: int,
    length: int,
    trained: bool = True,
) -> None:
    """Add a block over so many sequences; the stages are of attention, MLP and the rest."""
    attention, mlp, rest = stages
    width, hidden = cfg.embed_dim, int(cfg.embed_dim * cfg.mlp_ratio)
    tokens = sequences * length
    values = tokens * width
    ledger.linear(attention, tokens, width, 3 * width, trained)
    flops = 4 * values * length
    moved = values * ledger.width
    ledger.operations.append(Operation(attention, flops, 4 * moved))
    if trained:
        # Reads q, k, v, the output and its gradient, writes three; these are put side by side.
        ledger.operations.append(Operation(attention, 2 * flops, 8 * moved, backward=True))
        ledger.move(attention, 6 * values, backward=True)
    ledger.linear(attention, tokens, width, width, trained)
    ledger.linear(mlp, tokens, width, hidden, trained)
    ledger.pointwise(mlp, tokens * hidden, GELU, trained)
    ledger.linear(mlp, tokens, hidden, width, trained)
    for _ in range(2):
        ledger.pointwise(rest, values, ledger.costs.residual, trained)
        ledger.pointwise(rest, values, ledger.costs.norm, trained)


def _add_decoder(
    ledger: _Ledger,
    cfg: EatConfig,
    decoder: DecoderConfig,
    grid: tuple[int, int],
    rows: int,
    num_visible: int,
) -> None:
    """Add the decoder over grids of visible tokens and noise."""
    num_patches = grid[0] * grid[1]
    tokens, visible = rows * num_patches * cfg.embed_dim, rows * num_visible * cfg.embed_dim
    ledger.move(DECODER_INPUT, 2 * tokens)  # zeros, noise
    ledger.pointwise(DECODER_INPUT, visible, COPY)  # tokens without CLS
    ledger.move(DECODER_INPUT, 2 * tokens + 2 * visible)  # a copy of the noise, and tokens into it
    ledger.pointwise(DECODER_INPUT, visible, (0, 2))
    inner, outer, kernel = cfg.embed_dim, decoder.decoder_dim, decoder.decoder_kernel
    # An even kernel adds a row and a column.
    places = rows * (grid[0] + 1 - kernel % 2) * (grid[1] + 1 - kernel % 2)
    for _ in range(decoder.decoder_layers):
        weights = kernel**2 * (inner // decoder.decoder_groups) * outer
        moved = (rows * num_patches * inner, float(weights), places * outer)
        ledger.product(CONVOLUTIONS, 2 * places * weights, moved)
        values = rows * num_patches * outer
        ledger.pointwise(DECODER_NORMS, values, ledger.costs.decoder_norm)
        if decoder.decoder_residual and inner == outer:
            ledger.pointwise(DECODER_NORMS, values, ledger.costs.decoder_residual)
        inner = outer
    hidden = rows * (num_patches - num_visible)
    ledger.pointwise(PROJECTION, hidden * inner, GATHER)
    ledger.linear(PROJECTION, hidden, inner, cfg.embed_dim)
    if cfg.recon_loss > 0:
        image = cfg.modalities.image
        ledger.linear(LOSSES, hidden, cfg.embed_dim, image.patch_size**2 * image.in_chans)


def _add_teacher(ledger: _Ledger, cfg: EatConfig, batch: int, num_patches: int) -> None:
    """Add the teacher over whole clips, and the targets that its blocks make."""
    image = cfg.modalities.image
    if image.ema_local_encoder and not cfg.ema_encoder_only:
        _add_embedding(ledger, cfg, TEACHER, batch * num_patches, trained=False)
    length = num_patches + image.num_extra_tokens
    values = batch * length * cfg.embed_dim
    ledger.pointwise(TEACHER, values, COPY, trained=False)
    ledger.pointwise(TEACHER, values, ledger.costs.norm, trained=False)
    for _ in range(cfg.depth):
        _add_block(ledger, cfg, (TEACHER, TEACHER, TEACHER), batch, length, trained=False)
    values = batch * num_patches * cfg.embed_dim
    # Norms over patches first turn patches and channels around, and read them twice.
    turned, straight = 5 * values, 2 * values
    for _ in range(cfg.average_top_k_layers):
        ledger.move(TARGETS, values, values)
        ledger.move(TARGETS, wide=turned * cfg.instance_norm_target_layer)
        ledger.move(TARGETS, wide=turned * cfg.batch_norm_target_layer)
        ledger.move(TARGETS, wide=straight * cfg.layer_norm_target_layer)
        ledger.move(TARGETS, wide=3 * values)  # the sum of the layers
    ledger.move(TARGETS, wide=2 * values)
    ledger.move(TARGETS, wide=turned * cfg.instance_norm_targets)
    ledger.move(TARGETS, wide=straight * cfg.layer_norm_targets)


def _add_losses(ledger: _Ledger, cfg: EatConfig, rows: int, hidden: int) -> None:
    """Add the losses: so many hidden patches, and CLS of so many rows."""
    image = cfg.modalities.image
    values = hidden * cfg.embed_dim
    if cfg.d2v_loss > 0:
        _add_regression(ledger, values)
    if cfg.recon_loss > 0:
        _add_regression(ledger, hidden * image.patch_size**2 * image.in_chans)
    if cfg.d2v_loss > 0 or cfg.recon_loss > 0:
        ledger.move(LOSSES, 2 * values, 2 * values)  # deviations of predictions and targets
    if cfg.cls_loss > 0:
        if cfg.utterance_level:
            ledger.linear(LOSSES, rows, cfg.embed_dim, cfg.embed_dim)
        _add_regression(ledger, rows * cfg.embed_dim)


def _add_regression(ledger: _Ledger, values: int) -> None:
    """Add a loss: pick targets, errors, their squares, a factor, the sum."""
    ledger.move(LOSSES, values, (2 + 2 + 2 + 2 + 1) * values)
    ledger.move(LOSSES, values, (2 + 2 + 1) * values, backward=True)  # errors, a factor, a cast


def _add_steps(ledger: _Ledger, cfg: EatConfig, trained: int, averaged: int) -> None:
    """Add what is done to each parameter: clip, step (Adam), average."""
    ledger.move(OPTIMIZER, wide=(1 + 2 + 7) * trained)  # norm, factor, step
    ledger.move(EMA, wide=3 * averaged)  # average in and out, parameter in
    if ledger.width < ledger.wide:
        ledger.move(OPTIMIZER, 3 * trained, 3 * trained)  # gradients in twice, parameters out
        ledger.move(EMA, 2 * averaged, 2 * averaged)  # parameters in, the teacher's out
    else:
        ledger.move(OPTIMIZER, wide=2 * trained)  # another factor: one for the mean, one clips
    if cfg.log_norms:
        ledger.move(EMA, wide=2 * averaged)
