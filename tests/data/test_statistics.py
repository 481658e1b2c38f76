"""Statistics of log-mel energies: moments, samples of clips, the file."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import digest_clips, read_manifest, write_manifest
from eat_plugin.data.statistics import (
    Moments,
    Statistics,
    check_statistics,
    measure_some,
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
    assert measure_some(manifest, 100) is None


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
    ("mean", "std"), [(0, 0), (0, -1), ("x", 1), (0, None), (math.nan, 1), (0, math.inf)]
)
def test_read_statistics__impossible_numbers_are_refused(tmp_path, mean, std):
    content = {"mean": mean, "std": std, "frames": 1, "clips": 1, "split": "", "skipped": 0}
    (tmp_path / "stats.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"stats\.json .*eat stats"):
        read_statistics(tmp_path)
