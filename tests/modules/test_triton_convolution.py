"""The Triton convolution: computed on a CPU by Triton's interpreter, compiled for GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eat_plugin.modules.convolution import has_triton

pytestmark = pytest.mark.skipif(not has_triton(), reason="Triton and PyTorch 2.4 are needed")
ROOT = Path(__file__).resolve().parents[2]
COMPILE = """
import json, re, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from eat_plugin.modules import triton_convolution as kernels

shared = {"IN": 48, "OUT": 48, "GROUPS": 16, "TAPS": 9, "WIDE": 3, "TOP": 1, "LEFT": 1}
shared["PRECISION"] = "tf32"
forward = {"HAS_BIAS": True, "ROWS": kernels.ROWS, "STEP": 64, "COLUMNS": 64}
backward = {"ROWS": kernels.ROWS_OF_SUM, "STEPS": 128, "CHANNELS": 64, "COLUMNS": 64, "BLOCKS": 1}
found = {}
for kernel, options in ((kernels._convolve, forward), (kernels._sum_gradients, backward)):
    constants = {**shared, **options}
    types = {"weights": "*fp32", "biases": "*fp32", **dict.fromkeys(
        ("num_rows", "height", "width"), "i32"), **dict.fromkeys(constants, "constexpr")}
    signature = {name: types.get(name, "*bf16") for name in kernel.arg_names}
    hinted = [n for n in kernel.arg_names if signature[n][0] == "*" or n in ("num_rows", "height")]
    hints = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in hinted}
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    for capability in (80, 90):
        source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=hints)
        settings = {"num_warps": kernels.WARPS, "num_stages": kernels.STAGES}
        result = compile(source, target=GPUTarget("cuda", capability, 32), options=settings)
        found[f"{kernel.fn.__name__} {capability}"] = [
            result.metadata.shared, "mma" in result.asm["ptx"],
            len(re.findall(r"\\b(div|rem)\\.[su]64", result.asm["ptx"]))]
json.dump(found, sys.stdout)
"""


def run_python(*args, **environment):
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "PYTHONPATH": paths, **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *args], cwd=ROOT, env=variables, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_convolve__equals_float64():
    results = run_python("-m", "tests.modules.triton_cases", TRITON_INTERPRET="1")
    assert len(results) == 10
    for case, errors in results:
        assert max(errors) < (1e-3 if case[-1] == "float16" else 1e-6), case


def test_kernels__compile_for_a100_and_h100():
    found = run_python("-c", COMPILE, TRITON_INTERPRET="0")
    assert len(found) == 4
    for name, (shared_bytes, has_products, long_divisions) in found.items():
        assert 0 < shared_bytes <= 160 * 1024, name  # of an A100's processor
        assert has_products, name
        assert long_divisions == 0, name  # they take longer than the products
