"""Audio files, also in archives: samples, errors of damaged files."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data import pieces, sources
from eat_plugin.data.channels import FEW_CHANNELS, mix_channels
from eat_plugin.data.clip import ClipError
from eat_plugin.data.sources import probe_clip
from tests.reading import read_audio

RATE = 16_000
LENGTH = 8_000
FORMATS = ["wav", "flac", "ogg", "mp3"]


def make_samples(channels: int = 1) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((LENGTH, channels)) * 0.1
    return noise.astype(np.float32).squeeze()


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: "str | None" = None) -> Path:
    soundfile.write(path, samples, rate, subtype)
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("extension", FORMATS)
def test_read_audio__formats(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path / f"clip.{extension}", make_samples())
    waveform, rate = read_audio(path, expected_samples=LENGTH)
    assert (waveform.dtype, rate) == (torch.float32, RATE)
    assert waveform.shape == (LENGTH,)
    exact = extension in ("wav", "flac")
    difference = np.abs(waveform.numpy() - make_samples())
    assert difference.max() < (1e-4 if exact else 1.0)
    assert difference.mean() < (1e-4 if exact else 0.05)
    assert probe_clip(path) == (LENGTH, RATE)


def test_read_audio__format_comes_from_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", make_samples())
    for name in ("clip.raw", "clip.mp3", "clip"):
        path = path.rename(tmp_path / name)
        assert read_audio(path)[0].shape == (LENGTH,)


@pytest.mark.parametrize("channels", range(1, 11))
def test_mix_channels__equals_the_mean_bit_for_bit(channels: int) -> None:
    block = np.random.default_rng(0).standard_normal((999, channels)).astype(np.float32)
    assert np.array_equal(mix_channels(block, None), block.mean(axis=1))


@pytest.mark.parametrize("channels", [2, 3, FEW_CHANNELS, FEW_CHANNELS + 1])
def test_read_audio__averages_channels(tmp_path: Path, channels: int) -> None:
    samples = make_samples(channels)
    path = write(tmp_path / "clip.wav", samples, 44_100, "FLOAT")
    waveform, rate = read_audio(path)
    assert rate == 44_100
    np.testing.assert_allclose(waveform.numpy(), samples.mean(axis=1), atol=1e-7)


def test_read_audio__reads_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples()
    path = write(tmp_path / "clip.wav", samples, subtype="FLOAT")
    monkeypatch.setattr(sources, "BLOCK", 300)  # several reads
    for start, number, expected in [
        (0, 1_000, samples[:1_000]),
        (500, 1_000, samples[500:1_500]),
        (7_900, 1_000, samples[7_900:]),
        (7_900, None, samples[7_900:]),
    ]:
        np.testing.assert_array_equal(read_audio(path, LENGTH, start, number)[0], expected)


def test_read_audio__decodes_the_part_only(tmp_path: Path) -> None:
    path = cut(write(tmp_path / "clip.flac", make_samples()), 0.6)
    assert read_audio(path, num_samples=1_000)[0].shape == (1_000,)
    with pytest.raises(ClipError, match="cannot be decoded"):
        read_audio(path)


@pytest.mark.parametrize(("start", "number"), [(-1, None), (0, 0), (0, -5)])
def test_read_audio__invalid_part_is_refused(
    tmp_path: Path, start: int, number: "int | None"
) -> None:
    path = write(tmp_path / "clip.wav", make_samples())
    with pytest.raises(ValueError, match="cannot read") as caught:
        read_audio(path, start=start, num_samples=number)
    assert not isinstance(caught.value, ClipError)


def test_read_audio__start_after_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", make_samples())
    with pytest.raises(ClipError, match="has 8000 samples, none from sample 8000 on"):
        read_audio(path, start=LENGTH)


def make_bad_file(folder: Path, kind: str) -> Path:
    path = folder / "clip.wav"
    contents = {
        "empty": b"",
        "text": b"this is not audio\n" * 50,
        "zeros": bytes(5_000),
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "noise": np.random.default_rng(1).bytes(5_000),
        "mp3 header only": b"\xff\xfb\x90\x00" * 3,
        "half a header of a flac": b"fLaC\0\0\0\x22" + bytes(10),
        "half a header of a wav": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0",
        "half a page of an ogg": b"OggS\0\2" + bytes(10),
    }
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "broken link":
        path.symlink_to("nowhere")
    elif kind == "no samples":
        write(path, np.zeros(0, dtype=np.float32))
    elif kind == "rate":
        write(path, make_samples(), 7)
    elif kind == "half a wav":
        cut(write(path, make_samples()), 0.5)
    return path


BAD_FILES = {
    "gone": "cannot be opened: No such file",
    "broken link": "cannot be opened: No such file",
    "directory": "is a directory",
    "pipe": "is not a regular file",
    "empty": "is empty",
    "text": "cannot be decoded: Format not recognised$",
    "zeros": "cannot be decoded",
    "picture": "cannot be decoded",
    "noise": "cannot be decoded",
    "mp3 header only": "cannot be decoded: no frame of MPEG audio",
    "half a header of a flac": "cannot be decoded: .*header is damaged or truncated",
    "half a header of a wav": "cannot be decoded: .*No 'data' chunk",
    "half a page of an ogg": "cannot be decoded: .*header is damaged or truncated",
    "no samples": "has no samples",
    "rate": "sampling rate of 7 Hz; 1000 to 1000000 Hz",
    "half a wav": "is truncated: 7978 of 16000 bytes",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_clip_error__names_the_cause(tmp_path: Path, kind: str) -> None:
    path = make_bad_file(tmp_path, kind)
    for read in (probe_clip, read_audio):
        with pytest.raises(ClipError, match=BAD_FILES[kind]) as caught:
            read(path)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_clip_error__no_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", make_samples())
    path.chmod(stat.S_IWUSR)
    with pytest.raises(ClipError, match="cannot be opened: Permission denied"):
        read_audio(path)


@pytest.mark.parametrize("name", ["null\0byte.wav", "n" * 300])
def test_clip_error__invalid_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClipError, match="cannot be opened"):
        read_audio(tmp_path / name)


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_read_audio__shorter_than_in_the_manifest(
    tmp_path: Path, extension: str, share: float
) -> None:
    samples = np.tile(make_samples(), 4)
    path = cut(write(tmp_path / f"clip.{extension}", samples), share)
    with pytest.raises(ClipError):
        read_audio(path, expected_samples=len(samples))


def test_read_audio__truncated_mp3(tmp_path: Path) -> None:
    path = cut(write(tmp_path / "clip.mp3", np.tile(make_samples(), 4)), 0.5)
    with pytest.raises(ClipError, match=r"is truncated: \d+ of 32000 samples"):
        read_audio(path)


def test_read_audio__damaged_bytes_give_samples_or_a_clip_error(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    for extension in FORMATS:
        path = write(tmp_path / f"clip.{extension}", make_samples())
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(40):
            damaged = data.copy()
            places = random.integers(0, min(len(data), 200), 3)  # mostly headers
            damaged[places] = random.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            try:
                waveform, _ = read_audio(path)
            except ClipError:
                continue
            assert torch.isfinite(waveform).all()


def test_read_audio__wav_from_a_pipe_is_not_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", make_samples())
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert read_audio(path)[0].shape == (LENGTH,)


@pytest.mark.parametrize("expected", [LENGTH - 1, LENGTH + 1])
def test_read_audio__unexpected_length(tmp_path: Path, expected: int) -> None:
    path = write(tmp_path / "clip.wav", make_samples())
    with pytest.raises(ClipError, match=f"has {LENGTH} samples, but {expected} were expected"):
        read_audio(path, expected)


def test_read_audio__mp3_length_is_an_estimate(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp3", make_samples())
    assert read_audio(path, LENGTH + 2_304)[0].shape == (LENGTH,)
    with pytest.raises(ClipError, match="were expected"):
        read_audio(path, LENGTH + 2_305)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (-np.inf, "not finite"),
        (-1e20, r"1\.0e\+20"),
    ],
)
def test_read_audio__not_finite_or_huge_values(tmp_path: Path, value: float, problem: str) -> None:
    samples = make_samples()
    samples[5_000] = value
    path = write(tmp_path / "clip.wav", samples, subtype="FLOAT")
    assert read_audio(path, num_samples=5_000)[0].shape == (5_000,)
    with pytest.raises(ClipError, match=problem):
        read_audio(path)


def test_check_values__skips_integer_samples() -> None:
    broken = np.array([[0.5, np.nan], [0, 0]], dtype=np.float32)
    sources.check_values(SimpleNamespace(subtype="PCM_24"), broken)
    for subtype in ("FLOAT", "MPEG_LAYER_III", "float32"):
        with pytest.raises(ClipError, match="not finite"):
            sources.check_values(SimpleNamespace(subtype=subtype), broken)


def test_check_count__mp3_may_lack_two_frames() -> None:
    mp3, wav = (SimpleNamespace(subtype=subtype) for subtype in ("MPEG_LAYER_III", "PCM_16"))
    sources.check_count(wav, 5_000, 5_000)
    sources.check_count(mp3, 5_000 - 2_304, 5_000)
    for clip, found, wanted in ((wav, 4_999, 5_000), (mp3, 2_695, 5_000), (mp3, 0, 100)):
        with pytest.raises(ClipError, match=f"is truncated: {found} of {wanted} samples could be"):
            sources.check_count(clip, found, wanted)


def test_read_audio__leaves_no_file_open(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.wav", make_samples()), make_bad_file(tmp_path, "text")
    before = os.listdir("/dev/fd")
    read_audio(good)
    for _ in range(3):
        with pytest.raises(ClipError):
            read_audio(bad)
    assert len(os.listdir("/dev/fd")) == len(before)


def test_read_audio__real_recording(shared: Path) -> None:
    path = sorted((shared / "data" / "esc10" / "audio").glob("*.ogg"))[0]
    samples, rate = probe_clip(path)
    assert rate == 44_100
    assert read_audio(path, expected_samples=samples)[0].shape == (samples,)


def pack(folder: Path, kind: str, *names: str) -> dict:
    """Put files into an archive; return the entry of each."""
    path = folder / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(folder / name, name)
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.add(folder / name, name)
    data = path.read_bytes()
    contents = {name: (folder / name).read_bytes() for name in names}
    return {name: f"{path}:{data.index(c)}:{len(c)}" for name, c in contents.items()}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("extension", FORMATS)
def test_range__equals_the_file(tmp_path: Path, kind: str, extension: str) -> None:
    time = np.arange(LENGTH) / RATE
    names = [f"{number}.{extension}" for number in range(3)]
    for number, name in enumerate(names):
        tone = 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * time)
        write(tmp_path / name, np.stack([tone, -tone / 2], axis=1))
    for name, entry in pack(tmp_path, kind, *names).items():
        assert probe_clip(entry) == probe_clip(tmp_path / name) == (LENGTH, RATE)
        for start, number in [(0, None), (0, 1_000), (3_000, 2_000), (7_900, 999)]:
            there = read_audio(entry, LENGTH, start, number)[0]
            np.testing.assert_array_equal(
                there, read_audio(tmp_path / name, LENGTH, start, number)[0]
            )
        with pytest.raises(ClipError, match="has 8000 samples, but 20000 were expected"):
            read_audio(entry, 20_000)


def test_range__reads_the_decoded_part_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile(make_samples(), 20), RATE, "PCM_24")
    entry = pack(tmp_path, "tar", "a.wav")["a.wav"]
    read, counts = pieces.PiecedFile.readinto, []

    def count(part: object, buffer: memoryview) -> int:
        counts.append(read(part, buffer))
        return counts[-1]

    monkeypatch.setattr(pieces.PiecedFile, "readinto", count)
    assert read_audio(entry, start=80_000, num_samples=1_000)[0].shape == (1_000,)
    assert 3_000 < sum(counts) < 30_000  # of 480,000


def test_range__a_file_of_that_name_has_priority(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", make_samples())
    entry = Path(pack(tmp_path, "zip", "a.wav")["a.wav"])
    assert probe_clip(entry) == (LENGTH, RATE)
    (write(tmp_path / "b.wav", make_samples(), 8_000)).rename(entry)
    assert probe_clip(entry) == (LENGTH, 8_000)
    entry.unlink()
    entry.symlink_to("nowhere")
    with pytest.raises(ClipError, match="^cannot be opened: No such file"):
        probe_clip(entry)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("x.tar:0:999999", "is outside of its archive, bytes 0 to 999999 of 20480: the archive is"),
        ("x.tar:20480:1", "is outside of its archive, bytes 20480 to 20481 of 20480"),
        ("x.tar:1536:0", "is empty: 0 bytes"),
        ("x.tar:0:512", "cannot be decoded: "),
        ("x.tar:1537:15000", "cannot be decoded: "),
        ("x.tar:1536:8000", "is truncated: 7956 of 16000 bytes"),
        ("none.zip:0:1", "^the archive cannot be opened: No such file"),
        ("folder.zip:0:1", "^the archive is a directory"),
        ("empty.zip:0:1", "^the archive is empty"),
        ("pipe.zip:0:1", "^the archive is not a regular file"),
        ("x.tar:0", "^cannot be opened: No such file"),
        ("null\0.zip:0:1", "^the archive cannot be opened: .*null"),
    ],
)
def test_range__error_names_the_cause(tmp_path: Path, entry: str, problem: str) -> None:
    write(tmp_path / "a.wav", make_samples())
    pack(tmp_path, "tar", "a.wav")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "empty.zip").touch()
    os.mkfifo(tmp_path / "pipe.zip")
    for read in (probe_clip, read_audio):
        with pytest.raises(ClipError, match=problem):
            read(tmp_path / entry)


@pytest.mark.parametrize("good_reads", [0, 30])
def test_range__failing_disk_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    good_reads: int,
) -> None:
    class FailingFile(io.FileIO):
        count = 0

        def readinto(self, buffer: memoryview) -> int:
            FailingFile.count += 1
            if FailingFile.count > good_reads:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    write(tmp_path / "a.flac", np.tile(make_samples(), 20))
    entry = pack(tmp_path, "zip", "a.flac")["a.flac"]
    monkeypatch.setattr(pieces.io, "FileIO", FailingFile)
    with pytest.raises(ClipError, match="cannot be decoded: .*Input/output error"):
        read_audio(entry)
    assert capfd.readouterr().err == ""


def test_range__leaves_no_file_open(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", make_samples())
    entry = pack(tmp_path, "tar", "a.wav")["a.wav"]
    before = os.listdir("/dev/fd")
    read_audio(entry)
    for bad in (f"{tmp_path}/x.tar:0:999999", f"{tmp_path}/x.tar:0:512"):
        with pytest.raises(ClipError):
            read_audio(bad)
    assert len(os.listdir("/dev/fd")) == len(before)
