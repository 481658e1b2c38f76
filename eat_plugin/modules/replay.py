"""CUDA graphs: forward and backward of a function, replayed by a GPU without the host."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Callable, Union

import torch
from torch import Tensor

from .compiled import is_traced

logger = logging.getLogger(__name__)

Optionals = Sequence[Union[Tensor, None]]
Weights = Sequence[Tensor]
Function = Callable[..., Optionals]
CALLS_BEFORE = 3  # with inputs of a shape: they load libraries, compile, choose convolutions
MOST_RECORDINGS = 3
# Largest accepted difference from calls without a graph. Sums on a GPU have no fixed order.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
OF_HALF = 0.05


class Replayed:
    """Calls of a function in training, by CUDA graphs once the shapes of its inputs repeat.

    The first shapes that repeat are recorded, and kept in memory; others run without a graph. A new
    recording is compared with a call without it, and not used if outputs or gradients differ. After
    a failure all calls run without a graph. The log says so, once.
    """

    def __init__(self) -> None:
        self._calls: Counter[Any] = Counter()
        self._recording: _Recording | None = None
        self._recordings = 0
        self._is_broken = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Replayed, ()  # a copy of the model has weights of its own

    @property
    def is_in_use(self) -> bool:
        """Whether there is a recording."""
        return self._recording is not None

    def __call__(self, function: Function, inputs: Optionals, weights: Weights) -> Any:
        """Call a function.

        Args:
            function: maps the inputs to tensors and None. It draws random numbers from the device's
                default generator alone, and never waits for the host.
            inputs: tensors without gradient, or None. The function may overwrite them.
            weights: all other tensors that it reads. They may change in place.

        Returns:
            The outputs, which hold until the next call; only the last call can have a backward.
        """
        if self._is_broken or is_traced() or not torch.is_grad_enabled():
            return function(*inputs)
        signature, state = _signature_of(inputs), _state_of(weights)
        if self._recording is not None and self._recording.state != state:
            self._recording = None  # the weights are elsewhere
        if self._recording is None:
            self._calls[signature] += 1
            if self._calls[signature] <= CALLS_BEFORE:
                return function(*inputs)
            self._record(function, inputs, weights)
        if self._recording is None or self._recording.signature != signature:
            return function(*inputs)
        return self._recording(*inputs)

    def _record(self, function: Function, inputs: Optionals, weights: Weights) -> None:
        try:
            self._recordings += 1
            if self._recordings > MOST_RECORDINGS:
                raise RuntimeError(f"weights moved in memory {MOST_RECORDINGS} times")
            self._recording = _make_recording(function, inputs, weights)
        except RuntimeError as error:  # of CUDA: out of memory, what a graph cannot hold
            self._recording, self._is_broken = None, True
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            message = "model.cuda_graph: updates run without, with the same result: %s"
            logger.warning(message, reason)


def _make_recording(function: Function, inputs: Optionals, weights: Weights) -> _Recording:
    devices = {x.device for x in inputs if x is not None}
    if not all(can_record(device) for device in devices):
        raise RuntimeError("it needs a GPU")
    if torch.is_autocast_enabled():
        raise RuntimeError("it cannot be combined with common.amp=true")
    on_gpu = [device for device in devices if device.type == "cuda"]
    # Each ends with the random numbers that it began with: those of the call itself.
    with torch.random.fork_rng(on_gpu):
        expected = _compute(function, inputs, weights)
    with torch.random.fork_rng(on_gpu):
        recording = _Recording(function, inputs, weights)
    with torch.random.fork_rng(on_gpu):
        found = _compute(recording, inputs, weights)
    difference = max(_compare(own, other) for own, other in zip(expected, found))
    logger.info("model.cuda_graph: in use; the results differ by %.2g of the limit", difference)
    return recording


def _compute(function: Function, inputs: Optionals, weights: Weights) -> tuple[Optionals, ...]:
    """Return the outputs of a function, and gradients of the weights."""
    outputs = [y for y in function(*map(_copy, inputs)) if y is not None]
    trained = [y for y in outputs if y.requires_grad]
    given = [y.detach() / y.numel() ** 0.5 for y in trained]
    return [y.detach() for y in outputs], _differentiate(trained, weights, given)


def _copy(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.clone()


def _differentiate(trained: list[Tensor], weights: Weights, given: list[Tensor]) -> Optionals:
    sources = [weight for weight in weights if weight.requires_grad]
    return torch.autograd.grad(trained, sources, given, allow_unused=True)


def _compare(expected: Optionals, found: Optionals) -> float:
    """Return the largest difference, as a share of the accepted one; raise if it is above 1."""
    shares = [0.0]
    largest = max(_norm(one) for one in expected if one is not None)
    for one, other in zip(expected, found):
        if one is None:
            continue
        # Gradients that are 0 but for rounding have no digit in common.
        scale = max(_norm(one), 1e-3 * largest)
        error = math.inf if other is None else _norm(one - other) / scale
        shares.append(error / TOLERANCES.get(one.dtype, OF_HALF))
        if not shares[-1] <= 1:  # NaN too
            raise RuntimeError(f"the results of the graph differ by {error:.2g}")
    return max(shares)


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32)))


class _Recording:
    """Forward and backward of a function for inputs of one shape.

    Attributes:
        signature: of the inputs.
        state: addresses of the weights.
        parameters: weights that have gradients.
        turn: number of the last forward.
    """

    def __init__(self, function: Function, inputs: Optionals, weights: Weights) -> None:
        self.signature, self.state = _signature_of(inputs), _state_of(weights)
        self._inputs = [_copy(x) for x in inputs]
        # Aliases: what the function writes into its inputs has no history after it.
        aliases = [None if x is None else x.detach() for x in self._inputs]
        self._forward, outputs = record(lambda: function(*aliases), None)
        self._outputs = [None if y is None else y.detach() for y in outputs]
        tensors = [y for y in outputs if y is not None]
        self._is_trained = [y.requires_grad for y in tensors]
        trained = [y for y in tensors if y.requires_grad]
        self._given = [torch.zeros_like(y) for y in trained]
        self._backward, gradients = record(
            lambda: _differentiate(trained, weights, self._given), self._forward
        )
        sources = [weight for weight in weights if weight.requires_grad]
        self.parameters = [w for w, one in zip(sources, gradients) if one is not None]
        self._gradients = [one for one in gradients if one is not None]
        self.turn = 0

    def __call__(self, *inputs: Tensor | None) -> Optionals:
        """Replay forward; gradients flow to the parameters."""
        for own, given in zip(self._inputs, inputs):
            if own is not None and given is not None:
                own.copy_(given)
        found = iter(_Replay.apply(self, *self.parameters))
        return tuple(None if y is None else next(found) for y in self._outputs)

    def forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """Replay forward; return the outputs, and those of them without gradient."""
        self.turn += 1
        self._forward.replay()
        outputs = [y.detach() for y in self._outputs if y is not None]
        return outputs, [y for y, is_trained in zip(outputs, self._is_trained) if not is_trained]

    def backward(self, turn: int, given: Optionals) -> list[Tensor]:
        """Replay the backward of a forward, by the gradients of outputs; return new tensors."""
        if turn != self.turn:
            raise RuntimeError("model.cuda_graph: only the last forward can have a backward")
        of_trained = (one for one, is_trained in zip(given, self._is_trained) if is_trained)
        for own, one in zip(self._given, of_trained):
            if one is None:
                own.zero_()
            else:
                own.copy_(one)
        self._backward.replay()
        # autograd may keep what it gets as .grad, which the next replay would overwrite.
        return list(torch._foreach_mul(self._gradients, 1))


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, *parameters: Tensor) -> tuple[Tensor, ...]:
        outputs, untrained = recording.forward()
        ctx.recording, ctx.turn = recording, recording.turn
        ctx.mark_non_differentiable(*untrained)
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        return (None, *ctx.recording.backward(ctx.turn, gradients))


def can_record(device: torch.device) -> bool:
    """Whether a device has graphs."""
    return device.type == "cuda"


def record(function: Callable[[], Any], before: Any) -> tuple[Any, Any]:
    """Record a function.

    Args:
        function: runs on the host once; what it asks of the GPU is recorded, not computed.
        before: the graph that always runs before this one, which then share their memory; or None.

    Returns:
        The graph, and the function's result, which has its values after a replay.
    """
    graph = torch.cuda.CUDAGraph()
    pool = None if before is None else before.pool()
    # Other threads, as those of NCCL, may go on meanwhile.
    recording = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
    # PyTorch leaves its stream for recording after success alone; the first context in any case.
    with torch.cuda.stream(torch.cuda.current_stream()), recording:
        result = function()
    return graph, result


def _signature_of(inputs: Optionals) -> tuple[Any, ...]:
    return tuple(None if x is None else (x.shape, x.stride(), x.dtype, x.device) for x in inputs)


def _state_of(weights: Weights) -> tuple[Any, ...]:
    return tuple((w.data_ptr(), w.requires_grad) for w in weights)
