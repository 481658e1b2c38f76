"""EAT (Efficient Audio Transformer): use of its models; for fairseq, their training.

    from eat_plugin import load

    model = load("checkpoint_best.pt")  # see eat_plugin.inference

That needs PyTorch, NumPy and soundfile. The tasks, models, criterions and optimizer of training are
registered by name once this package and fairseq are both imported, in either order. Importing the
package alone imports neither fairseq nor PyTorch.
"""

import logging
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from .inference import load_checkpoint as load  # noqa: F401

__version__ = "0.1.0"

# fairseq recommends a package for speech synthesis whenever it is imported.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)


def _register(_: Optional[ModuleType] = None) -> None:
    from .registration import register

    register()


def _read_unions(utils: ModuleType) -> None:
    from .registration import read_unions

    read_unions(utils)


class _AfterFairseq(MetaPathFinder):
    """Registers once fairseq has been imported; fairseq itself only scans a new ``user_dir``.

    With Python 3.14 it also adapts how fairseq reads types; else the import would fail.
    """

    _searching = False

    def __init__(self) -> None:
        self._actions = {"fairseq": _register}
        if sys.version_info >= (3, 14):
            self._actions["fairseq.dataclass.utils"] = _read_unions

    def find_spec(self, name: str, path: Any, target: Any = None) -> Optional[ModuleSpec]:
        if name not in self._actions or self._searching:
            return None
        self._searching = True
        try:
            spec = find_spec(name)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            _act_after(spec.loader, self._actions[name])
        return spec


def _act_after(loader: Loader, action: Callable[[ModuleType], None]) -> None:
    """Make a loader call a function after the module's code."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        action(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]


def __getattr__(name: str) -> Any:
    if name == "load":  # imports PyTorch
        from .inference import load_checkpoint

        return load_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if sys.modules.get("fairseq") is not None:
    _register()
else:
    sys.meta_path.insert(0, _AfterFairseq())
