"""Sizes that a file declares and its bytes cannot hold."""

import io
import struct
import time
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main
from eat_plugin.data import declared
from eat_plugin.data.clip import ClipError
from eat_plugin.data.declared import check_pixels, check_samples, find_unstored
from eat_plugin.data.hdf5 import list_datasets
from eat_plugin.data.sources import probe_clip
from eat_plugin.prepare.archive_index import index_archive
from tests.reading import read_audio

RATE = 16_000
HUGE = 10**12


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(-9999, 9999, RATE, dtype=np.int16)


def test_hdf5__values_that_are_not_stored_are_refused(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(declared, "SMALL_DATASET", 1 << 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["sample_rate"] = RATE
        chunks = {"dtype": "i2", "chunks": (1 << 16,)}
        file.create_dataset("huge", (HUGE,), **chunks)
        file.create_dataset("unwritten", (RATE,), "i2")
        file.create_dataset("almost", (1 << 28,), **chunks)[: len(noise)] = noise
        file.create_dataset("begun", (1 << 22,), **chunks)[: len(noise)] = noise
        file.create_dataset("silence", data=np.zeros(1 << 22, np.int16), compression="gzip")
        file["sound"] = noise
    problems = {
        "huge": f"declares {HUGE} values, but none are stored in the file",
        "unwritten": f"declares {RATE} values, but none are stored in the file",
        "almost": f"declares {1 << 28} values, more than its 131072 stored bytes can hold",
        "begun": None, "silence": None, "sound": None,
    }  # fmt: skip
    assert dict(list_datasets(str(tmp_path / "a.h5"))) == problems
    for key, problem in problems.items():
        if problem is None:
            assert len(read_audio(tmp_path / "a.h5" / key, num_samples=100)[0]) == 100
        for _ in range(2 * (problem is not None)):
            with pytest.raises(ClipError, match=f"^{problem}$"):
                probe_clip(tmp_path / "a.h5" / key)
    data, start = tmp_path / "data", time.monotonic()
    assert main(["manifest", str(tmp_path), "--out", str(data), "--check"]) == 0
    assert len((data / "train.tsv").read_text().splitlines()) == 4
    rejected = (data / "rejected.tsv").read_text()
    assert f"a.h5/huge\t{problems['huge']}\n" in rejected
    assert time.monotonic() - start < 60


def test_flac__more_samples_than_its_bytes_hold(tmp_path, noise):
    soundfile.write(tmp_path / "a.flac", np.zeros(100 * RATE, np.int16), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    assert probe_clip(tmp_path / "a.flac") == (100 * RATE, RATE)  # silence: 250 samples a byte
    assert int.from_bytes(content[21:26], "big") & (1 << 36) - 1 == 100 * RATE
    content[21] |= 15
    content[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(content)
    problem = f"declares {(1 << 36) - 1} samples, more than its {len(content)} bytes can hold"
    with pytest.raises(ClipError, match=problem):
        probe_clip(tmp_path / "a.flac")


def ogg_checksum(page):
    """CRC-32 of an Ogg page, whose own field is 0: polynomial 0x04c11db7, not reflected."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return struct.pack("<I", crc)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg__more_samples_than_its_bytes_hold(tmp_path, noise, subtype):
    soundfile.write(tmp_path / "a.ogg", noise, RATE, subtype=subtype)
    content = (tmp_path / "a.ogg").read_bytes()
    last = bytearray(content[content.rindex(b"OggS") :])
    assert ogg_checksum(last[:22] + bytes(4) + last[26:]) == last[22:26]
    last[6:14] = struct.pack("<q", 1 << 36)  # the position of its last sample
    last[22:26] = bytes(4)
    last[22:26] = ogg_checksum(last)
    (tmp_path / "a.ogg").write_bytes(content[: content.rindex(b"OggS")] + last)
    problem = r"declares 6\d+ samples, more than its \d+ bytes can hold"
    if subtype == "OPUS":  # libsndfile finds it
        problem = "cannot be decoded: .* malformed"
    with pytest.raises(ClipError, match=problem):
        probe_clip(tmp_path / "a.ogg")


def test_png__more_pixels_than_its_bytes_hold(tmp_path):
    decode = pytest.importorskip("eat_plugin.images.decode")
    image = pytest.importorskip("PIL.Image")

    def write(side, name, mode="L"):
        image.new(mode, (side, side)).save(tmp_path / name)
        return tmp_path / name

    for name in ("a.png", "a.webp"):  # of one colour
        path = write(4000, name, "RGB")
        assert decode.probe_image(path) == (16_000_000, 0)
    content = bytearray(write(4, "b.png").read_bytes())
    content[16:24] = struct.pack(">2I", 9000, 9000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "b.png").write_bytes(content)
    with pytest.raises(
        ClipError, match=f"declares 81000000 pixels, more than its {len(content)} b"
    ):
        decode.probe_image(tmp_path / "b.png")


def test_zip__members_that_share_bytes_are_refused(tmp_path, noise):
    sound = io.BytesIO()
    soundfile.write(sound, noise, RATE, format="WAV")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.wav", "b.wav", "c.wav"):
            archive.writestr(name, sound.getvalue())
        first = archive.infolist()[0]
        archive.infolist()[1].header_offset = first.header_offset
    contents = index_archive(str(tmp_path / "a.zip"), {"wav"}, set())
    assert set(contents.clips) == {"a.wav", "c.wav"}
    assert contents.rejected == [("b.wav", "shares its bytes with another member")]


def test_manifest__a_length_that_no_file_has_is_refused(tmp_path, noise, make_checkpoint, capsys):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, noise, RATE)
    (tmp_path / "x.tsv").write_text(f"{tmp_path}\na.wav\t{HUGE * 10**5}\nb.wav\t{RATE}\n")
    path = make_checkpoint("classification")
    assert main(["predict", "--checkpoint", str(path), f"{tmp_path}/x.tsv"]) == 1
    problem = f"a.wav: has {RATE} samples, but {HUGE * 10**5} were expected"
    assert problem in capsys.readouterr().err


def test_bounds__are_beyond_what_formats_reach():
    check_samples(65_535 * 100, 10 * 100)  # flac
    check_samples(5_760 * 100, 2 * 100)  # Opus
    check_pixels(8 * 1_032 * 10_000, 10_000)  # png
    assert find_unstored(1 << 30, 2, (1 << 31) // 1_032) is None  # gzip
    with pytest.raises(ClipError, match="declares 8193 samples, more than its 1 bytes can hold"):
        check_samples(8193, 1)
