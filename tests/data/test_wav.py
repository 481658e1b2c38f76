"""16-bit wav read directly: equal to libsndfile, which reads all other formats."""

import os
import struct

import numpy as np
import pytest
import soundfile

from eat_plugin.data import sound_files, sources
from eat_plugin.data.clip import ClipError
from eat_plugin.data.sources import open_clip
from eat_plugin.data.wav import WavClip, find_wav
from tests.reading import read_audio

RATE = 8000


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(-32768, 32768, (1000, 2)).astype(np.int16)


def chunk(name, content):
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


def riff(*chunks):
    content = b"WAVE" + b"".join(chunks)
    return struct.pack("<4sI", b"RIFF", len(content)) + content


def form(tag=1, channels=1, rate=RATE, bits=16):
    align = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits))


DATA = np.arange(-50, 50, dtype="<i2").tobytes()


def is_direct(path):
    with open_clip(path) as clip:
        return isinstance(clip, WavClip)


@pytest.mark.parametrize("channels", [1, 2])
def test_read__equals_libsndfile_bit_for_bit(tmp_path, noise, channels, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise[:, :channels], RATE)
    assert is_direct(path)
    parts = [(0, None), (0, 10), (990, 100), (999, 1), (3, 500)]
    direct = [read_audio(path, 1000, *part)[0] for part in parts]
    monkeypatch.setattr(sound_files, "find_wav", lambda *_: None)
    assert not is_direct(path)
    for part, waveform in zip(parts, direct):
        assert waveform.equal(read_audio(path, 1000, *part)[0])
    assert direct[2].shape == (10,)


def test_read__in_blocks(tmp_path, noise, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE)
    whole, _ = read_audio(path)
    monkeypatch.setattr(sources, "BLOCK", 300)
    assert whole.equal(read_audio(path)[0])


def test_read__result_is_a_writable_copy(tmp_path, noise):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise[:, 0], RATE)
    waveform, rate = read_audio(path)
    waveform += 1
    assert rate == RATE
    np.testing.assert_array_equal(waveform.numpy() - 1, read_audio(path)[0].numpy())


def test_find__skips_chunks_before_the_samples(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(riff(chunk(b"LIST", b"odd"), form(), chunk(b"fact", b"1234"),
                          chunk(b"data", DATA), chunk(b"LIST", b"after")))  # fmt: skip
    assert is_direct(path)
    waveform, _ = read_audio(path, expected_samples=100)
    assert (waveform * 32768).tolist() == list(range(-50, 50))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (riff(form(), chunk(b"data", DATA))[:-40], "is truncated: 160 of 200 bytes"),
        (riff(form(), chunk(b"data", b"")), "no samples|cannot be decoded"),
        (riff(form()), "cannot be decoded"),
        (riff(form(channels=0), chunk(b"data", DATA)), "cannot be decoded"),
        (riff(form(rate=1), chunk(b"data", DATA)), "a sampling rate of 1 Hz"),
        (b"RIFF\0\0\0\0WAVE", "cannot be decoded"),
    ],
)
def test_find__damage_gives_the_errors_of_libsndfile(tmp_path, content, message):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(ClipError, match=message):
        read_audio(path)


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_U8", "FLOAT", "ULAW"])
def test_find__libsndfile_reads_other_formats(tmp_path, noise, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise / 32768, RATE, subtype=subtype)
    assert not is_direct(path)
    assert len(read_audio(path)[0]) == 1000


def test_find__in_a_part_of_a_file(tmp_path):
    path = tmp_path / "a.bin"
    inside = riff(form(), chunk(b"data", DATA))
    path.write_bytes(b"before" + inside + b"after")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        clip = find_wav(descriptor, 6, 6 + len(inside))
        got = clip.read(1000, "float32", True)
        assert (got[:, 0] * 32768).tolist() == list(range(-50, 50))
        assert find_wav(descriptor, 6, 5 + len(inside)) is None  # the samples exceed the part
        assert find_wav(descriptor, 0, 6 + len(inside)) is None
    finally:
        os.close(descriptor)
