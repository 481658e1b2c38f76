"""Functions that PyTorch compiles where it can, and that run as they are where it cannot.

What is compiled are functions of a module and of tensors, not modules: nothing is wrapped, so the
names of parameters, copies and pickles are what they are without. One compiled function serves all
modules of the same shape, of the student as of the teacher.

In this file:
    Compiled     such a function
    is_traced    whether somebody compiles or exports
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Callable

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

BACKEND: Any = "inductor"
OLDEST_TORCH = "2.5"  # before, PyTorch compiled a function anew for every module
MOST_KINDS = 16  # of arguments; each costs a compilation
# Of PyTorch's own versions of a compiled function: more than there are kinds, so that its limit,
# beyond which it stops to compile without a word of ours, is never met.
MOST_VERSIONS = 64


def _triton_errors() -> tuple[type[BaseException], ...]:
    """Return the base class of Triton's own errors, where there is a Triton."""
    try:
        from triton.errors import TritonError
    except ImportError:
        return ()
    return (TritonError,)


# What a compiler may end in. It is a program of its own, with more of them that it calls.
FAILURES: tuple[type[BaseException], ...] = (
    RuntimeError, OSError, ImportError, LookupError, ValueError, TypeError, AttributeError,
    AssertionError, SyntaxError, subprocess.SubprocessError, *_triton_errors(),
)  # fmt: skip


class Compiled:
    """A function that is compiled, for static shapes, when it first meets arguments of a kind.

    It is then tried out on them, backward included, which is where compilers fail. If it fails, the
    function runs as it is from there on, and the log says so, once in the whole process.

    Args:
        function: takes modules, tensors and None; it returns a tensor or a tuple of them.
        what: what it does the work of, for the log.
    """

    warned = False

    def __init__(self, function: Callable[..., Any], what: str) -> None:
        self.function = function
        self.what = what
        self.reset()

    def reset(self) -> None:
        """Forget what was compiled, and what failed."""
        self._compiled: Callable[..., Any] | None = None
        self._kinds: set[tuple[Any, ...]] = set()
        self._is_broken = False

    @property
    def is_in_use(self) -> bool:
        """Whether compiled code runs: something was compiled, and nothing failed."""
        return bool(self._kinds) and not self._is_broken

    def choose(self, *args: Any) -> Callable[..., Any]:
        """Return the compiled function if it serves such arguments, and the plain one if not."""
        if self._is_broken or is_traced():
            return self.function
        kind = _kind_of(args)
        if kind not in self._kinds:
            if len(self._kinds) >= MOST_KINDS:
                self._warn(f"more than {MOST_KINDS} shapes of input; each takes a compilation")
                return self.function
            self._try_out(args)
            self._kinds.add(kind)
        return self.function if self._is_broken else self._run

    def _run(self, *args: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        assert self._compiled is not None
        try:
            return self._compiled(*args)
        except TorchDynamoException as error:
            self._give_up(error)
            return self.function(*args)

    def _try_out(self, args: tuple[Any, ...]) -> None:
        tensors = [value for value in args if isinstance(value, Tensor)]
        on_gpu = {value.device for value in tensors if value.is_cuda}
        try:
            if torch.__version__ < OLDEST_TORCH:
                raise RuntimeError(f"it takes PyTorch {OLDEST_TORCH} or later")
            with ExitStack() as stack:
                stack.enter_context(_quiet_locks())
                stack.enter_context(torch.random.fork_rng(devices=on_gpu))
                stack.enter_context(_compiler_settings())
                if self._compiled is None:
                    self._compiled = torch.compile(self.function, dynamic=False, backend=BACKEND)
                _rehearse(self._compiled, args)
        except FAILURES as error:
            cause: BaseException = getattr(error, "inner_exception", error)
            if isinstance(cause, torch.cuda.OutOfMemoryError):
                raise cause from error  # fairseq goes on with the next batch, and so does this
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self._is_broken = True
        error = getattr(error, "inner_exception", error)
        lines = str(error).strip().splitlines() or [""]
        self._warn(f"{type(error).__name__}: {lines[0]}")

    def _warn(self, reason: str) -> None:
        level = logging.DEBUG if Compiled.warned else logging.WARNING
        Compiled.warned = True
        logger.log(
            level,
            "model.compile: the %s run without being compiled, slower and with the same result: %s",
            self.what,
            reason,
        )


_is_compiling: Callable[[], bool] = getattr(torch.compiler, "is_compiling", lambda: False)


def is_traced() -> bool:
    """Whether somebody compiles or exports the code that asks."""
    return torch.jit.is_tracing() or _is_compiling()


def _kind_of(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what compiled code depends on: a change of it takes another compilation.

    Of a module that is its settings, and one of its weights for all of them. PyTorch looks at all
    itself; this is asked in every call, and says when to expect a compilation.
    """
    kind: list[Any] = [torch.is_grad_enabled(), torch.is_inference_mode_enabled()]
    for value in args:
        if isinstance(value, nn.Module):
            kind += [item for item in vars(value).values() if isinstance(item, (bool, int, str))]
            weight = next(value.parameters())
            kind += [weight.shape, weight.dtype, weight.requires_grad]
        elif isinstance(value, Tensor):
            kind += [value.shape, value.stride(), value.dtype, value.device, value.requires_grad]
        else:
            kind.append(value)
    return tuple(kind)


def _rehearse(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call a compiled function, and take gradients through it, without an effect on anything."""
    args = tuple(
        value.detach().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value
        for value in args
    )
    result = function(*args)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    outputs = [value for value in outputs if value.requires_grad]
    if not outputs:
        return
    sources = [value for value in args if isinstance(value, Tensor) and value.requires_grad]
    if not sources:
        modules = [value for value in args if isinstance(value, nn.Module)]
        sources = [p for module in modules for p in module.parameters() if p.requires_grad]
    torch.autograd.grad(outputs, sources, [torch.zeros_like(value) for value in outputs])


@contextmanager
def _quiet_locks() -> Iterator[None]:
    """Keep a log that shows all from being told of each of the compiler's hundreds of locks."""
    locks = logging.getLogger("filelock")
    level = locks.level
    locks.setLevel(logging.WARNING)
    try:
        yield
    finally:
        locks.setLevel(level)


def _compiler_settings() -> Any:
    from torch._dynamo import config

    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    # DDP would have a block cut where its buckets end. What is compiled is small enough already for
    # gradients to be sent while others are computed.
    return config.patch({limit: MOST_VERSIONS, "optimize_ddp": False})
