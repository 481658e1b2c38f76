"""16-bit wav read directly: equal to libsndfile, which reads all other formats."""

import io
import os
import struct

import numpy as np
import pytest
import soundfile

from eat_plugin.data import sound_files, sources, wav
from eat_plugin.data.clip import ClipError
from eat_plugin.data.sources import open_clip, probe_clip
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
        wav = find_wav(inside[:20], descriptor, 6, 6 + len(inside))
        got = WavClip(descriptor, wav.position, wav.size, *wav.form).read(1000, "float32", True)
        assert (got[:, 0] * 32768).tolist() == list(range(-50, 50))
        assert find_wav(inside, descriptor, 6, 5 + len(inside)).size == 199  # none beyond the part
        assert find_wav(b"before", descriptor, 0, 6 + len(inside)) is None
    finally:
        os.close(descriptor)


UNKNOWN = [
    0, 0x7FFFF000, 0x7FFFFF00, 0x7FFFFFFF, 0x80000000, 2_000_000_000, 0xFFFFFFFE, 0xFFFFFFFF,
    0xFFFFFFFF - 44,
]  # fmt: skip


def write_wav(subtype, noise, kind="WAV", size=None):
    """Encode a wav; ``size`` is stated as that of its samples."""
    file = io.BytesIO()
    soundfile.write(file, noise, RATE, subtype, format=kind)
    data = bytearray(file.getvalue())
    if size is not None:
        place, code = (data.index(b"ds64") + 16, "<Q") if kind == "RF64" else (None, "<I")
        place = data.index(b"data") + 4 if place is None else place
        struct.pack_into(code, data, place, size)
    return bytes(data)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
@pytest.mark.parametrize("size", UNKNOWN)
def test_size__unknown_means_to_the_end(tmp_path, noise, subtype, size):
    path = tmp_path / "a.wav"
    path.write_bytes(write_wav(subtype, noise))
    whole = read_audio(path)[0]
    path.write_bytes(write_wav(subtype, noise, size=size))
    assert probe_clip(path) == (1000, RATE)
    assert read_audio(path, 1000)[0].equal(whole)
    assert read_audio(path, 1000, 700, 200)[0].equal(whole[700:900])


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1, (1 << 64) - 81])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_size__unknown_in_rf64(tmp_path, noise, subtype, size):
    path = tmp_path / "a.wav"
    path.write_bytes(write_wav(subtype, noise, "RF64"))
    whole = read_audio(path)[0]
    assert len(whole) == 1000
    path.write_bytes(write_wav(subtype, noise, "RF64", size))
    assert read_audio(path, 1000)[0].equal(whole)


@pytest.mark.parametrize("kind", ["WAV", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("size", [10_000_000, 2_147_000_000])
def test_size__likely_and_not_met_is_truncated(tmp_path, noise, kind, subtype, size):
    path = tmp_path / "a.wav"
    path.write_bytes(write_wav(subtype, noise, kind, size))
    for read in (probe_clip, read_audio):
        with pytest.raises(ClipError, match=rf"is truncated: \d+ of {size} bytes of samples"):
            read(path)


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize(("more", "complete"), [(44, True), (36, True), (43, False), (100, False)])
def test_size__of_the_file_in_place_of_the_samples(tmp_path, bits, more, complete):
    path = tmp_path / "a.wav"
    samples = DATA[:192]
    data = bytearray(riff(form(bits=bits), chunk(b"data", samples)))
    struct.pack_into("<I", data, 40, len(samples) + more)
    path.write_bytes(data)
    if complete:
        assert probe_clip(path) == (192 * 8 // bits, RATE)
    else:
        with pytest.raises(ClipError, match="is truncated: 192 of"):
            probe_clip(path)


def test_size__zero_before_other_chunks_means_no_samples(tmp_path):
    path = tmp_path / "a.wav"
    for more in ([], [chunk(b"LIST", b"odd")], [chunk(b"fact", b"1234"), chunk(b"id3 ", b"123")]):
        path.write_bytes(riff(form(), chunk(b"data", b""), *more))
        with pytest.raises(ClipError, match="has no samples"):
            probe_clip(path)
    path.write_bytes(riff(form(), chunk(b"data", b""), bytes(100)))  # silence
    assert probe_clip(path) == (50, RATE)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_find__refuses_a_second_file(tmp_path, noise, subtype):
    path = tmp_path / "a.wav"
    data = write_wav(subtype, noise)
    path.write_bytes(data + data)
    with pytest.raises(ClipError, match="holds a second wav file"):
        probe_clip(path)
    path.write_bytes(data + b"TAG" + bytes(125))
    assert probe_clip(path) == (1000, RATE)


def test_size__unknown_in_an_archive(tmp_path, noise):
    data = write_wav("PCM_24", noise, size=0xFFFFFFFF)
    path = tmp_path / "x.tar"
    path.write_bytes(b"before" + data + b"after")
    assert probe_clip(f"{path}:6:{len(data)}") == (1000, RATE)
    assert read_audio(f"{path}:6:{len(data)}")[0].shape == (1000,)


def stale(size, behind):
    """A wav whose header states ``size`` bytes of samples, and what is behind them."""
    samples = np.arange(size // 2, dtype="<i2").tobytes()
    return riff(form(), chunk(b"data", samples)) + behind


@pytest.mark.parametrize(
    "behind", [DATA * 1000, chunk(b"LIST", b"x" * 9) + chunk(b"data", DATA * 1000)]
)
def test_size__samples_behind_the_stated_ones_are_refused(tmp_path, behind):
    path = tmp_path / "a.wav"
    path.write_bytes(stale(2000, behind))
    with pytest.raises(ClipError, match=r"states 2000 bytes .* \d+ bytes follow .*--ignore-length"):
        probe_clip(path)


@pytest.mark.parametrize(
    "behind",
    [b"\7" * 60_000, chunk(b"LIST", b"x" * 99_999), b"ID3" + b"\1" * 99_999, DATA * 3],
)
def test_size__other_bytes_behind_are_none_of_the_clip(tmp_path, behind):
    path = tmp_path / "a.wav"
    path.write_bytes(stale(2000, behind))
    assert probe_clip(path) == (1000, RATE)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF])
def test_size__unknown_with_a_second_file_is_refused(tmp_path, size, monkeypatch):
    monkeypatch.setattr(wav, "BLOCK", 1000)
    path = tmp_path / "a.wav"
    first = bytearray(stale(2000, b""))
    first[40:44] = size.to_bytes(4, "little")
    for more in (b"", DATA * 10, DATA * 10 + b"\0", bytes(1992)):  # the last crosses a block
        path.write_bytes(bytes(first) + more + stale(400, b""))
        with pytest.raises(ClipError, match="second wav file"):
            probe_clip(path)
