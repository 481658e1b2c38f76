"""Statistics of log-mel energies: exact, in blocks, in parts, by several processes."""

import json
import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data import sources, statistics
from eat_plugin.data.clip import ClipError
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.sources import read_blocks
from eat_plugin.data.statistics import (
    Moments,
    Statistics,
    block_energies,
    measure_all,
    measure_clip,
    measure_some,
    read_statistics,
    sum_up,
    write_statistics,
)
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


def test_moments__are_numpys():
    values = np.random.default_rng(0).normal(-4, 4, (30, 128)).astype(np.float32)
    found = Moments.of(values)
    assert found.count == values.size
    assert found.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-13)
    assert found.std == pytest.approx(values.astype(np.float64).std(), rel=1e-13)
    assert Moments.of(np.zeros((0, 128))) == Moments()
    assert Moments().std == 0


@pytest.mark.parametrize("seed", range(5))
def test_moments__parts_of_any_size_in_any_order_make_up_the_whole(seed):
    rng = np.random.default_rng(seed)
    values, parts = random_moments(rng, int(rng.integers(1, 2_000)))  # some of them empty
    for order in (range(len(parts)), rng.permutation(len(parts))):
        found = sum_up(parts[i] for i in order)
        assert found.count == len(values)
        assert found.mean == pytest.approx(values.mean(), rel=1e-12)
        assert found.std == pytest.approx(values.std(), rel=1e-12)


def test_moments__grouping_does_not_matter():
    _, parts = random_moments(np.random.default_rng(0), 64)
    while len(parts) > 1:  # a tree where sum_up makes a chain
        parts = [left + right for left, right in zip(parts[::2], parts[1::2])]
    _, chain = random_moments(np.random.default_rng(0), 64)
    assert parts[0].mean == pytest.approx(sum_up(iter(chain)).mean, rel=1e-12)
    assert parts[0].std == pytest.approx(sum_up(iter(chain)).std, rel=1e-12)


def test_moments__survive_a_mean_far_above_the_deviation():
    values = 1e8 + np.random.default_rng(0).normal(0, 1, 1_000)
    found = sum_up(Moments.of(part) for part in np.split(values, 10))
    assert found.std == pytest.approx(values.std(), rel=1e-6)


def test_measure_all__is_what_numpy_finds_in_one_go(manifest):
    found = list(measure_all(manifest, 1))
    values = energies_of(manifest)
    total = sum_up(iter(found))
    assert total.count == values.size
    assert total.mean == pytest.approx(values.mean(), rel=1e-12)
    assert total.std == pytest.approx(values.std(), rel=1e-12)
    own = WHOLE.energies(*read_audio(manifest.path(2))).double().numpy()
    assert found[2].mean == pytest.approx(own.mean(), rel=1e-12)


