"""Chained Ogg files are refused; streams in parallel are not."""

import io
import zipfile

import numpy as np
import pytest
import soundfile

from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import locate
from eat_plugin.data.ogg import LARGEST_PAGE, refuse_partial
from eat_plugin.data.sources import probe_clip, read_audio

RATE = 48_000


def encode(subtype, seconds=1.0, seed=0):
    samples = np.random.default_rng(seed).normal(0, 0.1, round(RATE * seconds))
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, subtype, format="OGG")
    return file.getvalue()


def renumber(data, serial):
    """Give all pages another serial number; the checksums, which nobody reads here, stay."""
    parts = data.split(b"OggS\0")
    return b"OggS\0".join([parts[0], *(part[:9] + serial + part[13:] for part in parts[1:])])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 8.0])
def test_read__refuses_links(tmp_path, subtype, seconds):
    path = tmp_path / "a.ogg"
    first, second = encode(subtype), renumber(encode(subtype, seconds, 1), b"2222")
    path.write_bytes(first)
    samples = round(RATE * 1.0)
    assert probe_clip(path) == (samples, RATE)
    for content in (first + second, first + second + b"\0" * 9_000):
        path.write_bytes(content)
        known = locate(path)._replace(size=samples)  # listed before links were refused
        for clip in (path, known):
            for read in (probe_clip, read_audio):
                with pytest.raises(ClipError, match="chained Ogg.*ffmpeg -i IN.ogg OUT.flac"):
                    read(clip)


def test_read__refuses_links_of_equal_numbers_in_a_listing(tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes(encode("VORBIS") * 2)
    with pytest.raises(ClipError, match="chained Ogg"):
        probe_clip(path)


def test_read__refuses_links_in_an_archive(tmp_path):
    data = encode("VORBIS") + renumber(encode("VORBIS"), b"2222")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.ogg", data)
    place = (tmp_path / "x.zip").read_bytes().index(b"OggS")
    with pytest.raises(ClipError, match="chained Ogg"):
        probe_clip(f"{tmp_path}/x.zip:{place}:{len(data)}")


def test_read__streams_in_parallel_and_bytes_behind_are_no_links(tmp_path):
    path = tmp_path / "a.ogg"
    data = encode("VORBIS", 4.0)
    first_page = data[: data.index(b"OggS", 4)]
    other = renumber(first_page, b"2222")
    end = b"OggS\0\4" + other[6:18] + (1).to_bytes(4, "little") + other[22:26] + b"\1\1x"
    path.write_bytes(first_page + other + data[len(first_page) :] + end)
    with open(path, "rb") as file:
        refuse_partial(file.fileno(), 0, path.stat().st_size, thorough=True)
    path.write_bytes(data + b"\xff" * LARGEST_PAGE)
    whole = read_audio(path)[0]
    path.write_bytes(data)
    assert whole.equal(read_audio(path)[0])


def pages(data):
    starts = [place for place in range(len(data)) if data.startswith(b"OggS\0", place)]
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)])]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_listing__refuses_lost_pages_and_a_page_that_is_cut_off(tmp_path, subtype):
    path, parts = tmp_path / "a.ogg", pages(encode(subtype, 20.0))
    middle = len(parts) // 2
    for content, message in (
        (parts[:middle] + parts[middle + 1 :], rf"damaged: its page {middle} is missing"),
        ([*parts[:middle], parts[middle][:-9]], "truncated: its last page lacks 9 bytes"),
        ([*parts[:middle], b"????", *parts[middle:]], "damaged: there is no page at byte"),
    ):
        path.write_bytes(b"".join(content))
        with pytest.raises(ClipError, match=message):
            probe_clip(path)


def test_read__damaged_page_is_not_made_up_for_by_the_end(tmp_path):
    path, parts = tmp_path / "a.ogg", pages(encode("VORBIS", 20.0))
    broken = bytearray(parts[len(parts) // 2])
    broken[-40:-20] = bytes(20)
    parts[len(parts) // 2] = bytes(broken)
    path.write_bytes(b"".join(parts))
    with pytest.raises(ClipError, match=r"truncated: \d+ of 960000 samples could be decoded"):
        read_audio(path)


def test_listing__recorded_broadcast_starts_in_the_middle(tmp_path):
    path, parts = tmp_path / "a.ogg", pages(encode("VORBIS", 20.0))
    path.write_bytes(b"".join(parts[:2] + parts[5:]))
    assert probe_clip(path)[1] == RATE
