"""What the CPU of this machine multiplies fast."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

# Before, PyTorch's attention in half precision over an odd number of tokens overwrites memory.
OLDEST_FOR_HALF_ON_CPU = "2.2"
CPU_INFO = Path("/proc/cpuinfo")  # of Linux


@lru_cache(maxsize=1)
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 faster than MKL: on AMD CPUs with AVX-512."""
    backends = torch.backends
    if not (backends.mkldnn.is_available() and backends.mkl.is_available()):
        return False
    capability = backends.cpu.get_cpu_capability()
    return "AuthenticAMD" in _describe() and capability.startswith("AVX512")


def prefers_bfloat16() -> bool:
    """Whether matrices of bfloat16 multiply several times faster: on Intel CPUs with AMX."""
    is_new = torch.__version__ >= OLDEST_FOR_HALF_ON_CPU
    return is_new and torch.backends.mkldnn.is_available() and "amx_bf16" in _describe().split()


def _describe() -> str:
    try:
        return CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
