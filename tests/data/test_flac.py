"""flac that does not state its length, or that another one follows."""

import io
import zipfile

import numpy as np
import pytest
import soundfile

from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import locate
from eat_plugin.data.sources import open_clip, probe_clip
from eat_plugin.prepare.quality import examine
from tests.reading import read_audio

RATE = 16_000
LENGTH = 70_001


def encode(length=LENGTH, channels=1, subtype="PCM_16"):
    samples = np.random.default_rng(0).normal(0, 0.1, (length, channels))
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, subtype, format="FLAC")
    return file.getvalue()


def forget_length(data):
    """Set the number of samples, 36 bits, to 0."""
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


@pytest.fixture
def put(tmp_path):
    def put(data, name="a.flac"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return put


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_read__without_a_length(put, channels, subtype):
    data = encode(channels=channels, subtype=subtype)
    whole = read_audio(put(data))[0]
    path = put(forget_length(data), "pipe.flac")
    assert probe_clip(path) == (LENGTH, RATE)
    assert examine(path).samples == LENGTH
    for size in (None, LENGTH):
        assert read_audio(path, size)[0].equal(whole)
        for start in (1, 35_000, 70_000):
            assert read_audio(path, size, start, 5_000)[0].equal(whole[start : start + 5_000])


def test_read__without_a_length_in_an_archive(put, tmp_path):
    data = forget_length(encode())
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.flac", data)
    place = (tmp_path / "x.zip").read_bytes().index(b"fLaC")
    entry = f"{tmp_path}/x.zip:{place}:{len(data)}"
    assert probe_clip(entry) == (LENGTH, RATE)
    assert read_audio(entry, LENGTH, 30_000)[0].equal(read_audio(put(data))[0][30_000:])


def test_read__is_counted_once(put, monkeypatch):
    path = put(forget_length(encode()))
    with open_clip(locate(path)._replace(size=LENGTH)) as clip:
        clip.seek(60_000)
        assert len(clip.read(1_000, "float32", True)) == 1_000
    monkeypatch.setattr("eat_plugin.data.flac._count", None)
    assert read_audio(path, LENGTH)[0].shape == (LENGTH,)


def test_read__less_than_in_the_manifest(put):
    with pytest.raises(ClipError, match="truncated|cannot be decoded"):
        read_audio(put(forget_length(encode())), LENGTH + 1)


def test_read__without_a_length_damage_is_named(put):
    data = forget_length(encode())
    for content in (data[: len(data) // 2], data + data, data + encode(), data + bytes(900)):
        for read in (probe_clip, read_audio):
            with pytest.raises(ClipError, match=r"does not state its length, and \d+ samples can"):
                read(put(content))


@pytest.mark.parametrize("length", [5_000, LENGTH, 20 * LENGTH])
def test_read__refuses_a_second_file(put, tmp_path, length):
    data = encode() + encode(length)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.flac", data)
    place = (tmp_path / "x.zip").read_bytes().index(b"fLaC")
    for clip in (put(data), f"{tmp_path}/x.zip:{place}:{len(data)}"):
        for read in (read_audio, examine):
            with pytest.raises(ClipError, match="holds a second flac file"):
                read(clip)
        assert len(read_audio(clip, None, 100, 500)[0]) == 500
