"""Augmentations of a clip: values, distribution, dependence on the generator alone.

Tolerances: means of M draws are held to 4.5 standard errors, std / sqrt(M), with fixed seeds.
"""

import math

import pytest
import torch

from eat_plugin.data.augment import add_noise, roll_and_gain

NUM_DRAWS = 4000
LIMIT = 4.5


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def assert_mean(values, mean, std):
    assert abs(values.mean().item() - mean) < LIMIT * std / math.sqrt(len(values))


def test_roll_and_gain__rotates_and_scales():
    waveform = torch.arange(1.0, 9.0)
    for seed in range(20):
        got = roll_and_gain(waveform, seeded(seed))
        start = int(got.argmin())
        gain = got[start]
        assert 0.5 < gain < 1.5
        torch.testing.assert_close(got.roll(-start), waveform * gain)
    assert torch.equal(waveform, torch.arange(1.0, 9.0))


def test_roll_and_gain__distribution():
    generator = seeded(0)
    waveform = torch.tensor([1.0, 0.0, 0.0, 0.0])
    rows = torch.stack([roll_and_gain(waveform, generator) for _ in range(3 * NUM_DRAWS)])
    gains, shifts = rows.double().max(dim=1)
    for shift in range(4):  # uniform over 0 to n - 1
        assert_mean((shifts == shift).double(), 0.25, math.sqrt(0.25 * 0.75))
    assert gains.min() > 0.5
    assert gains.max() < 1.5
    variance = 10 * 10 / (20**2 * 21)  # of Beta(10, 10)
    assert_mean(gains, 1.0, math.sqrt(variance))
    # Its excess kurtosis is -6 / 23, which gives the deviation of a squared deviation.
    assert_mean((gains - 1) ** 2, variance, variance * math.sqrt(2 - 6 / 23))
    assert_mean((gains < 1).double(), 0.5, 0.5)
    # Shift and gain are independent.
    assert_mean((gains - 1) * (shifts - 1.5), 0.0, math.sqrt(variance * 1.25))


@pytest.mark.parametrize("length", [0, 1, 3])
def test_roll_and_gain__shortest_clips(length):
    got = roll_and_gain(torch.ones(length), seeded(0))
    assert got.shape == (length,)
    assert got.dtype == torch.float32
    assert torch.isfinite(got).all()


def test_roll_and_gain__random_number_0_gives_finite_values(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.tensor([[0.0] * 9 + [0.5]] * 2))
    assert roll_and_gain(torch.ones(1), seeded(0)).item() == 1.0  # Beta = 1/2


def test_add_noise__one_level_per_clip():
    generator = seeded(1)
    levels = []
    for _ in range(NUM_DRAWS):
        noise = add_noise(torch.zeros(1, 8, 8), generator)
        assert noise.min() >= 0
        assert noise.max() < 0.1
        levels.append(2 * noise.double().mean())
    # The mean of 64 values of U(0, 1) varies by 1 / sqrt(12 * 64) around 1/2.
    levels = torch.stack(levels)
    assert_mean(levels, 0.05, 0.1 / math.sqrt(12) * 1.1)
    # The level is uniform too: twice the mean of 64 values times u / 10 has this variance.
    variance = 0.01 * (1 / 3 * (1 + 4 / (12 * 64)) - 1 / 4)
    assert levels.var().item() == pytest.approx(variance, rel=0.07)
    ratio = add_noise(torch.zeros(1, 100, 100), generator)
    ratio = ratio / ratio.max()
    assert ratio.mean().item() == pytest.approx(0.5, abs=0.02)  # uniform over the bins
    assert (ratio < 0.25).double().mean().item() == pytest.approx(0.25, abs=0.03)


def test_add_noise__rolls_by_minus_10_to_9_frames():
    generator = seeded(2)
    frames = torch.arange(32.0)[None, :, None].expand(1, 32, 4)
    shifts = []
    for _ in range(NUM_DRAWS):
        got = add_noise(frames, generator)
        shift = int(got[0, :, 0].argmin())
        torch.testing.assert_close(got.roll(-shift, dims=1), frames, atol=0.1, rtol=0)
        shifts.append(shift if shift < 16 else shift - 32)
    shifts = torch.tensor(shifts)
    assert sorted(set(shifts.tolist())) == list(range(-10, 10))
    for shift in range(-10, 10):
        assert_mean((shifts == shift).double(), 0.05, math.sqrt(0.05 * 0.95))


def test_add_noise__rolls_the_noise_too():
    # As published, noise is added before the roll, and drawn first.
    frames = torch.arange(32.0)[None, :, None].expand(1, 32, 4)
    for seed in range(5):
        generator = seeded(seed)
        noise = torch.rand(1, 32, 4, generator=generator)
        got = add_noise(frames, seeded(seed))
        noise_there = got.roll(-int(got[0, :, 0].argmin()), dims=1) - frames
        level = (noise_there.sum() / noise.sum()).item()
        torch.testing.assert_close(noise_there, level * noise, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 5])
def test_add_noise__shortest_spectrograms(frames):
    source = torch.zeros(1, frames, 3)
    got = add_noise(source, seeded(0))
    assert got.shape == source.shape
    assert got.dtype == torch.float32
    assert not source.any()


@pytest.mark.parametrize(
    ("augment", "clip"), [(roll_and_gain, torch.rand(50)), (add_noise, torch.rand(1, 50, 4))]
)
def test_augment__depends_on_the_generator_only(augment, clip):
    torch.manual_seed(1)
    first = augment(clip, seeded(3))
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(augment(clip, seeded(3)), first)
    assert not torch.equal(augment(clip, seeded(4)), first)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is not used
