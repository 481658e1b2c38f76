"""Synthetic labelled sounds, in NumPy alone: eight kinds that look and sound different.

A sound depends on (seed, kind, number) alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Callable

import numpy as np

SAMPLE_RATES = (16_000, 32_000, 44_100)
FILE_FORMATS = (("wav", "PCM_16"), ("flac", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"))
DURATIONS = (1.0, 10.0)  # seconds, shortest and longest
BELL_RATIOS = (0.56, 0.92, 1.19, 1.71, 2.0, 2.74, 3.76)  # partial to pitch
BELL_AMPLITUDES = (1.0, 0.7, 0.8, 0.5, 0.6, 0.4, 0.3)
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 5, 9), (0, 4, 7, 10))  # semitones above the root


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
    """Make a sound of 1 to 10 s, at a random onset and level over background noise.

    Consecutive numbers of a kind cycle through all encodings. An unknown kind raises ValueError.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
    position = list(KINDS).index(kind)
    rng = np.random.default_rng([seed, position, number])
    # 7 and the number of encodings are coprime: steps of 7 reach all of them.
    encoding = ENCODINGS[(7 * number + 5 * position) % len(ENCODINGS)]
    rate = encoding.sample_rate
    num_samples = int(rate * np.exp(rng.uniform(*np.log(DURATIONS))))
    onset = int(num_samples * rng.uniform(0, 0.3))

    sound = np.zeros(num_samples)
    sound[onset:] = _fade_edges(KINDS[kind](rng, num_samples - onset, rate), rate)
    sound /= np.abs(sound).max() + 1e-9
    return Sound(_mix(rng, sound, encoding), encoding)


