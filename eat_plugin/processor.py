"""What the CPU of this machine multiplies fast."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

# Before, PyTorch's attention in half precision over an odd number of tokens overwrites memory.
OLDEST_FOR_HALF_ON_CPU = "2.2"
CPU_INFO = Path("/proc/cpuinfo")  # of Linux
# Flag of a CPU -> speed of updates in bfloat16 over float32 (eat bench bfloat16_tiny bfloat16_base)
BFLOAT16_GAINS = {"amx_bf16": 2.5, "avx512_bf16": 1.6}


@lru_cache(maxsize=1)
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 faster than MKL: on AMD CPUs with AVX-512."""
    backends = torch.backends
    if not (backends.mkldnn.is_available() and backends.mkl.is_available()):
        return False
    capability = backends.cpu.get_cpu_capability()
    return "AuthenticAMD" in _describe() and capability.startswith("AVX512")


def bfloat16_gain() -> float:
    """Return the speed of updates in bfloat16 over float32; 1 without instructions for it."""
    is_new = torch.__version__ >= OLDEST_FOR_HALF_ON_CPU
    if not (is_new and torch.backends.mkldnn.is_available()):
        return 1.0
    flags = _describe().split()
    return max((gain for name, gain in BFLOAT16_GAINS.items() if name in flags), default=1.0)


def _describe() -> str:
    try:
        return CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
