"""Statistics of log-mel energies: moments, samples of clips, the file."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data.clip_sample import measure_some
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import digest_clips, read_manifest, write_manifest
from eat_plugin.data.statistics import (
    Moments,
    Statistics,
    check_statistics,
    read_statistics,
    sum_up,
    write_statistics,
)
from eat_plugin.prepare.measure import measure_clip
from tests.reading import read_audio

WHOLE = FrontEnd(1_000_000, 0.0, 1.0)
# Several rates (one with hardly a common divisor), lengths, channels and formats.
CLIPS = [
    ("a.wav", 16_000, 0.5, 1), ("b.flac", 44_100, 1.3, 2), ("c.wav", 8_000, 3.37, 1),
    ("d.wav", 22_254, 2.0, 1), ("e.flac", 48_000, 0.03, 1), ("f.wav", 32_000, 1.0, 3),
]  # fmt: skip


def noise(rate, seconds, channels=1, seed=0):
    shape = (int(rate * seconds), channels)
    return np.random.default_rng(seed).normal(0, 0.1, shape).clip(-1, 1)


@pytest.fixture
def manifest(tmp_path):
    entries = []
    for seed, (name, rate, seconds, channels) in enumerate(CLIPS):
        samples = noise(rate, seconds, channels, seed) * 0.5**seed
        soundfile.write(tmp_path / name, samples, rate)
        entries.append((name, len(samples)))
    write_manifest(tmp_path / "train.tsv", tmp_path, entries)
    return read_manifest(tmp_path / "train.tsv")


def energies_of(manifest):
    """All log-mel energies of whole clips, in one float64 array."""
    parts = [WHOLE.energies(*read_audio(manifest.path(i))) for i in range(len(manifest))]
    return torch.cat(parts).double().numpy()


def random_moments(rng, parts):
    values = rng.normal(-4, 4, 1_000)
    owners = rng.integers(0, parts, len(values))
    return values, [Moments.of(values[owners == part]) for part in range(parts)]


def bins_of(moments):
    """Mean and standard deviation of each mel bin."""
    return moments.bins.mean, np.sqrt(moments.bins.squares / moments.bins.count)


def test_moments__of_each_bin_by_hand():
    first, second = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[8.0, 5.0]])
    found = sum_up([Moments.of(first), Moments(), Moments.of(second)])
    assert (found.count, found.mean) == (6, 4.5)
    assert found.bins.count == 3
    assert found.bins.mean.tolist() == [4.0, 5.0]
    assert found.bins.squares.tolist() == [26.0, 0.0]  # 9 + 1 + 16; a constant bin has exactly 0
    assert Moments.of(first[0]).bins is None


def test_moments__of_each_bin_equal_numpys():
    values = np.random.default_rng(0).normal(1e4, range(1, 129), (300, 128))
    parts = [Moments.of(part) for part in np.split(values, [0, 1, 17, 200])]
    means, deviations = bins_of(sum_up(parts))
    np.testing.assert_allclose(means, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(deviations, values.std(axis=0), rtol=1e-12)


def test_moments__equal_numpys():
    values = np.random.default_rng(0).normal(-4, 4, (30, 128)).astype(np.float32)
    found = Moments.of(values)
    assert found.count == values.size
    assert found.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-13)
    assert found.std == pytest.approx(values.astype(np.float64).std(), rel=1e-13)
    assert Moments.of(np.zeros((0, 128))) == Moments()
    assert Moments().std == 0


@pytest.mark.parametrize("seed", range(5))
def test_moments__sum_of_parts_equals_the_whole(seed):
    rng = np.random.default_rng(seed)
    values, parts = random_moments(rng, int(rng.integers(1, 2_000)))  # some of them empty
    for order in (range(len(parts)), rng.permutation(len(parts))):
        found = sum_up(parts[i] for i in order)
        assert found.count == len(values)
        assert found.mean == pytest.approx(values.mean(), rel=1e-12)
        assert found.std == pytest.approx(values.std(), rel=1e-12)


def test_moments__grouping_does_not_matter():
    _, parts = random_moments(np.random.default_rng(0), 64)
    while len(parts) > 1:  # pairwise; sum_up adds one after the other
        parts = [left + right for left, right in zip(parts[::2], parts[1::2])]
    _, chain = random_moments(np.random.default_rng(0), 64)
    assert parts[0].mean == pytest.approx(sum_up(iter(chain)).mean, rel=1e-12)
    assert parts[0].std == pytest.approx(sum_up(iter(chain)).std, rel=1e-12)


def test_moments__are_exact_for_a_large_mean():
    values = 1e8 + np.random.default_rng(0).normal(0, 1, 1_000)
    found = sum_up(Moments.of(part) for part in np.split(values, 10))
    assert found.std == pytest.approx(values.std(), rel=1e-6)


def test_measure_some__of_all_clips_has_no_error(manifest):
    found = measure_some(manifest, 100)
    values = energies_of(manifest)
    assert (found.clips, found.mean_error, found.std_error) == (len(CLIPS), 0, 0)
    assert found.moments.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.moments.std == pytest.approx(values.std(), rel=1e-9)
    means, deviations = bins_of(found.moments)
    np.testing.assert_allclose(means, values.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(deviations, values.std(axis=0), rtol=1e-9, atol=1e-12)


def test_measure_some__errors_match_the_spread_of_samples(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(60):
        level = 10 ** rng.uniform(-3, -1)
        soundfile.write(tmp_path / f"{number}.wav", rng.normal(0, level, 3_000), 16_000)
    write_manifest(tmp_path / "train.tsv", tmp_path, [(f"{n}.wav", 3_000) for n in range(60)])
    manifest = read_manifest(tmp_path / "train.tsv")
    samples = [measure_some(manifest, 12, seed) for seed in range(40)]
    assert measure_some(manifest, 12, 3) == samples[3]
    for name, error in (("mean", "mean_error"), ("std", "std_error")):
        spread = np.std([getattr(sample.moments, name) for sample in samples])
        stated = np.mean([getattr(sample, error) for sample in samples])
        assert 0.6 < stated / spread < 1.6, name


def test_measure_some__skips_damaged_clips(manifest):
    for index in range(1, len(CLIPS)):
        manifest.path(index).write_bytes(b"no audio")
    found = measure_some(manifest, 100)
    assert found.moments == measure_clip(manifest.path(0))
    manifest.path(0).unlink()
    with pytest.raises(ValueError, match=rf"none of 6 clips .*: {manifest.path(0)}: cannot be ope"):
        measure_some(manifest, 100)


def test_measure_some__clips_shorter_than_a_frame(tmp_path):
    soundfile.write(tmp_path / "short.wav", noise(16_000, 0.02), 16_000)
    write_manifest(tmp_path / "train.tsv", tmp_path, [("short.wav", 320)])
    with pytest.raises(ValueError, match=r"none of 1 clips .*short.wav: is shorter than one fram"):
        measure_some(read_manifest(tmp_path / "train.tsv"), 5)


def test_measure_some__reads_a_part_of_a_long_clip(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1_000, 60), 1_000)
    write_manifest(tmp_path / "train.tsv", tmp_path, [("long.wav", 60_000)])
    found = measure_some(read_manifest(tmp_path / "train.tsv"), 5)
    assert found.moments.count == (10 * 100 - 2) * 128


@pytest.mark.parametrize("change", ["renamed", "length", "added", "removed"])
def test_check_statistics__another_manifest_is_refused(tmp_path, change):
    path, clips = tmp_path / "train.tsv", [("a.wav", 1), ("b.wav", 2)]
    write_manifest(path, tmp_path, clips)
    write_statistics(tmp_path, Statistics(-5.0, 4.0, 9, 1, "train", 0))
    found = read_statistics(tmp_path)
    assert found.manifest == digest_clips(path)
    check_statistics(tmp_path, found)
    (tmp_path / "moved").mkdir()
    write_manifest(path, tmp_path / "moved", clips)  # the same clips elsewhere
    check_statistics(tmp_path, found)
    write_manifest(
        path,
        tmp_path,
        {
            "renamed": [("a.wav", 1), ("c.wav", 2)], "length": [("a.wav", 1), ("b.wav", 3)],
            "added": [*clips, ("c.wav", 1)], "removed": clips[:1],
        }[change],
    )  # fmt: skip
    message = rf"stats.json holds .* other clips .*; run eat stats {tmp_path} again"
    with pytest.raises(ValueError, match=message):
        check_statistics(tmp_path, found)
    check_statistics(tmp_path, replace(found, split="gone"))


def test_check_statistics__older_file_has_the_number_of_clips(tmp_path):
    write_manifest(tmp_path / "more.tsv", tmp_path, [("a.wav", 1), ("b.wav", 2), ("c.wav", 3)])
    found = Statistics(-5.0, 4.0, 9, 2, "more", 1)
    check_statistics(tmp_path, found)
    older = replace(found, skipped=0)
    with pytest.raises(ValueError, match=f"eat stats {tmp_path} --split more again"):
        check_statistics(tmp_path, older)
    (tmp_path / "cache.json").write_text("{}")  # a cache may lack unusable clips
    check_statistics(tmp_path, older)


def test_statistics__round_trip(tmp_path):
    assert read_statistics(tmp_path) is None
    assert read_statistics(tmp_path / "nowhere") is None
    written = Statistics.from_moments(Moments(1280, -1 / 3, 1280 * 4.0), 2, "train", 1)
    assert (written.std, written.frames) == (2.0, 10)
    write_statistics(tmp_path, written)
    assert json.loads((tmp_path / "stats.json").read_text()) == {
        "mean": -1 / 3, "std": 2.0, "frames": 10, "clips": 2, "split": "train", "skipped": 1,
        "manifest": "",
    }  # fmt: skip
    assert read_statistics(tmp_path) == written


def test_statistics__bins_round_trip_in_one_line_each(tmp_path):
    energies = np.random.default_rng(0).normal(-4, 3, (50, 128))
    written = Statistics.from_moments(Moments.of(energies), 2, "train", 0)
    write_statistics(tmp_path, written)
    lines = (tmp_path / "stats.json").read_text().splitlines()
    assert [line[:5] for line in lines].count('  "bi') == 2
    assert len(lines) == 11
    assert read_statistics(tmp_path) == written
    np.testing.assert_allclose(written.bin_means, energies.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(written.bin_stds, energies.std(axis=0), rtol=1e-13)


def make_statistics(deviations):
    means = tuple(float(number) for number in range(128))
    return Statistics(-4.0, 3.0, 9, 1, "train", 0, bin_means=means, bin_stds=tuple(deviations))


def test_numbers__of_all_bins_or_of_each():
    deviations = [2.0, 4.0] * 64
    statistics = make_statistics(deviations)
    assert statistics.numbers("whole") == (-4.0, 3.0)
    assert statistics.numbers("bins") == (statistics.bin_means, tuple(deviations))


def test_numbers__a_bin_that_hardly_varies_has_half_of_the_usual_deviation():
    least = 0.5 * math.sqrt((64 * 3.0**2 + 63 * 0.01**2) / 128)  # about 1.06
    found = make_statistics([3.0] * 64 + [0.01] * 63 + [0.0]).numbers("bins")[1]
    assert found == pytest.approx([3.0] * 64 + [least] * 64, rel=1e-12)
    above = make_statistics([3.0] * 127 + [1.5]).numbers("bins")[1]
    assert above[-1] == 1.5  # half of 3, and a little above half of the root mean square
    with pytest.raises(ValueError, match="no mel bin varies, so task.norm=bins has nothing to"):
        make_statistics([0.0] * 128).numbers("bins")


@pytest.mark.parametrize("narrow", [1.0, 0.5, 0.9])
def test_numbers__of_telephone_speech_keep_the_band_above_it_small(tmp_path, narrow):
    """Clips at 8 kHz, alone or among clips at 16 kHz; a later clip has the full band."""
    rng, entries = np.random.default_rng(0), []
    for number in range(40):
        rate = 8_000 if number < 40 * narrow else 16_000
        level = 10 ** rng.uniform(-4, -2, rate // 400).repeat(400)  # of each 50 ms or 25 ms
        soundfile.write(tmp_path / f"{number}.wav", rng.normal(0, 1, rate) * level, rate)
        entries.append((f"{number}.wav", rate))
    write_manifest(tmp_path / "train.tsv", tmp_path, entries)
    moments = measure_some(read_manifest(tmp_path / "train.tsv"), 40).moments
    numbers = Statistics.from_moments(moments, 40, "train", 0).numbers("bins")
    means, deviations = bins_of(moments)
    spread = deviations / np.array(numbers[1]) / 2  # of the inputs
    assert spread.max() <= 0.5 + 1e-9
    assert spread[20:96].min() > 0.4  # below 4 kHz
    assert spread[3] == 0  # this filter lies between two lines of the spectrum
    full_band = torch.from_numpy(rng.normal(0, 0.1, 16_000).astype(np.float32))
    later = FrontEnd(98, *numbers)(full_band, 16_000)[0, :, 100:]
    assert later.abs().max() < 10
    if narrow == 1:
        assert spread[112:].max() < 0.3
        energies = FrontEnd(98, 0.0, 1.0).energies(full_band, 16_000).numpy()
        assert (np.abs(energies - means) / (2 * deviations))[:, 112:].max() > 20  # without a floor


@pytest.mark.parametrize("moments", [Moments(), Moments(128, -15.9, 0.0)])
def test_statistics__of_silence_are_refused(moments):
    with pytest.raises(ValueError, match="nothing to normalise by"):
        Statistics.from_moments(moments, 1, "train", 0)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"7", b'{"mean": 0}', b"\xff", b"[" * 100_000]
)
def test_read_statistics__other_files_are_refused(tmp_path, content):
    (tmp_path / "stats.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"stats\.json does not hold statistics .*eat stats"):
        read_statistics(tmp_path)


@pytest.mark.parametrize(
    ("means", "stds"),
    [
        ([0.0] * 128, [1.0] * 127), ([0.0] * 127, [1.0] * 127), ([0.0] * 128, [-1.0] * 128),
        ([math.nan] * 128, [1.0] * 128), ([0.0] * 128, [math.inf] * 128), (["x"] * 128, [1] * 128),
        (7, 7),
    ],
)  # fmt: skip
def test_read_statistics__impossible_numbers_of_bins_are_refused(tmp_path, means, stds):
    content = {"mean": 0, "std": 1, "frames": 1, "clips": 1, "split": "", "skipped": 0}
    content.update(bin_means=means, bin_stds=stds)
    (tmp_path / "stats.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"stats\.json does not hold statistics .*eat stats"):
        read_statistics(tmp_path)


@pytest.mark.parametrize(
    ("mean", "std"), [(0, 0), (0, -1), ("x", 1), (0, None), (math.nan, 1), (0, math.inf)]
)
def test_read_statistics__impossible_numbers_are_refused(tmp_path, mean, std):
    content = {"mean": mean, "std": std, "frames": 1, "clips": 1, "split": "", "skipped": 0}
    (tmp_path / "stats.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"stats\.json .*eat stats"):
        read_statistics(tmp_path)
