"""Where the time of a call goes, by stage."""

from __future__ import annotations

import re
import time
from typing import Any, Callable

import torch
from torch.profiler import ProfilerActivity, profile

CALLS = 3
# Stage -> pattern of names of GPU kernels, or of PyTorch's operations on a CPU. The first counts.
STAGES = {
    "fused by the compiler": r"^triton_",
    "attention": r"flash|fmha|attention|sdpa",
    "convolution": r"conv(?!ert)|[fd]prop|[dw]grad|tensorTransform|chwTo|hwcTo|_sum_gradients",
    "matrix products": r"gemm|nvjet|cutlass|splitK|::(add)?mm$|::bmm$|linear|matmul",
    "optimizer and teacher": r"multi_tensor|[Aa]dam|_foreach",
    "norms": r"norm|Norm|welford|var_mean",
    "copies and gathers": r"[Mm]em(cpy|set)|copy|clone|[Cc]at|index|gather|scatter|fill",
    "element-wise and sums": r"",
}
IDLE = "idle"


def stage_of(name: str) -> str:
    """Return the stage of a kernel or operation."""
    return next(stage for stage, pattern in STAGES.items() if re.search(pattern, name))


def profile_stages(call: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Return the milliseconds of each stage of a call, and those without any work as ``idle``.

    The profiler makes calls slower on the host: shares are those of a profiled call.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    call()
    _wait(on_gpu)
    with profile(activities=activities) as profiler:
        began = time.perf_counter()
        for _ in range(CALLS):
            call()
        _wait(on_gpu)
        seconds = time.perf_counter() - began
    stages = dict.fromkeys(STAGES, 0.0)
    for event in profiler.key_averages():
        if getattr(event, "is_user_annotation", False):
            continue  # fairseq's and PyTorch's names for spans of kernels, which are counted
        if str(event.device_type).endswith("CUDA") == on_gpu:
            time_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            stages[stage_of(event.key)] += time_us / 1000 / CALLS
    busy = sum(stages.values())
    return {**stages, IDLE: max(0.0, 1000 * seconds / CALLS - busy)}


def format_stages(stages: dict[str, float]) -> list[str]:
    """Format stages as lines, the longest first."""
    total = sum(stages.values()) or 1.0
    ordered = sorted(stages.items(), key=lambda item: -item[1])
    return [
        f"  {value:9.2f} ms  {value / total:4.0%}  {stage}" for stage, value in ordered if value
    ]


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()
