"""Moments of whole clips: exact, in blocks, by several processes."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data import sources
from eat_plugin.data.clip import ClipError
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.sources import read_audio, read_blocks
from eat_plugin.data.statistics import sum_up
from eat_plugin.prepare import measure
from eat_plugin.prepare.measure import block_energies, measure_all, measure_clip

WHOLE = FrontEnd(1_000_000, 0.0, 1.0)
# Several rates (22,254 Hz has hardly a common divisor with 16 kHz), lengths, channels, formats.
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


@pytest.fixture
def one_thread():
    """Convolutions of some processors round otherwise with several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_measure_all__equals_numpy(manifest):
    found = list(measure_all(manifest, 1))
    values = energies_of(manifest)
    total = sum_up(iter(found))
    assert total.count == values.size
    assert total.mean == pytest.approx(values.mean(), rel=1e-12)
    assert total.std == pytest.approx(values.std(), rel=1e-12)
    own = WHOLE.energies(*read_audio(manifest.path(2))).double().numpy()
    assert found[2].mean == pytest.approx(own.mean(), rel=1e-12)


def test_measure_all__is_bit_exact_for_any_workers_and_threads(manifest, monkeypatch):
    monkeypatch.setattr(measure, "CHUNK", 1)
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
    # All blocks but the last have 2 s after 1 s of lead, and need the samples of their last frame.
    [
        (2.9999, 1.37, 1), (3.0, 1.37, 1), (3.03, 1.37, 2), (5.0, 1.37, 2), (5.03, 1.37, 3),
        (9.4, 1.37, 5), (9.4, 9.4, 5),
    ],
)  # fmt: skip
def test_block_energies__equal_the_whole_clips(rate, seconds, part, blocks, monkeypatch):
    monkeypatch.setattr(measure, "BLOCK_SECONDS", 2)
    # The front end subtracts the mean of the whole clip or of a block: test it with an offset.
    waveform = torch.from_numpy(noise(rate, seconds)[:, 0]).float() + 0.05
    parts = [(samples, rate) for samples in waveform.split(int(part * rate))]
    found = list(block_energies(iter(parts)))
    expected = WHOLE.energies(waveform, rate)
    assert sum(map(len, found)) == len(expected)
    assert len(found) == blocks
    # At 1 and 8 kHz some bins are empty, and the logarithm amplifies their rounding errors.
    torch.testing.assert_close(torch.cat(found).exp(), expected.exp(), rtol=1e-3, atol=1e-6)
    if rate >= 16_000:
        torch.testing.assert_close(torch.cat(found)[:, :110], expected[:, :110], rtol=0, atol=2e-3)


def test_block_energies__have_bounded_length():
    parts = ((torch.randn(30_000), 1_000) for _ in range(20))  # ten minutes
    lengths = [len(block) for block in block_energies(parts)]
    assert sum(lengths) == 600 * 100 - 2
    assert max(lengths) <= 3_100


def test_measure_clip__reads_long_clips_in_blocks(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "long.flac", noise(44_100, 7.2, 2), 44_100)
    whole = measure_clip(tmp_path / "long.flac")
    monkeypatch.setattr(measure, "BLOCK_SECONDS", 2)
    blocks = measure_clip(tmp_path / "long.flac")
    assert blocks.count == whole.count
    assert blocks.mean == pytest.approx(whole.mean, rel=1e-5)
    assert blocks.std == pytest.approx(whole.std, rel=1e-5)


def test_read_blocks__blocks_make_up_the_clip(tmp_path):
    soundfile.write(tmp_path / "x.flac", noise(8_000, 2.5, 2), 8_000)
    parts = list(read_blocks(tmp_path / "x.flac", 1))
    assert [(len(part), rate) for part, rate in parts] == [(8_000, 8_000)] * 2 + [(4_000, 8_000)]
    whole, _ = read_audio(tmp_path / "x.flac")
    assert torch.equal(torch.cat([part for part, _ in parts]), whole)


def test_read_blocks__refuses_a_truncated_clip(monkeypatch):
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


def test_measure_all__yields_the_reason_for_damaged_clips(tmp_path):
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


def test_measure_clip__refuses_less_than_a_frame(tmp_path):
    soundfile.write(tmp_path / "tiny.wav", noise(16_000, 0.02), 16_000)
    with pytest.raises(ClipError, match="shorter than one frame"):
        measure_clip(tmp_path / "tiny.wav")
