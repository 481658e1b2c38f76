"""mp3 of any make: all of it, the same samples from any start, or an error that says why."""

import io
import zipfile

import numpy as np
import pytest
import soundfile

from eat_plugin.data import mpeg_frames
from eat_plugin.data.clip import ClipError
from eat_plugin.data.mpeg_frames import Form, parse_header
from eat_plugin.data.sources import open_clip, probe_clip
from eat_plugin.prepare.quality import examine
from tests.reading import read_audio

RATE = 44_100
DELAY = 576 + 529  # samples of LAME and of the decoder before the first one
V1_TAG = b"TAG" + bytes(125)
APE_TAG = b"APETAGEX\xd0\7\0\0 \0\0\0\0\0\0\0\0\0\0\xa0" + bytes(40)  # a header, a footer of zeros


def make_noise(seconds=1.5, rate=RATE, channels=1, loud=slice(None)):
    levels = np.full((round(seconds * rate), 1), 1e-4)
    levels[loud] = 0.2
    return levels * np.random.default_rng(0).standard_normal((len(levels), channels))


def encode(samples, rate=RATE, mode="VARIABLE", level=0.5):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="MP3", bitrate_mode=mode, compression_level=level)
    return file.getvalue()


def frame_sizes(data):
    sizes, place = [], 0
    while place < len(data):
        sizes.append(parse_header(data[place : place + 4])[1])
        place += sizes[-1]
    return sizes


def strip(data):
    """Remove the first frame, which states the number of frames."""
    assert data[:200].find(b"LAME") > 0
    return data[frame_sizes(data)[0] :]


