import itertools

import numpy as np
import pytest

from eat_plugin.prepare import demo_sounds as synthesis
from eat_plugin.prepare.demo_sounds import ENCODINGS, KINDS, synthesise_clip


@pytest.mark.parametrize("kind", KINDS)
def test_synthesise_clip__is_within_range(kind):
    for number in range(4):
        clip = synthesise_clip(kind, number)
        assert clip.samples.dtype == np.float32
        assert clip.samples.shape[1] == clip.encoding.num_channels
        assert 1.2 <= len(clip.samples) / clip.encoding.sample_rate + 1e-3 <= 2.01
        assert np.isfinite(clip.samples).all()
        assert 0.05 < np.abs(clip.samples).max() <= 1.0


def test_synthesise_clip__depends_on_seed_kind_and_number_alone():
    first = synthesise_clip(KINDS[0], 3, seed=5)
    synthesise_clip(KINDS[4], 0, seed=9)
    np.testing.assert_array_equal(synthesise_clip(KINDS[0], 3, seed=5).samples, first.samples)
    for kind, number, seed in ((KINDS[0], 4, 5), (KINDS[0], 3, 6), (KINDS[1], 3, 5)):
        other = synthesise_clip(kind, number, seed).samples
        assert other.shape != first.samples.shape or not np.array_equal(other, first.samples)


def test_synthesise_clip__consecutive_numbers_use_every_encoding():
    taken = {synthesise_clip(KINDS[2], number).encoding for number in range(len(ENCODINGS))}
    assert taken == set(ENCODINGS)
    assert {e.extension for e in ENCODINGS} == {"wav", "flac"}
    assert {e.sample_rate for e in ENCODINGS} == {16_000, 32_000, 44_100}
    assert {e.num_channels for e in ENCODINGS} == {1, 2}


def test_synthesise_clip__unknown_kind_lists_the_choices():
    with pytest.raises(ValueError, match=r"kind is 'whale'.*bell-chirp-clap, bell-clap-chirp"):
        synthesise_clip("whale", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds__are_orders_of_the_same_events(kind, monkeypatch):
    """Events in place of bell, chirp and clap: tones of 1, 2 and 3 kHz, over noise 5 dB below."""

    def tone(hertz):
        return lambda rng, rate: np.sin(2 * np.pi * hertz * np.arange(int(0.2 * rate)) / rate)

    for hertz, name in ((1000, "bell"), (2000, "chirp"), (3000, "clap")):
        monkeypatch.setitem(synthesis.EVENTS, name, tone(hertz))
    clip = synthesise_clip(kind, 0)
    rate, samples = clip.encoding.sample_rate, clip.samples[:, 0]
    window = int(0.05 * rate)
    parts = samples[: len(samples) // window * window].reshape(-1, window)
    power = np.abs(np.fft.rfft(parts * np.hanning(window))) ** 2
    bins = [round(hertz * window / rate) for hertz in (1000, 2000, 3000)]
    loudest = power[:, bins].argmax(axis=0)  # the window in which each tone is loudest
    order = [("bell", "chirp", "clap")[index] for index in np.argsort(loudest)]
    assert "-".join(order) == kind


def test_kinds__have_the_same_statistics():
    """The mean spectra of two kinds differ less than those of two halves of one kind."""

    def spectrum(kind, numbers):
        total = 0
        for number in numbers:
            clip = synthesise_clip(kind, number)
            power = np.abs(np.fft.rfft(clip.samples[:, 0], n=131072)) ** 2
            edges = np.geomspace(100, 7000, 24) * 131072 / clip.encoding.sample_rate
            bands = np.add.reduceat(power, edges.astype(int))[:-1]
            total = total + np.log(bands)
        return total / len(numbers)

    first, second = KINDS[0], KINDS[5]
    between = spectrum(first, range(48)) - spectrum(second, range(48))
    within = spectrum(first, range(48)) - spectrum(first, range(48, 96))
    assert np.abs(between).mean() < 2 * np.abs(within).mean()


def test_sum_harmonics__omits_aliases():
    rate = 8_000
    sound = synthesis.sum_harmonics(np.full(rate, 1500.0), rate, (1.0, 1.0, 1.0))
    power = np.abs(np.fft.rfft(sound))
    assert set(np.flatnonzero(power > power.max() / 2)) == {1500, 3000}  # not 4500 -> 3500


def test_shape_noise__has_a_band_and_unit_power():
    noise = synthesis.shape_noise(np.random.default_rng(1), 16_000, 16_000, 1000, 2000, 0.5)
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert np.mean(noise**2) == pytest.approx(1.0)
    assert power[1000:2001].sum() / power.sum() > 0.999


def test_overlay__adds_and_cuts_at_the_end():
    total = synthesis.overlay(5, np.array([0, 1, 3, 7]), [np.ones(2), np.ones(2)] * 2)
    assert total.tolist() == [1, 2, 1, 1, 1]


def test_events__at_every_rate():
    for make, rate in itertools.product(synthesis.EVENTS.values(), synthesis.SAMPLE_RATES):
        event = make(np.random.default_rng(0), rate)
        assert 0.08 <= len(event) / rate + 1e-3 <= 0.41
        assert np.abs(event).max() > 0.01
