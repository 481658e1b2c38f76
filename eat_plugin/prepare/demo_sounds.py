"""Synthetic labelled sounds, in NumPy alone: the same three events in six orders.

Every clip has a bell, a chirp and a clap; its kind is their order. Statistics over a clip do not
tell kinds apart. Pitch, length, level and gaps vary, and the events start anywhere in the clip.

A sound depends on (seed, kind, number) alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from typing import Callable

import numpy as np

SAMPLE_RATES = (16_000, 32_000, 44_100)
FILE_FORMATS = (("wav", "PCM_16"), ("flac", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"))
DURATIONS = (1.2, 2.0)  # seconds, shortest and longest
GAPS = (0.03, 0.25)  # seconds between events
BELL_RATIOS = (0.56, 0.92, 1.19, 1.71, 2.0, 2.74, 3.76)  # partial to pitch
BELL_AMPLITUDES = (1.0, 0.7, 0.8, 0.5, 0.6, 0.4, 0.3)


@dataclass(frozen=True)
class Encoding:
    """The encoding of a file; extension and subtype as libsndfile names them."""

    extension: str
    subtype: str
    sample_rate: int
    num_channels: int


@dataclass(frozen=True)
class Sound:
    """A sound, float32 ``[n, num_channels]`` within -1 and 1, and the encoding of its file."""

    samples: np.ndarray
    encoding: Encoding


ENCODINGS = tuple(
    Encoding(*form, rate, channels)
    for form, rate, channels in product(FILE_FORMATS, SAMPLE_RATES, (1, 2))
)


def synthesise_clip(kind: str, number: int, seed: int = 0) -> Sound:
    """Make a clip of three events over background noise.

    Consecutive numbers of a kind cycle through all encodings. An unknown kind raises ValueError.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    position = KINDS.index(kind)
    rng = np.random.default_rng([seed, position, number])
    # 7 and the number of encodings are coprime: steps of 7 reach all of them.
    encoding = ENCODINGS[(7 * number + 5 * position) % len(ENCODINGS)]
    rate = encoding.sample_rate
    events = [_level(rng, EVENTS[name](rng, rate)) for name in kind.split("-")]
    gaps = [int(rate * rng.uniform(*GAPS)) for _ in events[1:]]
    length = sum(map(len, events)) + sum(gaps)
    num_samples = max(int(rate * rng.uniform(*DURATIONS)), length + int(0.05 * rate))
    starts = [int(rng.uniform(0, num_samples - length))]
    for event, gap in zip(events, gaps):
        starts.append(starts[-1] + len(event) + gap)
    sound = overlay(num_samples, np.array(starts), events)
    return Sound(_mix(rng, sound / np.abs(sound).max(), encoding), encoding)


def _level(rng: np.random.Generator, event: np.ndarray) -> np.ndarray:
    """Give an event a peak of 0 to -9 dB."""
    return event / np.abs(event).max() * 10 ** (-rng.uniform(0, 9) / 20)