def test_measure_all__processes_and_threads_change_no_bit(manifest, monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK", 1)
    before = torch.get_num_threads()
    alone = list(measure_all(manifest, 1))
    assert torch.get_num_threads() == before
    assert list(measure_all(manifest, 3)) == alone
    torch.set_num_threads(3)
    try:
        assert list(measure_all(manifest, 1)) == alone
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rate", [1_000, 8_000, 16_000, 22_050, 22_254, 44_100, 48_000])
@pytest.mark.parametrize(
    ("seconds", "part", "blocks"),
    # All but the last block are of 2 s, and need what their frames reach over, behind 1 s of lead.
    [
        (2.9999, 1.37, 1), (3.0, 1.37, 1), (3.03, 1.37, 2), (5.0, 1.37, 2), (5.03, 1.37, 3),
        (9.4, 1.37, 5), (9.4, 9.4, 5),
    ],
)  # fmt: skip
def test_blocks__have_the_frames_of_the_whole(rate, seconds, part, blocks, monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK_SECONDS", 2)
    # A constant, which the whole loses before it is cut into frames and each block by itself.
    waveform = torch.from_numpy(noise(rate, seconds)[:, 0]).float() + 0.05
    parts = [(samples, rate) for samples in waveform.split(int(part * rate))]
    found = list(block_energies(iter(parts)))
    expected = WHOLE.energies(waveform, rate)
    assert sum(map(len, found)) == len(expected)
    assert len(found) == blocks
    # 1 and 8 kHz leave bins empty, whose rounding errors the logarithm shows.
    torch.testing.assert_close(torch.cat(found).exp(), expected.exp(), rtol=1e-3, atol=1e-6)
    if rate >= 16_000:
        torch.testing.assert_close(torch.cat(found)[:, :110], expected[:, :110], rtol=0, atol=2e-3)


def test_blocks__are_of_bounded_length():
    parts = ((torch.randn(30_000), 1_000) for _ in range(20))  # ten minutes
    lengths = [len(block) for block in block_energies(parts)]
    assert sum(lengths) == 600 * 100 - 2
    assert max(lengths) <= 3_100


def test_measure_clip__takes_a_long_clip_in_blocks(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.flac", noise(44_100, 7.2, 2), 44_100)
    whole = measure_clip(tmp_path / "long.flac")
    monkeypatch.setattr(statistics, "BLOCK_SECONDS", 2)
    blocks = measure_clip(tmp_path / "long.flac")
    assert blocks.count == whole.count
    assert blocks.mean == pytest.approx(whole.mean, rel=1e-5)
    assert blocks.std == pytest.approx(whole.std, rel=1e-5)


def test_read_blocks__parts_make_up_the_clip(tmp_path):
    soundfile.write(tmp_path / "x.flac", noise(8_000, 2.5, 2), 8_000)
    parts = list(read_blocks(tmp_path / "x.flac", 1, 20_000))
    assert [(len(part), rate) for part, rate in parts] == [(8_000, 8_000)] * 2 + [(4_000, 8_000)]
    whole, _ = read_audio(tmp_path / "x.flac")
    assert torch.equal(torch.cat([part for part, _ in parts]), whole)


def test_read_blocks__of_a_clip_that_ends_early_are_refused(monkeypatch):
    clip = SimpleNamespace(frames=100, samplerate=1_000, channels=1, subtype="", extra_info="")
    left = [np.ones((60, 1), np.float32)]
    clip.read = lambda *_, **__: left.pop() if left else np.ones((0, 1), np.float32)
    monkeypatch.setattr(sources, "open_clip", lambda _: nullcontext(clip))
    parts = read_blocks("x.flac", 1)
    assert len(next(parts)[0]) == 60
    with pytest.raises(ClipError, match="truncated: 60 of 100 samples"):
        next(parts)


def test_measure_clip__uses_one_thread(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "x.wav", noise(16_000, 0.5), 16_000)
    before, used = torch.get_num_threads(), []
    original = FrontEnd.energies
    monkeypatch.setattr(
        FrontEnd, "energies",
        lambda *args: used.append(torch.get_num_threads()) or original(*args),
    )  # fmt: skip
    torch.set_num_threads(3)
    try:
        measure_clip(tmp_path / "x.wav")
        assert (used, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_measure_all__names_what_is_wrong_and_goes_on(tmp_path):
    good = noise(16_000, 1)
    soundfile.write(tmp_path / "good.wav", good, 16_000)
    soundfile.write(tmp_path / "other.wav", good, 16_000)
    soundfile.write(tmp_path / "tiny.wav", good[:399], 16_000)
    soundfile.write(tmp_path / "whole.flac", good, 16_000)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "half.flac").write_bytes(content[: len(content) // 2])
    good[9_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", good, 16_000, "FLOAT")
    entries = {
        "gone.wav": 16_000, "half.flac": 16_000, "nan.wav": 16_000, "other.wav": 15_999,
        "tiny.wav": 399, "good.wav": 16_000,
    }  # fmt: skip
    write_manifest(tmp_path / "train.tsv", tmp_path, entries.items())
    *bad, last = measure_all(read_manifest(tmp_path / "train.tsv"), 1)
    expected = ("opened", "truncated|decoded", "finite", "15999 were expected", "one frame")
    for message, words in zip(bad, expected):
        assert isinstance(message, str)
        assert any(word in message for word in words.split("|")), message
    assert last == measure_clip(tmp_path / "good.wav")


def test_measure_some__of_all_clips_leaves_nothing_to_chance(manifest):
    found = measure_some(manifest, 100)
    values = energies_of(manifest)
    assert (found.clips, found.mean_error, found.std_error) == (len(CLIPS), 0, 0)
    assert found.moments.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.moments.std == pytest.approx(values.std(), rel=1e-9)


def test_measure_some__its_errors_are_those_that_other_samples_show(tmp_path):
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


def test_measure_some__passes_over_damaged_clips(manifest):
    for index in range(1, len(CLIPS)):
        manifest.path(index).write_bytes(b"no audio")
    found = measure_some(manifest, 100)
    assert found.moments == measure_clip(manifest.path(0))
    manifest.path(0).unlink()
    assert measure_some(manifest, 100) is None


def test_measure_some__looks_at_a_part_of_a_long_clip(tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1_000, 60), 1_000)
    write_manifest(tmp_path / "train.tsv", tmp_path, [("long.wav", 60_000)])
    found = measure_some(read_manifest(tmp_path / "train.tsv"), 5)
    assert found.moments.count == (10 * 100 - 2) * 128


def test_statistics__are_read_as_they_were_written(tmp_path):
    assert read_statistics(tmp_path) is None
    assert read_statistics(tmp_path / "nowhere") is None
    written = Statistics.from_moments(Moments(1280, -1 / 3, 1280 * 4.0), 2, "train", 1)
    assert (written.std, written.frames) == (2.0, 10)
    write_statistics(tmp_path, written)
    assert json.loads((tmp_path / "stats.json").read_text()) == {
        "mean": -1 / 3, "std": 2.0, "frames": 10, "clips": 2, "split": "train", "skipped": 1
    }  # fmt: skip
    assert read_statistics(tmp_path) == written


@pytest.mark.parametrize("moments", [Moments(), Moments(128, -15.9, 0.0)])
def test_statistics__of_silence_are_refused(moments):
    with pytest.raises(ValueError, match="nothing to normalise by"):
        Statistics.from_moments(moments, 1, "train", 0)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"7", b'{"mean": 0}', b"\xff"])
def test_read_statistics__refuses_what_is_no_such_file(tmp_path, content):
    (tmp_path / "stats.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"stats\.json does not hold statistics .*eat stats"):
        read_statistics(tmp_path)


@pytest.mark.parametrize(
    ("mean", "std"), [(0, 0), (0, -1), ("x", 1), (0, None), (math.nan, 1), (0, math.inf)]
)
def test_read_statistics__refuses_numbers_that_cannot_be(tmp_path, mean, std):
    content = {"mean": mean, "std": std, "frames": 1, "clips": 1, "split": "", "skipped": 0}
    (tmp_path / "stats.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"stats\.json .*eat stats"):
        read_statistics(tmp_path)


def test_measure_clip__of_less_than_a_frame_is_refused(tmp_path):
    soundfile.write(tmp_path / "tiny.wav", noise(16_000, 0.02), 16_000)
    with pytest.raises(ClipError, match="shorter than one frame"):
        measure_clip(tmp_path / "tiny.wav")