def id3(size, flags=0):
    digits = [size >> shift & 0x7F for shift in (21, 14, 7, 0)]
    return b"ID3\4\0" + bytes([flags, *digits]) + b"\xff\xfb" * (size // 2)


@pytest.fixture
def put(tmp_path):
    def put(data, name="clip.mp3"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return put


def decode_plainly(data):
    """Decode by libsndfile alone, right where the number of frames is stated."""
    return soundfile.SoundFile(io.BytesIO(data)).read(dtype="float32", always_2d=True).mean(axis=1)


HALF = RATE * 3 // 4
WRONGLY_ESTIMATED = {
    "noise, then silence": ({"loud": slice(None, HALF)}, {}, b"", b""),
    "silence, then noise": ({"loud": slice(HALF, None)}, {}, b"", b""),
    "cover art": ({}, {"mode": "CONSTANT"}, id3(1_600_000), b""),
    "tags": ({}, {}, id3(300) + id3(500), APE_TAG + V1_TAG),
    "stereo": ({"channels": 2}, {}, b"", V1_TAG),
    "16 kHz": ({"rate": 16_000}, {}, b"", b""),
}


@pytest.mark.parametrize("kind", WRONGLY_ESTIMATED)
def test_read__all_frames_without_their_number(put, kind):
    sound, coding, before, behind = WRONGLY_ESTIMATED[kind]
    rate = sound.get("rate", RATE)
    data = encode(make_noise(**sound), rate, **coding)
    expected, bare = decode_plainly(data), strip(data)
    path = put(before + bare + behind)
    samples = 1152 if rate > 24_000 else 576
    assert probe_clip(path) == (len(frame_sizes(bare)) * samples, rate)
    found = read_audio(path)[0].numpy()
    assert np.array_equal(found[DELAY : DELAY + len(expected)], expected)
    assert examine(path).samples == len(found) == len(frame_sizes(bare)) * samples


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [RATE, 22_050])
def test_read__files_that_state_their_number_of_frames_as_before(put, mode, rate):
    data = encode(make_noise(rate=rate), rate, mode)
    for before, behind in (
        (b"", b""),
        (id3(20_000), V1_TAG),
        (id3(100, 0x10) + b"3DI" + bytes(7), APE_TAG),
    ):
        path = put(before + data + behind)
        found = read_audio(path, round(1.5 * rate))[0].numpy()
        assert np.array_equal(found, decode_plainly(data))


CODINGS = [(mode, level) for mode in ("CONSTANT", "VARIABLE") for level in (0, 0.5, 0.99)]


@pytest.mark.parametrize("rate", [48_000, RATE, 24_000, 22_050, 11_025, 8_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_seek__windows_equal_the_whole_bit_for_bit(put, rate, channels):
    random = np.random.default_rng(rate)
    for mode, level in CODINGS:
        data = encode(make_noise(rate=rate, channels=channels), rate, mode, level)
        paths = [put(data)]
        if b"LAME" in data[:200]:
            paths.append(put(strip(data), "bare.mp3"))
        for number, path in enumerate(paths):
            whole = read_audio(path)[0]
            for start in random.integers(1, len(whole) - 1, 12).tolist():
                part = read_audio(path, start=start, num_samples=2_000)[0]
                assert part.equal(whole[start : start + 2_000]), (mode, level, number, start)


def test_seek__equals_the_whole_at_lowest_bit_rates(put, capfd):
    """Frames of 24 bytes refer to data 20 frames before them."""
    data = encode(make_noise(rate=24_000, loud=slice(None, None, 1000)), 24_000, "VARIABLE", 0.99)
    path = put(strip(data))
    whole = read_audio(path)[0]
    for start in range(20_000, 36_000, 500):
        assert read_audio(path, start=start, num_samples=99)[0].equal(whole[start : start + 99])
    assert capfd.readouterr().err == ""


def test_read__blocks_equal_the_whole(put):
    data = encode(make_noise(), mode="CONSTANT", level=0.9)
    for path in (put(data), put(strip(data), "bare.mp3")):
        whole = read_audio(path)[0].numpy()
        with open_clip(path) as clip:
            blocks = [clip.read(1000, "float32", True) for _ in range(70)]
        assert np.array_equal(np.concatenate(blocks)[:, 0], whole)


def test_read__equal_in_an_archive(put, tmp_path):
    data = encode(make_noise(), level=0.9)
    for content in (data, strip(data), data + data):
        path = put(content)
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.write(path, "a.mp3")
        place = (tmp_path / "x.zip").read_bytes().index(content)
        entry = f"{tmp_path}/x.zip:{place}:{len(content)}"
        assert probe_clip(entry) == probe_clip(path)
        for part in ((0, None), (30_000, 5_000)):
            assert read_audio(entry, None, *part)[0].equal(read_audio(path, None, *part)[0])


@pytest.mark.parametrize("between", [b"", id3(3_000), V1_TAG + id3(50), b"\0" * 5_000])
def test_read__joined_files_are_read_to_the_end(put, between):
    first, second = encode(make_noise(0.5)), encode(-make_noise(0.7), mode="CONSTANT")
    path = put(first + between + second)
    sizes = [len(frame_sizes(data)) for data in (first, second)]
    assert probe_clip(path)[0] == 1152 * (sum(sizes) - 1)
    found = read_audio(path)[0].numpy()
    for data, place in ((first, DELAY), (second, 1152 * sizes[0] + DELAY)):
        expected = decode_plainly(data)[1152:]  # the decoder knows what was before
        place += 1152
        assert np.abs(found[place : place + len(expected)] - expected).max() < 1e-6
    assert read_audio(path, start=40_000)[0].equal(read_audio(path)[0][40_000:])


@pytest.mark.parametrize(
    ("other", "called"), [((32_000, 1), "32000 Hz, 1 channel"), ((RATE, 2), "44100 Hz, 2 channels")]
)
@pytest.mark.parametrize("bare", [True, False])
def test_read__joined_files_of_another_form_are_refused(put, other, called, bare):
    rate, channels = other
    data = encode(make_noise(0.5))
    other = encode(make_noise(0.5, rate, channels), rate)
    for between in (b"", id3(3_000)):
        path = put((strip(data) if bare else data) + between + other)
        with pytest.raises(
            ClipError, match=f"from 44100 Hz, 1 channel to {called}; write it again"
        ):
            probe_clip(path)


def test_read__bytes_behind_that_look_like_one_frame_are_left_out(put):
    data = encode(make_noise(0.5))
    frame = bytes.fromhex("fffb9064").ljust(417, b"x")  # stereo
    for content in (data, strip(data)):
        assert probe_clip(put(content + b"junk" + frame)) == probe_clip(put(content, "b.mp3"))


def announce(data, flags, values):
    """Return the file with another statement in its first frame."""
    place = data.index(b"Xing") + 4
    stated = flags.to_bytes(4, "big") + b"".join(value.to_bytes(4, "big") for value in values)
    size = frame_sizes(data)[0]
    return (data[:place] + stated).ljust(size, b"\0") + data[size:]


def test_read__the_statement_of_the_first_frame_is_checked(put):
    data = encode(make_noise())
    expected = decode_plainly(data)
    frames = len(frame_sizes(data)) - 1
    for flags, values, length, start in [
        (3, (frames, len(data)), 1152 * frames - 529, 576),
        (1, (frames,), 1152 * frames - 529, 576),
        (3, (frames // 2, len(data) // 2), 1152 * frames, DELAY),
        (1, (frames // 2,), 1152 * frames, DELAY),
        (2, (len(data),), 1152 * frames, DELAY),
        (0, (), 1152 * frames, DELAY),
    ]:
        path = put(announce(data, flags, values))
        found = read_audio(path)[0].numpy()
        assert len(found) == probe_clip(path)[0] == length
        assert np.array_equal(found[start : start + len(expected)], expected)
        assert np.array_equal(read_audio(path, start=30_000)[0], found[30_000:])


def test_read__truncated_file_that_states_its_length(put):
    data = encode(make_noise(3))
    path = put(data[: len(data) // 2])
    assert read_audio(path, start=30_000, num_samples=1_000)[0].shape == (1_000,)
    for start in (0, 30_000, 100_000):
        with pytest.raises(ClipError, match=r"is truncated: \d+ of \d+ samples could be decoded"):
            read_audio(path, start=start)


def test_read__damage_between_frames_is_left_out(put):
    bare = strip(encode(make_noise()))
    sizes = frame_sizes(bare)
    place = sum(sizes[:20])
    path = put(bare[:place] + b"\xff\xfb junk" * 400 + bare[place:-10])
    assert probe_clip(path)[0] == 1152 * (len(sizes) - 1)  # the last frame is incomplete
    assert len(read_audio(path)[0]) == 1152 * (len(sizes) - 1)
    whole = read_audio(put(bare, "whole.mp3"))[0]
    end = -2 * 1152
    assert read_audio(path, start=40_000)[0][:end].equal(whole[40_000 : end - 1152])


@pytest.mark.parametrize(
    ("header", "form", "size"),
    [
        ("fffb9064", Form(True, 3, 44_100, 2), 417),
        ("fffa92c4", Form(True, 3, 44_100, 1), 418),
        ("fff384c0", Form(False, 3, 24_000, 1), 192),
        ("ffe348c4", Form(False, 3, 8_000, 1), 288),
        ("fffd8404", Form(True, 2, 48_000, 2), 384),
        ("ffff1200", Form(True, 1, 44_100, 2), 36),
        ("fff710c0", Form(False, 1, 22_050, 1), 68),
    ],
)
def test_parse_header__by_hand(header, form, size):
    assert parse_header(bytes.fromhex(header)) == (form, size)


@pytest.mark.parametrize(
    "header", ["fff19064", "ffeb9064", "fffbf064", "fffb0064", "fffb9c64", "fefb9064"]
)
def test_parse_header__reserved_values_and_free_formats(header):
    assert parse_header(bytes.fromhex(header)) is None


@pytest.mark.parametrize("block", [1 << 17, 500])
def test_read__other_layers(put, monkeypatch, block):
    monkeypatch.setattr(mpeg_frames, "BLOCK", block)
    for headers, samples in ((("fffd8404", "fffda404"), 1152), (("ffff5000", "ffff9000"), 384)):
        frames = [
            bytes.fromhex(header).ljust(parse_header(bytes.fromhex(header))[1], b"\0")
            for header in headers
        ]
        path = put(frames[0] * 5 + frames[1] * 20)
        assert probe_clip(path)[0] == 25 * samples
        assert read_audio(path)[0].tolist() == [0] * (25 * samples)
        assert len(read_audio(path, start=20 * samples)[0]) == 5 * samples


@pytest.mark.parametrize(
    "content",
    [
        id3(500), id3(500) + b"\0" * 5_000, id3(5_000)[:100], b"\xff\xfb\x90\0" * 3,
        "text".encode("utf-16") * 500,
    ],
)  # fmt: skip
def test_read__without_frames_says_so(put, content):
    for read in (probe_clip, read_audio):
        with pytest.raises(ClipError, match="^cannot be decoded: no frame of MPEG audio"):
            read(put(content))


def test_read__zeros_behind_a_tag_are_skipped(put):
    data = encode(make_noise())
    expected = decode_plainly(data)
    path = put(id3(500) + bytes(3_000) + data)
    assert np.array_equal(read_audio(path)[0].numpy(), expected)


def test_read__frames_within_a_tag_are_no_sound(put):
    data = encode(make_noise())
    frames = data[:6_000]
    ape = APE_TAG[:12] + (len(frames) + 32).to_bytes(4, "little") + APE_TAG[16:32] + frames
    cover = id3(len(frames))[:10] + frames
    for content in (data, strip(data)):
        expected = probe_clip(put(content))
        for path in (put(content + ape + bytes(32) + V1_TAG), put(cover + content, "cover.mp3")):
            assert probe_clip(path) == expected
            assert len(read_audio(path)[0]) == expected[0]


def test_read__few_frames(put):
    frame = bytes.fromhex("fffb9064").ljust(417, b"\0")
    for number in range(1, 5):
        for end in (b"", frame[:300], V1_TAG):
            assert read_audio(put(frame * number + end))[0].tolist() == [0] * 1152 * number


def test_read__start_without_the_data_of_earlier_frames_is_silent(put):
    """As for libsndfile; zeros in the place of the data give noise far above full scale."""
    bare = strip(encode(make_noise(), mode="CONSTANT", level=0.9))
    data = bare[sum(frame_sizes(bare)[:20]) :]
    whole, cut = read_audio(put(bare))[0], read_audio(put(data, "cut.mp3"))[0]
    assert cut[10 * 1152 :].equal(whole[30 * 1152 :])
    assert cut.abs().max() < 1.2 * whole.abs().max()
