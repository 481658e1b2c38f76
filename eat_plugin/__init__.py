"""EAT (Efficient Audio Transformer) for fairseq.

Its tasks, models, criterions and optimizer are registered by name once this package and fairseq are
both imported, in either order. Importing the package alone imports neither fairseq nor PyTorch.
"""

import logging
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Optional

__version__ = "0.1.0"

# fairseq recommends a package for speech synthesis whenever it is imported.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)


def _register() -> None:
    from .registration import register

    register()


class _AfterFairseq(MetaPathFinder):
    """Registers once fairseq has been imported; fairseq itself only scans a new ``user_dir``."""

    _searching = False

    def find_spec(self, name: str, path: Any, target: Any = None) -> Optional[ModuleSpec]:
        if name != "fairseq" or self._searching:
            return None
        self._searching = True
        try:
            spec = find_spec(name)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            _register_after(spec.loader)
        return spec


def _register_after(loader: Loader) -> None:
    """Make a loader register the names after the module's code."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _register()

    loader.exec_module = exec_module  # type: ignore[method-assign]


if "fairseq" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterFairseq())
