"""Marks for tests that need recent versions of PyTorch or fairseq."""

import inspect

import hydra
import pytest
import torch
from fairseq.optim.composite import CompositeOptimizerConfig
from fairseq_cli import train

from eat_plugin.modules.compiled import OLDEST_TORCH
from eat_plugin.processor import OLDEST_FOR_HALF_ON_CPU


def _needs(version, what):
    return pytest.mark.skipif(
        torch.__version__ < version, reason=f"{what} needs PyTorch {version} or later"
    )


compilation = _needs(OLDEST_TORCH, "model.compile")
half_on_cpu = _needs(OLDEST_FOR_HALF_ON_CPU, "half precision on a CPU")
numpy_numbers = _needs("2.4", "a NumPy number in a checkpoint")
fused_on_cpu = _needs("2.4", "a fused optimizer on a CPU")
fairseq_main = pytest.mark.skipif(
    not hasattr(CompositeOptimizerConfig, "dynamic_groups"),
    reason="the published configuration needs fairseq after 0.12.2",
)
recent_hydra = pytest.mark.skipif(
    not hasattr(hydra, "compose"), reason="callbacks need hydra 1.1 or later"
)
saves_with_task = pytest.mark.skipif(
    "post_save" not in inspect.getsource(train), reason="the task's post_save needs a later fairseq"
)