def _mix(rng: np.random.Generator, sound: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Pan a mono sound with peak 1, add background noise and set the level."""
    rate, num_channels = encoding.sample_rate, encoding.num_channels
    signal_to_noise = 10 ** (rng.uniform(15, 35) / 20)
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


def make_siren(rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """A tone with four harmonics that sweeps up and down by up to an octave and a half."""
    time = np.arange(num_samples) / rate
    tempo = rng.uniform(0.3, 2.0)  # sweeps a second
    octaves = rng.uniform(0.5, 1.5)
    turn = (tempo * time + rng.uniform()) % 1.0
    sweep = 1 - np.abs(2 * turn - 1)  # a triangle between 0 and 1
    return sum_harmonics(rng.uniform(350, 800) * 2 ** (octaves * sweep), rate, (1, 0.5, 0.3, 0.2))


def make_bell(rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """Strokes of a bell: inharmonic partials; higher ones decay faster."""
    pitch = rng.uniform(400, 1600)
    decay = rng.uniform(0.5, 2.0)  # time constant of the slowest partial, seconds
    time = np.arange(min(num_samples, int(5 * decay * rate))) / rate
    stroke = np.zeros(len(time))
    for ratio, amplitude in zip(BELL_RATIOS, BELL_AMPLITUDES):
        if ratio * pitch < 0.45 * rate:
            phase = 2 * np.pi * (ratio * pitch * time + rng.uniform())
            stroke += amplitude * np.exp(-time * ratio / decay) * np.sin(phase)
    starts = spread_starts(rng, num_samples, rate, rng.uniform(0.6, 2.5), jitter=0.1)
    return overlay(num_samples, starts, [stroke * rng.uniform(0.5, 1) for _ in starts])


def make_rain(rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """Steady noise of mid and high frequencies, with louder drops."""
    steady = shape_noise(rng, num_samples, rate, rng.uniform(500, 1500), 0.45 * rate, 0.5)
    starts = spread_starts(rng, num_samples, rate, rng.uniform(8, 25), jitter=1.0)
    length = int(0.008 * rate)
    envelope = np.exp(-np.arange(length) / (0.002 * rate))
    drops = [2 * rng.uniform(0.3, 1) * envelope * rng.standard_normal(length) for _ in starts]
    swell = 1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * np.arange(num_samples) / rate)
    return steady * swell + overlay(num_samples, starts, drops)


def make_engine(rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """A low buzz of many harmonics with varying speed and pulsing loudness."""
    time = np.arange(num_samples) / rate
    wander = np.sin(2 * np.pi * (rng.uniform(0.1, 0.5) * time + rng.uniform()))
    speed = rng.uniform(35, 110) * (1 + rng.uniform(0.02, 0.15) * wander)
    buzz = sum_harmonics(speed, rate, [k**-0.7 for k in range(1, 21)])
    pulse = 1 + 0.6 * np.sin(2 * np.pi * rng.uniform(6, 18) * time)
    return buzz * pulse + 0.4 * shape_noise(rng, num_samples, rate, 40, 1200, 1.0)


def make_clock(rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """A clock: short clicks at a strict tempo, alternating in pitch."""
    time = np.arange(int(0.04 * rate)) / rate
    pitches = rng.uniform(2000, 3500) * np.array([1.0, rng.uniform(0.6, 0.8)])
    clicks = [
        np.exp(-time / 0.006) * sum_harmonics(np.full(len(time), pitch), rate, (1, 0.5))
        for pitch in pitches
    ]
    starts = spread_starts(rng, num_samples, rate, rng.uniform(2, 6), jitter=0.0)
    return overlay(num_samples, starts, [clicks[i % 2] for i in range(len(starts))])


def make_birds(rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """Chirps in groups: short tones between 2 and 7 kHz with varying pitch curves."""
    base, reach = rng.uniform(2200, 4500), rng.uniform(500, 2000)  # Hz
    starts, chirps = [], []
    for group in spread_starts(rng, num_samples, rate, rng.uniform(0.8, 2.0), jitter=0.6):
        length = int(rng.uniform(0.05, 0.14) * rate)
        curve, sign = rng.uniform(0.3, 1.5), rng.choice([-1, 1])
        turn = np.arange(length) / length
        pitch = base + reach * (0.5 + 0.5 * sign * np.cos(2 * np.pi * curve * turn))
        chirp = sum_harmonics(pitch, rate, (1, 0.15)) * np.sin(np.pi * turn) ** 2
        for repeat in range(rng.integers(2, 6)):
            starts.append(group + int(1.4 * length * repeat))
            chirps.append(chirp * rng.uniform(0.6, 1))
    return overlay(num_samples, np.array(starts), chirps)


def make_clapping(rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """Clapping people, at similar tempos but not in time: broadband bursts of noise."""
    tempo = rng.uniform(2.5, 4.5)
    starts, claps = [], []
    for _ in range(rng.integers(2, 5)):
        colour = rng.uniform(0.3, 0.9)
        for start in spread_starts(rng, num_samples, rate, tempo, jitter=0.25):
            length = int(0.12 * rate)
            burst = shape_noise(rng, length, rate, 300, 0.45 * rate, colour)
            starts.append(start)
            claps.append(burst * np.exp(-np.arange(length) / (0.025 * rate)) * rng.uniform(0.4, 1))
    return overlay(num_samples, np.array(starts), claps)


def make_organ(rng: np.random.Generator, num_samples: int, rate: int) -> np.ndarray:
    """Sustained organ chords without gaps."""
    length = min(num_samples, int(rate / rng.uniform(0.6, 2.0)))
    root = rng.uniform(110, 260)
    stops = rng.uniform(0.2, 1, size=8) / np.arange(1, 9)
    starts, chords = [], []
    for start in range(0, num_samples, length):
        chord = np.zeros(length)
        lowest = root * 2 ** (rng.integers(-5, 6) / 12)
        for semitones in CHORDS[rng.integers(len(CHORDS))]:
            chord += sum_harmonics(np.full(length, lowest * 2 ** (semitones / 12)), rate, stops)
        starts.append(start)
        chords.append(_fade_edges(chord, rate))
    return overlay(num_samples, np.array(starts), chords)


KINDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "bell": make_bell,
    "birds": make_birds,
    "clapping": make_clapping,
    "clock": make_clock,
    "engine": make_engine,
    "organ": make_organ,
    "rain": make_rain,
    "siren": make_siren,
}
"""Kind -> generator: (rng, number of samples, rate in Hz) -> float64 ``[n]``."""


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


def spread_starts(
    rng: np.random.Generator, num_samples: int, rate: int, tempo: float, jitter: float
) -> np.ndarray:
    """Draw the first samples of repeated events, int ``[events]``, at least one.

    The tempo is in events per second, the jitter the largest delay as a share of the period.
    """
    period = rate / tempo
    starts = np.arange(0, num_samples, period)
    late = rng.uniform(0, jitter * period, size=len(starts))
    late[0] = 0  # so that a short clip has an event
    return (starts + late).astype(int)


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
