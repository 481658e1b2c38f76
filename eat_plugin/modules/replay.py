"""CUDA graphs: forward and backward of a function, replayed by a GPU without the host."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable, Union

import torch
from torch import Tensor, nn

from .compiled import is_traced

logger = logging.getLogger(__name__)

Optionals = Sequence[Union[Tensor, None]]
Function = Callable[..., Optionals]
CALLS_BEFORE = 3  # with inputs of a shape: they load libraries, compile, choose convolutions
MOST_RECORDINGS = 3
# Largest accepted difference from calls without a graph. Sums on a GPU have no fixed order.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
OF_HALF = 0.05


class UnusableError(RuntimeError):
    """There is no recording, or it is wrong; calls without it work."""


class Replayed:
    """Calls of a function in training, by CUDA graphs once the shapes of its inputs repeat.

    Inputs of the first shape that repeats are replayed; others run without a graph. A new recording
    is compared with a call without it. If outputs or gradients differ, or memory does not suffice,
    all calls run without a graph, and the log says so, once.
    """

    def __init__(self) -> None:
        self._calls: Counter[Any] = Counter()
        self._recording: _Recording | None = None
        self._state: tuple[Any, ...] = ()  # of what it reads
        self._recordings = 0
        self._is_broken = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Replayed, ()  # a copy of the model has weights of its own

    @property
    def is_in_use(self) -> bool:
        """Whether there is a recording."""
        return self._recording is not None

    def __call__(
        self, function: Function, inputs: Optionals, module: nn.Module, others: Sequence[Tensor]
    ) -> Any:
        """Call a function.

        Args:
            function: maps the inputs to tensors and None. It draws random numbers from the device's
                default generator alone, and never waits for the host.
            inputs: tensors without gradient, or None. The function may overwrite them.
            module: has the parameters and buffers that it reads. They may change in place.
            others: all other tensors that it reads, without gradient. They may change in place.

        Returns:
            The outputs, which hold until the next call; the last call can have one backward.

        Raises:
            RuntimeError: the function does what a graph cannot hold.
        """
        if self._is_broken or is_traced() or not torch.is_grad_enabled():
            return function(*inputs)
        signature = _signature_of(inputs)
        state = _state_of([*module.parameters(), *module.buffers(), *others])
        if self._state != state:
            self._recording, self._state = None, state  # the weights are elsewhere
        if self._recording is None:
            self._calls[signature] += 1
            if self._calls[signature] <= CALLS_BEFORE:
                return function(*inputs)
            self._record(function, inputs, module)
        if self._recording is None or self._recording.signature != signature:
            return function(*inputs)
        return self._recording(*inputs)

    def _record(self, function: Function, inputs: Optionals, module: nn.Module) -> None:
        try:
            self._recordings += 1
            if self._recordings > MOST_RECORDINGS:
                raise UnusableError(f"weights moved or were frozen {MOST_RECORDINGS} times")
            self._recording = _make_recording(function, inputs, module)
        except (UnusableError, torch.cuda.OutOfMemoryError) as error:
            self._recording, self._is_broken = None, True
            message = "model.cuda_graph: updates run without, with the same result: %s"
            logger.warning(message, str(error).partition("\n")[0])
        # What ends a recording early leaves PyTorch's allocator and generators in its midst.
        except Exception as error:
            cause: BaseException = error
            while cause.__context__ is not None and not cause.__suppress_context__:
                cause = cause.__context__
            reason = str(cause).partition("\n")[0] or type(cause).__name__
            # With these words in an error fairseq skips the batch and continues.
            reason = reason.replace("out of memory", "memory does not suffice")
            raise RuntimeError(
                f"the GPU cannot record this model: {reason}; set model.cuda_graph=false"
            ) from error


def _make_recording(function: Function, inputs: Optionals, module: nn.Module) -> _Recording:
    devices = {x.device for x in inputs if x is not None}
    if not all(can_record(device) for device in devices):
        raise UnusableError("it needs a GPU")
    if torch.is_autocast_enabled():
        raise UnusableError("it cannot be combined with common.amp=true")
    on_gpu = [device for device in devices if device.type == "cuda"]
    parameters = [p for p in module.parameters() if p.requires_grad]
    # Each ends with the random numbers that it began with: those of the call itself.
    with torch.random.fork_rng(on_gpu):
        expected = _compute(function, inputs, parameters)
    with torch.random.fork_rng(on_gpu):
        recording = _Recording(function, inputs, module)
    with torch.random.fork_rng(on_gpu):
        found = _compute(recording, inputs, parameters)
    tolerance = max(TOLERANCES.get(p.dtype, OF_HALF) for p in parameters)
    difference = max(_compare(*both, tolerance) for both in zip(expected, found))
    logger.info("model.cuda_graph: in use; the results differ by %.2g of the limit", difference)
    return recording


def _compute(
    function: Function, inputs: Optionals, parameters: Sequence[Tensor]
) -> tuple[Optionals, ...]:
    """Return the outputs of a function, and gradients of the parameters."""
    outputs = [y for y in function(*map(_copy, inputs)) if y is not None]
    trained = [y for y in outputs if y.requires_grad]
    # Not in the direction of the output, in which a LayerNorm has no gradient.
    given = [y.detach().flatten().flip(0).view_as(y) / y.numel() ** 0.5 for y in trained]
    gradients = torch.autograd.grad(trained, parameters, given, allow_unused=True)
    return [y.detach() for y in outputs], gradients


def _copy(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.clone()


def _compare(expected: Optionals, found: Optionals, tolerance: float) -> float:
    """Return the largest difference, as a share of the accepted one; raise if it is above 1."""
    shares = [0.0]
    largest = max(_norm(one) for one in expected if one is not None)
    for one, other in zip(expected, found):
        if one is None:
            continue
        # Gradients that are 0 but for rounding have no digit in common.
        scale = max(_norm(one), 1e-3 * largest) or 1.0
        error = math.inf if other is None else _norm(one - other) / scale
        shares.append(error / tolerance)
        if not shares[-1] <= 1:  # NaN too
            raise UnusableError(f"the results of the graph differ by {error:.2g}")
    return max(shares)


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.promote_types(x.dtype, torch.float32)))


class _Recording:
    """Forward and backward of a function for inputs of one shape.

    Attributes:
        signature: of the inputs.
        parameters: those that have gradients.
        turn: number of the forward that can have a backward.
    """

    def __init__(self, function: Function, inputs: Optionals, module: nn.Module) -> None:
        self.signature = _signature_of(inputs)
        self._inputs = [_copy(x) for x in inputs]
        # Aliases: what the function writes into its inputs has no history after it.
        aliases = [None if x is None else x.detach() for x in self._inputs]
        with _other_leaves(module) as leaves:
            self._forward, outputs = record(lambda: function(*aliases), None)
            self._outputs = [None if y is None else y.detach() for y in outputs]
            tensors = [y for y in outputs if y is not None]
            self._is_trained = [y.requires_grad for y in tensors]
            trained = [y for y in tensors if y.requires_grad]
            self._given = [torch.zeros_like(y) for y in trained]
            arguments = (trained, [leaf for _, leaf in leaves], self._given)
            self._backward, gradients = record(
                lambda: torch.autograd.grad(*arguments, allow_unused=True), self._forward
            )
        self.parameters = [p for (p, _), one in zip(leaves, gradients) if one is not None]
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
        if turn != self.turn:  # its memory has other values by now
            raise RuntimeError("model.cuda_graph: only the last forward can have a backward, once")
        self.turn += 1
        of_trained = (one for one, is_trained in zip(given, self._is_trained) if is_trained)
        for own, one in zip(self._given, of_trained):
            if one is None:
                own.zero_()
            else:
                own.copy_(one)
        self._backward.replay()
        # The next replay overwrites its own.
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


@contextmanager
def _other_leaves(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Give a module other leaves for autograd, with the same memory; yield parameters and leaves.

    DDP keeps what adds up the gradients of its parameters, and with it the stream in which that was
    made: a recording that reaches it would wait for a stream that is not recorded.
    """
    places = [
        (owner._parameters, name, p)
        for owner in module.modules()
        for name, p in owner._parameters.items()
        if p is not None and p.requires_grad
    ]
    leaves = {id(p): (p, nn.Parameter(p.detach())) for _, _, p in places}
    try:
        for own, name, p in places:
            own[name] = leaves[id(p)][1]
        yield list(leaves.values())
    finally:
        for own, name, p in places:
            own[name] = p


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


def _state_of(weights: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple((w.data_ptr(), w.requires_grad) for w in weights)
