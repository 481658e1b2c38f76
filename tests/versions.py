"""What older versions of PyTorch and fairseq cannot do: marks for the tests that need it."""

import pytest
import torch
from fairseq.optim.composite import CompositeOptimizerConfig

from eat_plugin.modules.compiled import OLDEST_TORCH
from eat_plugin.tasks.checks import OLDEST_FOR_HALF_ON_CPU


def _takes(version, what):
    return pytest.mark.skipif(
        torch.__version__ < version, reason=f"{what} takes PyTorch {version} or later"
    )


compilation = _takes(OLDEST_TORCH, "model.compile")
half_on_cpu = _takes(OLDEST_FOR_HALF_ON_CPU, "half precision on a CPU")
numpy_numbers = _takes("2.4", "a NumPy number in a checkpoint")
fused_on_cpu = _takes("2.4", "a fused optimizer on a CPU")
fairseq_main = pytest.mark.skipif(
    not hasattr(CompositeOptimizerConfig, "dynamic_groups"),
    reason="the published configuration takes fairseq after 0.12.2",
)
