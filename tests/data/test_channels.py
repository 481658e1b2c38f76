"""The channels of a clip, wherever it is stored and whichever part is read."""

import tarfile

import h5py
import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.cli import main
from eat_plugin.data import channels as module
from eat_plugin.data.channels import CHANNELS, mix_channels
from eat_plugin.data.entries import Entry
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.packed import PackedReader, compute_spectrograms
from eat_plugin.data.reader import SpectrogramReader, WindowsReader, read_window
from eat_plugin.data.sources import read_audio, read_blocks
from eat_plugin.inference.clips import locate_clip

RATE = 8_000
NUMBER = {"first": 0, "loudest": 1}  # channel of the clip below


def mixed(samples, channels):
    """What a reader gives of int16 samples `[n, channels]`."""
    scaled = (samples / 32768).astype(np.float32)
    return mix_channels(scaled, NUMBER.get(channels))


@pytest.fixture(scope="module")
def samples():
    """Three channels of two seconds, the second one loudest."""
    levels = np.array([300, 6000, 3000])
    return (np.random.default_rng(0).uniform(-1, 1, (2 * RATE, 3)) * levels).astype(np.int16)


@pytest.fixture
def clips(tmp_path, samples):
    """The same clip in every kind of storage."""
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(tmp_path / "a.wav", "a.wav")
    with tarfile.open(tmp_path / "b.tar") as archive:
        (member,) = archive
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["a"] = samples
        file["a"].attrs["sample_rate"] = RATE
    return {
        "wav": tmp_path / "a.wav", "flac": tmp_path / "a.flac",
        "tar": f"{tmp_path}/b.tar:{member.offset_data}:{member.size}",
        "hdf5": tmp_path / "c.h5" / "a", "array": locate_clip((samples.T, RATE)),
    }  # fmt: skip


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("storage", ["wav", "flac", "tar", "hdf5", "array"])
def test_read__one_signal_in_every_storage(clips, samples, storage, channels):
    clip = clips[storage]
    expected = mixed(samples, channels)
    for start, count in ((0, None), (5_000, 300)):
        found, rate = read_audio(clip, start, count, channels)
        assert rate == RATE
        np.testing.assert_array_equal(found, expected[start:][:count])
    blocks = [block for block, _ in read_blocks(clip, 1, channels)]
    np.testing.assert_array_equal(torch.cat(blocks), expected)
    front_end = FrontEnd(32, -4.0, 4.5, channels=channels)
    first = 20 * RATE // 100
    alone = front_end(torch.from_numpy(expected[first:]), RATE)
    assert torch.equal(read_window(clip, front_end, 20), alone)


def test_loudest__is_the_same_in_all_crops(tmp_path):
    """The first channel is loud at the start alone, the second one has more energy."""
    wave = np.zeros((40 * RATE, 2))
    wave[:RATE, 0] = 0.5
    wave[RATE:, 1] = 0.2
    soundfile.write(tmp_path / "long.flac", wave, RATE)
    soundfile.write(tmp_path / "short.flac", wave[: 20 * RATE], RATE)
    for name in ("long.flac", "short.flac"):
        for start, expected in ((0, 0.0), (2 * RATE, 0.2)):
            found, _ = read_audio(tmp_path / name, start, 100, "loudest")
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_loudest__a_long_clip_is_sampled(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.zeros((200 * 1000, 2), np.int16), 1000)
    with soundfile.SoundFile(tmp_path / "a.wav") as clip:
        read, counts = clip.read, []
        monkeypatch.setattr(clip, "read", lambda n, **o: counts.append(n) or read(n, **o))
        monkeypatch.setattr(module, "MOST_VALUES", 1200)
        assert module.choose_channel(clip, "loudest") == 0  # the first of equals
        assert (sum(counts), max(counts), clip.tell()) == (module.PIECES * 1000, 600, 0)


def test_channels__that_cancel_out_can_be_used(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, -wave], axis=1), RATE, subtype="FLOAT")
    assert not read_audio(tmp_path / "a.wav")[0].any()
    for channels in ("first", "loudest"):
        np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", channels=channels)[0], wave)


def test_front_end__refuses_unknown_channels():
    with pytest.raises(ValueError, match="task.channels is 'left'; choose one of mean, first, lou"):
        FrontEnd(32, 0.0, 1.0, channels="left")


def make_data(tmp_path, samples):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", samples, RATE)
    assert main(["manifest", f"{tmp_path}/audio", "--out", f"{tmp_path}/data"]) == 0
    return tmp_path / "data"


def test_cache_and_statistics__hold_the_channels_of_their_option(tmp_path, samples, capsys):
    data, cache = make_data(tmp_path, samples), tmp_path / "cache"
    assert main(["stats", str(data), "--channels", "loudest"]) == 0
    assert main(["cache", str(data), "--out", str(cache)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "stats.json was measured with channels=loudest, but channels=mean is asked for" in line
    assert f"run eat stats {data} --channels mean" in line
    assert main(["cache", str(data), "--out", str(cache), "--channels", "loudest"]) == 0
    assert (cache / "stats.json").read_text().count('"loudest"') == 1
    assert main(["stats", str(cache), "--channels", "loudest"]) == 0
    front_ends = {name: FrontEnd(32, -4.0, 4.5, channels=name) for name in CHANNELS}
    cached, files = (read_manifest(folder / "train.tsv") for folder in (cache, data))
    found, expected = (
        SpectrogramReader(manifest, front_ends["loudest"]).read(0, torch.Generator())
        for manifest in (cached, files)
    )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    # Another one is refused: at the start of training, of a command, and for a single clip.
    asked = r"was made with channels=loudest, but channels=mean is needed; make another cache with"
    for make in (SpectrogramReader, lambda *args: WindowsReader(*args, 3)):
        with pytest.raises(ValueError, match=asked):
            make(cached, front_ends["mean"])
    with pytest.raises(ValueError, match=asked):
        read_window(cached.entry(0), front_ends["mean"])
    for arguments in (["stats", str(cache)], ["cache", str(data), "--out", str(cache)]):
        (data / "stats.json").unlink(missing_ok=True)
        assert main(arguments) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "was made with channels=loudest, but channels=mean is needed" in line


def test_packed__has_the_same_signal(tmp_path, samples):
    manifest = read_manifest(make_data(tmp_path, samples) / "train.tsv")
    front_end = FrontEnd(32, -4.0, 4.5, channels="loudest")
    packed, expected = (
        kind(manifest, front_end).read(0, torch.Generator())
        for kind in (PackedReader, SpectrogramReader)
    )
    batch = PackedReader(manifest, front_end).collate([packed])["source"]
    assert torch.equal(compute_spectrograms(batch, front_end)[0], expected)


def test_locate_clip__keeps_the_channels_of_arrays(samples):
    entry = locate_clip((torch.from_numpy(samples.T.copy()), RATE))
    assert isinstance(entry, Entry)
    np.testing.assert_array_equal(read_audio(entry, channels="first")[0], mixed(samples, "first"))
