import itertools

import numpy as np
import pytest

from eat_plugin.prepare import demo_sounds as synthesis
from eat_plugin.prepare.demo_sounds import ENCODINGS, KINDS, synthesise_clip


def centroid(clip):
    """Mean frequency of the power spectrum, in Hz."""
    power = np.abs(np.fft.rfft(clip.samples[:, 0])) ** 2
    frequency = np.fft.rfftfreq(len(clip.samples), 1 / clip.encoding.sample_rate)
    return (power * frequency).sum() / power.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_synthesise_clip__is_within_range(kind):
    for number in range(4):
        clip = synthesise_clip(kind, number)
        assert clip.samples.dtype == np.float32
        assert clip.samples.shape[1] == clip.encoding.num_channels
        assert 1.0 <= len(clip.samples) / clip.encoding.sample_rate + 1e-3 <= 10.01
        assert np.isfinite(clip.samples).all()
        assert 0.05 < np.abs(clip.samples).max() <= 1.0


def test_synthesise_clip__depends_on_seed_kind_and_number_alone():
    first = synthesise_clip("bell", 3, seed=5)
    synthesise_clip("rain", 0, seed=9)
    np.testing.assert_array_equal(synthesise_clip("bell", 3, seed=5).samples, first.samples)
    others = (("bell", 4, 5), ("bell", 3, 6), ("siren", 3, 5))
    for kind, number, seed in others:
        other = synthesise_clip(kind, number, seed).samples
        assert other.shape != first.samples.shape or not np.array_equal(other, first.samples)
    seconds = {
        len(c.samples) / c.encoding.sample_rate for c in (first, synthesise_clip("siren", 3, 5))
    }
    assert len(seconds) == 2  # kinds do not share random numbers


def test_synthesise_clip__consecutive_numbers_use_every_encoding():
    taken = {synthesise_clip("clock", number).encoding for number in range(len(ENCODINGS))}
    assert taken == set(ENCODINGS)
    assert {e.extension for e in ENCODINGS} == {"wav", "flac"}
    assert {e.sample_rate for e in ENCODINGS} == {16_000, 32_000, 44_100}
    assert {e.num_channels for e in ENCODINGS} == {1, 2}


def test_synthesise_clip__unknown_kind_lists_the_choices():
    with pytest.raises(ValueError, match=r"kind is 'whale'.*bell, birds.*siren"):
        synthesise_clip("whale", 0)


def test_kinds__differ_in_pitch():
    # The mean over clips 0 to 3, which have several pitches and levels.
    mean = {
        kind: np.mean([centroid(synthesise_clip(kind, n)) for n in range(4)])
        for kind in ("engine", "organ", "birds", "rain")
    }
    assert mean["engine"] < 700
    assert mean["organ"] < 1500
    assert mean["birds"] > 2200
    assert mean["rain"] > 1500


def test_kinds__are_sparse_or_steady():
    rng = np.random.default_rng(0)
    rate = 16_000

    def crest(kind):
        sound = KINDS[kind](rng, 4 * rate, rate)
        return np.abs(sound).max() / np.sqrt(np.mean(sound**2))

    assert crest("clock") > 8 > max(crest("organ"), crest("siren"), crest("engine"))


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


def test_spread_starts__strict_tempo_and_late_events():
    rng = np.random.default_rng(2)
    strict = synthesis.spread_starts(rng, 1000, 100, tempo=1.0, jitter=0.0)
    assert strict.tolist() == list(range(0, 1000, 100))
    late = synthesis.spread_starts(rng, 1000, 100, tempo=1.0, jitter=0.5) - strict
    assert late[0] == 0
    assert late.min() >= 0
    assert 0 < late.max() < 50
    assert len(synthesis.spread_starts(rng, 10, 100, tempo=1.0, jitter=0.5)) == 1


def test_overlay__adds_and_cuts_at_the_end():
    total = synthesis.overlay(5, np.array([0, 1, 3, 7]), [np.ones(2), np.ones(2)] * 2)
    assert total.tolist() == [1, 2, 1, 1, 1]


def test_kinds__make_short_sounds_at_every_rate():
    for kind, rate in itertools.product(KINDS, synthesis.SAMPLE_RATES):
        sound = KINDS[kind](np.random.default_rng(0), int(0.7 * rate), rate)
        assert sound.shape == (int(0.7 * rate),)
        assert np.abs(sound).max() > 0.01
