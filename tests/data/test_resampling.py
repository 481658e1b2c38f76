"""Resampling: published weights and outputs, pitch, lengths, equality of the methods."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from eat_plugin.data import resampling
from eat_plugin.data.resampling import resample, resampling_kernel


def noise(length: int) -> torch.Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(0))


def worst(got: torch.Tensor, expected: np.ndarray) -> float:
    assert tuple(got.shape) == expected.shape
    return float(np.abs(got.numpy() - expected).max())


def test_resample__golden_outputs(golden: Path) -> None:
    with np.load(golden / "resample.npz") as numbers:
        cases = [key for key in numbers.files if key.startswith("in_")]
        assert {key.split("_")[2] for key in cases} >= {"1", "7", "10"}
        for key in cases:
            rate = int(key.split("_")[1])
            got = resample(torch.from_numpy(numbers[key]), rate)
            assert worst(got, numbers[key.replace("in_", "out_")]) < 1e-6, key


def test_resampling_kernel__golden(golden: Path) -> None:
    with np.load(golden / "resample.npz") as numbers:
        for rate in (32_000, 48_000):
            assert worst(resampling_kernel(rate, 16_000), numbers[f"kernel_{rate}"]) < 1e-6
        for rate in (22_050, 44_100):  # float32 against float64: see golden/README.md
            got = resampling_kernel(rate, 16_000)[::40]
            assert worst(got, numbers[f"kernel_{rate}_every_40th"]) < 1e-5


@pytest.mark.parametrize("rate", [8_000, 22_254, 44_100, 48_000])
@pytest.mark.parametrize("length", [0, 1, 2, 441, 1_000])
def test_resample__length_is_rounded_up(rate: int, length: int) -> None:
    assert resample(noise(length), rate).shape == (math.ceil(length * 16_000 / rate),)


def test_resample__equal_rates_change_nothing() -> None:
    waveform = noise(10)
    assert resample(waveform, 16_000, 16_000) is waveform


def test_resample__leading_dimensions_are_independent() -> None:
    waveform = noise(600).reshape(2, 3, 100)
    got = resample(waveform, 44_100)
    assert got.shape == (2, 3, 37)
    torch.testing.assert_close(got[1, 2], resample(waveform[1, 2], 44_100))


@pytest.mark.parametrize("rate", [8_000, 22_254, 44_100, 48_000])
def test_resample__tone_keeps_its_pitch_and_level(rate: int) -> None:
    tone = torch.sin(2 * math.pi * 440 * torch.arange(rate // 2) / rate)
    expected = torch.sin(2 * math.pi * 440 * torch.arange(8_000) / 16_000)
    middle = slice(100, -100)
    torch.testing.assert_close(resample(tone, rate)[middle], expected[middle], atol=1e-2, rtol=0)


@pytest.mark.parametrize("rate", [11_025, 22_050, 44_100])
def test_resample__tap_by_tap_equals_dense(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = noise(2 * 1_001).reshape(2, 1_001)
    dense = resample(waveform, rate)
    monkeypatch.setattr(resampling, "DENSE_KERNEL_LIMIT", 0)
    torch.testing.assert_close(resample(waveform, rate), dense, atol=1e-5, rtol=0)


def test_resample__odd_rates_build_no_large_kernel() -> None:
    resampling_kernel.cache_clear()
    assert resample(noise(44_101), 44_101).shape == (16_000,)  # dense: 16000 x 44137 weights
    assert resampling_kernel.cache_info().currsize == 0


@pytest.mark.parametrize(("orig_hz", "new_hz"), [(0, 16_000), (16_000, -1)])
def test_resample__rates_must_be_positive(orig_hz: int, new_hz: int) -> None:
    with pytest.raises(ValueError, match=f"{orig_hz} Hz and {new_hz} Hz"):
        resample(noise(10), orig_hz, new_hz)


@pytest.mark.parametrize("rate", [8_000, 11_025, 24_000, 32_000, 44_100, 48_000, 96_000])
def test_resample__equals_the_sum_of_weighted_inputs(rate: int) -> None:
    waveform = noise(3 * rate // 100 + 7)
    kernel = resampling_kernel(rate, 16_000).double()
    period_in, period_out, width = resampling.rate_pair(rate, 16_000)
    padded = torch.nn.functional.pad(waveform.double(), (width, 2 * width + 2 * period_in))
    expected = [
        padded[first * period_in :][: kernel.size(1)] @ kernel[phase]
        for first, phase in (divmod(n, period_out) for n in range(len(resample(waveform, rate))))
    ]
    torch.testing.assert_close(
        resample(waveform, rate).double(), torch.stack(expected), atol=1e-6, rtol=0
    )