def _mix(rng: np.random.Generator, sound: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Pan a mono sound with peak 1, add background noise and set the level."""
    rate, num_channels = encoding.sample_rate, encoding.num_channels
    signal_to_noise = 10 ** (rng.uniform(5, 25) / 20)
    colour = rng.uniform(0, 1)
    loudness = np.sqrt(np.mean(sound**2)) + 1e-9
    angle = rng.uniform(0.15, 0.35) * np.pi  # 0.25 pi is the centre
    gains = np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)]) if num_channels == 2 else [1.0]
    channels = []
    for gain in gains:
        background = shape_noise(rng, len(sound), rate, 30, rate / 2, colour)
        channels.append(gain * sound + background * (loudness / signal_to_noise))
    mixed = np.stack(channels, axis=1)
    level = 10 ** (rng.uniform(-24, -3) / 20)
    return (mixed * (level / np.abs(mixed).max())).astype(np.float32)


def make_bell(rng: np.random.Generator, rate: int) -> np.ndarray:
    """A stroke of a bell, 0.2 to 0.4 s: inharmonic partials; higher ones decay faster."""
    pitch, decay = rng.uniform(500, 1500), rng.uniform(0.06, 0.16)  # Hz, seconds
    time = np.arange(int(rng.uniform(0.2, 0.4) * rate)) / rate
    stroke = np.zeros(len(time))
    for ratio, amplitude in zip(BELL_RATIOS, BELL_AMPLITUDES):
        phase = 2 * np.pi * (ratio * pitch * time + rng.uniform())
        stroke += amplitude * np.exp(-time * ratio / decay) * np.sin(phase)
    return _fade_edges(stroke, rate)


def make_chirp(rng: np.random.Generator, rate: int) -> np.ndarray:
    """A tone of 0.1 to 0.3 s that rises or falls."""
    length = int(rng.uniform(0.1, 0.3) * rate)
    turn = np.arange(length) / length
    reach = rng.uniform(500, 2000) * rng.choice([-1, 1])  # Hz
    pitch = rng.uniform(1500, 3500) + reach * (turn - 0.5)
    return sum_harmonics(pitch, rate, (1, 0.15)) * np.sin(np.pi * turn) ** 2


def make_clap(rng: np.random.Generator, rate: int) -> np.ndarray:
    """A broadband burst of noise, 0.08 to 0.2 s."""
    length = int(rng.uniform(0.08, 0.2) * rate)
    burst = shape_noise(rng, length, rate, 300, 7000, rng.uniform(0.2, 0.9))
    return burst * np.exp(-np.arange(length) / (rng.uniform(0.015, 0.05) * rate))


EVENTS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "bell": make_bell,
    "chirp": make_chirp,
    "clap": make_clap,
}
"""Event -> generator: (rng, rate in Hz) -> float64 ``[n]``."""

KINDS = tuple("-".join(order) for order in permutations(EVENTS))


def sum_harmonics(
    frequency: np.ndarray, rate: int, amplitudes: tuple[float, ...] | list[float] | np.ndarray
) -> np.ndarray:
    """Sum harmonics of a frequency in Hz per sample, ``[n]``; omit those that would alias."""
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    total = np.zeros(len(frequency))
    for multiple, amplitude in enumerate(amplitudes, start=1):
        if multiple * frequency.max() < 0.45 * rate:
            total += amplitude * np.sin(multiple * phase)
    return total


def shape_noise(
    rng: np.random.Generator, num_samples: int, rate: int, low: float, high: float, slope: float
) -> np.ndarray:
    """Draw noise of unit power between two frequencies in Hz, falling as frequency^(-slope).

    A slope of 0 is white noise, 0.5 pink, 1 brown.
    """
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    frequency = np.fft.rfftfreq(num_samples, 1 / rate)
    inside = (frequency >= low) & (frequency <= high)
    gain = np.where(inside, np.maximum(frequency, low) ** -slope, 0.0)
    noise = np.fft.irfft(spectrum * gain, num_samples)
    return noise / (np.sqrt(np.mean(noise**2)) + 1e-12)


def overlay(num_samples: int, starts: np.ndarray, events: list[np.ndarray]) -> np.ndarray:
    """Add events from their first samples on, and cut them at the end of the sound."""
    total = np.zeros(num_samples)
    for start, event in zip(starts, events):
        kept = event[: max(0, num_samples - start)]
        total[start : start + len(kept)] += kept
    return total


def _fade_edges(sound: np.ndarray, rate: int) -> np.ndarray:
    """Fade in and out for 5 ms to avoid clicks."""
    length = min(len(sound) // 2, int(0.005 * rate))
    ramp = np.linspace(0, 1, length, endpoint=False)
    faded = sound.copy()
    faded[:length] *= ramp
    faded[len(sound) - length :] *= ramp[::-1]
    return faded
