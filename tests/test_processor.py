"""What the CPU multiplies fast, by its description."""

import pytest
import torch

from eat_plugin import processor
from eat_plugin.processor import bfloat16_gain, prefers_onednn


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False), (None, "AVX512", False),
    ],
)  # fmt: skip
def test_prefers_onednn__on_amd_with_avx512(monkeypatch, tmp_path, vendor, capability, expected):
    cpuinfo = tmp_path / "cpuinfo"
    if vendor:
        cpuinfo.write_text(f"processor : 0\nvendor_id : {vendor}\n")
    monkeypatch.setattr(processor, "CPU_INFO", cpuinfo)
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    prefers_onednn.cache_clear()
    assert prefers_onednn() is expected
    prefers_onednn.cache_clear()


@pytest.mark.parametrize(
    ("flags", "version", "expected"),
    [
        ("avx512f avx512_bf16 amx_bf16 amx_tile", "2.13.0+cpu", 2.5),
        ("avx512f avx512_bf16", "2.13.0+cpu", 1.6),
        ("avx512f", "2.13.0+cpu", 1),
        ("avx512f amx_bf16 amx_tile", "2.1.2+cpu", 1),
        (None, "2.13.0+cpu", 1),
    ],
)
def test_bfloat16_gain__by_instructions_of_the_cpu(monkeypatch, tmp_path, flags, version, expected):
    cpuinfo = tmp_path / "cpuinfo"
    if flags:
        cpuinfo.write_text(f"processor : 0\nflags : {flags}\n", encoding="utf-8")
    monkeypatch.setattr(processor, "CPU_INFO", cpuinfo)
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert bfloat16_gain() == expected
