"""Functions that PyTorch compiles, and that run uncompiled if it cannot.

Not modules but functions of modules and tensors are compiled. Parameter names, copies and pickles
stay the same, and one compilation serves all modules of the same shape, the teacher's included.
"""

from __future__ import annotations

import logging
from typing import Any, Callable

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

BACKEND: Any = "inductor"
OLDEST_TORCH = "2.5"  # older ones recompile a function for every module
MAX_SIGNATURES = 16  # each takes a compilation
# PyTorch's own limit, above which it silently stops compiling. It is never reached.
MAX_VERSIONS = 64


class Compiled:
    """A function, compiled for static shapes once per input signature.

    A new signature is tried out first, backward included, because compilers fail there. After a
    failure the function runs uncompiled; the log says so, once per process.

    Args:
        function: maps modules, tensors and None to a tensor or a tuple of tensors.
        what: name for the log.
    """

    warned = False

    def __init__(self, function: Callable[..., Any], what: str) -> None:
        self.function = function
        self.what = what
        self.reset()

    def reset(self) -> None:
        """Forget all compilations and failures."""
        self._compiled: Callable[..., Any] | None = None
        self._signatures: set[tuple[Any, ...]] = set()
        self._is_broken = False

    @property
    def is_in_use(self) -> bool:
        """Whether something was compiled, and nothing failed."""
        return bool(self._signatures) and not self._is_broken

    def choose(self, *args: Any) -> Callable[..., Any]:
        """Return the function to call with these arguments, compiled if possible."""
        if self._is_broken or is_traced():
            return self.function
        signature = _signature_of(args)
        if signature not in self._signatures:
            if len(self._signatures) >= MAX_SIGNATURES:
                self._warn(f"more than {MAX_SIGNATURES} input shapes; each takes a compilation")
                return self.function
            self._try_out(args)
            self._signatures.add(signature)
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
        on_gpu = {value.device for value in args if isinstance(value, Tensor) and value.is_cuda}
        try:
            if torch.__version__ < OLDEST_TORCH:
                raise RuntimeError(f"it needs PyTorch {OLDEST_TORCH} or later")
            # The compiler takes hundreds of file locks; keep them out of a debug log.
            logging.getLogger("filelock").setLevel(logging.WARNING)
            with torch.random.fork_rng(devices=on_gpu), _compiler_settings():
                if self._compiled is None:
                    self._compiled = torch.compile(self.function, dynamic=False, backend=BACKEND)
                _rehearse(self._compiled, args)
        except Exception as error:  # compilers run other programs and fail in any way
            cause: BaseException = getattr(error, "inner_exception", error)
            if isinstance(cause, torch.cuda.OutOfMemoryError):
                raise cause from error  # fairseq skips the batch and continues
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        self._is_broken = True
        error = getattr(error, "inner_exception", error)
        lines = str(error).strip().splitlines() or [""]
        self._warn(f"{type(error).__name__}: {lines[0]}")

    def _warn(self, reason: str) -> None:
        level = logging.DEBUG if Compiled.warned else logging.WARNING
        Compiled.warned = True
        message = "model.compile: the %s run uncompiled, slower, with the same result: %s"
        logger.log(level, message, self.what, reason)


_is_compiling: Callable[[], bool] = getattr(torch.compiler, "is_compiling", lambda: False)


def is_traced() -> bool:
    """Whether the calling code is being compiled or exported."""
    return torch.jit.is_tracing() or _is_compiling()


def _signature_of(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a compilation depends on: settings and one weight of a module, tensor layouts.

    PyTorch checks more. This runs in every call, to predict a compilation.
    """
    signature: list[Any] = [torch.is_grad_enabled(), torch.is_inference_mode_enabled()]
    for value in args:
        if isinstance(value, nn.Module):
            signature += [v for v in vars(value).values() if isinstance(v, (bool, int, str))]
            weight = next(value.parameters())
            signature += [weight.shape, weight.dtype, weight.requires_grad]
        elif isinstance(value, Tensor):
            signature += [value.shape, value.stride(), value.dtype, value.device]
            signature.append(value.requires_grad)
        else:
            signature.append(value)
    return tuple(signature)


def _rehearse(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call a compiled function and its backward, without side effects."""
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


def _compiler_settings() -> Any:
    from torch._dynamo import config

    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    # DDP would cut a block at the ends of its buckets. Blocks are small enough already for
    # gradients to be sent while others are computed.
    return config.patch({limit: MAX_VERSIONS, "optimize_ddp": False})
