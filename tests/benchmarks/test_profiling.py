"""Time by stage."""

import time

import pytest
import torch
from torch.profiler import record_function

from benchmarks.profiling import IDLE, STAGES, format_stages, profile_stages, stage_of


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16>", "convolution"),
        ("cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optimized", "convolution"),
        ("_convolve", "convolution"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NTT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("pytorch_flash::flash_fwd_kernel", "attention"),
        ("at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor", "optimizer and teacher"),
        ("at::native::vectorized_layer_norm_kernel", "norms"),
        ("triton_per_fused_gelu_native_layer_norm_3", "fused by the compiler"),
        ("Memcpy DtoD (Device -> Device)", "copies and gathers"),
        ("at::native::vectorized_elementwise_kernel<4, GeluCUDA", "element-wise and sums"),
    ],
)
def test_stage__of_a_kernel(name, stage):
    assert stage_of(name) == stage


def test_profile__of_a_product():
    x = torch.randn(400, 400)
    stages = profile_stages(lambda: x @ x, torch.device("cpu"))
    assert set(stages) == {*STAGES, IDLE}
    assert max(set(stages) - {IDLE}, key=stages.get) == "matrix products"
    assert "matrix products" in format_stages({**stages, IDLE: 0.0})[0]


def test_profile__names_that_span_work_are_no_work():
    def wait():
        with record_function("forward"):
            time.sleep(0.05)

    stages = profile_stages(wait, torch.device("cpu"))
    assert stages[IDLE] > 0.9 * sum(stages.values())
