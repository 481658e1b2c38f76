"""The feature cache: entries, energies, errors."""

import json
import os
import pickle

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from eat_plugin.data import feature_cache as cache
from eat_plugin.data import kaldi as features
from eat_plugin.data import resampling
from eat_plugin.data.cache_settings import SettingsError, front_end_settings
from eat_plugin.data.clip import ClipError
from eat_plugin.data.clip_sample import measure_some
from eat_plugin.data.entries import Entry, Storage, locate, split_cached
from eat_plugin.data.feature_cache import read_cached
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.reader import SpectrogramReader, WindowsReader, read_window
from eat_plugin.data.sources import probe_clip
from eat_plugin.masking import MaskSpec
from eat_plugin.prepare import cache_folder
from eat_plugin.prepare.cache_shards import compute_energies, finish_all
from eat_plugin.prepare.measure import measure_all
from eat_plugin.tasks.dataset import ClipDataset

RATE = 16_000
FRONT_END = FrontEnd(32, -4.268, 4.569)
ROUNDING = 2**-8 + 2**-11  # half a step of float16 from 8 to 16, plus float32 rounding
# Seconds, rate and channels; the last is shorter than a frame and not in the cache.
CLIPS = ((0.2, RATE, 1), (3.0, RATE, 2), (1.0, 44_100, 1), (2.0, 8_000, 1), (0.02, RATE, 1))
CACHED = CLIPS[:-1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder and its cache."""
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("parent") / "cache"
    rng = np.random.default_rng(0)
    entries = []
    (data / "a b").mkdir()
    for number, (seconds, rate, channels) in enumerate(CLIPS):
        wave = rng.uniform(-0.5, 0.5, (round(seconds * rate), channels))
        soundfile.write(data / "a b" / f"{number}.wav", wave, rate, subtype="FLOAT")
        entries.append((f"a b/{number}.wav", len(wave)))
    write_manifest(data / "train.tsv", data, entries)
    make(data, out)
    return data, out


def make(data, out):
    for shards in cache_folder.plan_shards(out, data, ["train"]):
        list(finish_all(shards, 1))
        cache_folder.write_split(data, shards)


@pytest.fixture
def copied(made, tmp_path):
    """A copy of the cache, to be damaged."""
    for file in made[1].iterdir():
        content = file.read_bytes()
        if file.suffix == ".tsv":
            content = content.replace(str(made[1]).encode(), str(tmp_path).encode())
        (tmp_path / file.name).write_bytes(content)
    return tmp_path


def reader_of(folder, **options):
    return SpectrogramReader(read_manifest(folder / "train.tsv"), FRONT_END, **options)


def test_manifest__names_lengths_and_parts(made):
    _, out = made
    manifest = read_manifest(out / "train.tsv")
    assert manifest.root == out
    assert manifest.sizes.tolist() == [3200, 48_000, 16_000, 32_000]
    clips = [split_cached(manifest.name(index)) for index in range(len(manifest))]
    assert [clip.frames for clip in clips] == [18, 298, 98, 198]
    assert [clip.first for clip in clips] == [0, 18, 316, 414]
    assert [clip.name for clip in clips] == [f"a b/{number}.wav" for number in range(4)]
    assert (out / "train-00000.mel").stat().st_size == 612 * 256


def test_energies__equal_whole_clips_within_rounding(made):
    data, out = made
    manifest = read_manifest(out / "train.tsv")
    for index, (_, rate, _) in enumerate(CACHED):
        wave, _ = soundfile.read(data / "a b" / f"{index}.wav", dtype="float32", always_2d=True)
        wave = resampling.resample(torch.from_numpy(wave.mean(axis=1)), rate)
        expected = features.log_mel(wave)
        found = read_cached(manifest.entry(index), 0, 1000)
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_254, 44_100])
def test_compute_energies__clip_of_several_blocks(tmp_path, rate):
    samples = 31 * rate + 1234
    wave = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    length, rows = compute_energies(locate(tmp_path / "a.wav")._replace(size=samples))
    wave = resampling.resample(torch.from_numpy(wave), rate)
    assert length == len(wave)
    found = torch.frombuffer(bytearray(rows), dtype=torch.float16).view(-1, 128).float()
    expected = features.log_mel(wave)
    assert found.shape == expected.shape
    # At 8 kHz the upper bins are almost empty, which amplifies rounding errors.
    bins = slice(0, 100 if rate == 8_000 else 128)
    torch.testing.assert_close(found[:, bins], expected[:, bins], rtol=0, atol=ROUNDING)


def test_statistics__equal_those_of_audio(made):
    manifests = [read_manifest(folder / "train.tsv") for folder in made]
    one, other = (list(measure_all(manifest, 1)) for manifest in manifests)
    assert one.pop() == "is shorter than one frame (25 ms)"
    assert len(one) == len(other)
    for first, second in zip(one, other):
        assert first.count == second.count
        assert first.mean == pytest.approx(second.mean, abs=1e-3)
        assert first.std == pytest.approx(second.std, abs=1e-3)
    first, second = (measure_some(manifest, 5) for manifest in manifests)
    assert first.clips == second.clips == len(CACHED)
    # Parts of 10 s at most: all clips are measured whole.
    assert first.moments.count == second.moments.count
    assert first.moments.mean == pytest.approx(second.moments.mean, abs=1e-3)


def test_reader__start_equals_that_of_audio(made):
    generator = torch.Generator()
    for index in range(len(CACHED)):
        expected, found = (reader_of(folder).read(index, generator) for folder in made)
        assert found.shape == (1, 32, 128)
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING / (2 * 4.569))


def test_reader__random_start_comes_from_the_generator(made):
    data, out = made
    reader = reader_of(out, crop="random")
    wave, _ = soundfile.read(data / "a b" / "1.wav", dtype="float32")
    wave = torch.from_numpy(wave.mean(axis=1))
    starts = set()
    for seed in range(6):
        found = reader.read(1, torch.Generator().manual_seed(seed))
        start = int(torch.randint(298 - 32 + 1, (), generator=torch.Generator().manual_seed(seed)))
        expected = FRONT_END(wave[start * 160 :], RATE)
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING / (2 * 4.569))
        starts.add(start)
    assert len(starts) > 3
    generator = torch.Generator()
    before = generator.get_state()
    assert torch.equal(reader.read(0, generator), reader_of(out).read(0, generator))
    assert torch.equal(generator.get_state(), before)


def test_reader__random_reaches_the_first_and_the_last_frame(copied):
    reader = reader_of(copied, crop="random")
    reader.front_end = FrontEnd(297, 0.0, 0.5)
    whole = read_cached(reader.manifest.entry(1), 0, 298)
    seen = set()
    for seed in range(12):
        found = reader.read(1, torch.Generator().manual_seed(seed))[0]
        seen.update(start for start in (0, 1) if torch.equal(found, whole[start : start + 297]))
    assert seen == {0, 1}


def test_reader__accepts_noise_and_refuses_roll_gain(made):
    plain, noisy = (reader_of(made[1], noise=noise) for noise in (False, True))
    first, second = (reader.read(1, torch.Generator().manual_seed(3)) for reader in (plain, noisy))
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="task.roll_gain needs waveforms, and a cache holds s"):
        reader_of(made[1], roll_gain=True)
    reader_of(made[0], roll_gain=True)


def test_reader__own_lengths_and_spread_windows(made):
    patched = FrontEnd(320, -4.268, 4.569, patch=16)
    lengths, windows = [], []
    for folder in made:
        reader = SpectrogramReader(read_manifest(folder / "train.tsv"), patched)
        assert reader.read(3, torch.Generator()).shape == (1, 208, 128)
        windows.append(WindowsReader(reader.manifest, FRONT_END, 3).read(1, torch.Generator()))
        lengths.append(reader.lengths.frames.tolist())
    torch.testing.assert_close(*windows, rtol=0, atol=ROUNDING / (2 * 4.569))
    assert windows[0].shape == (3, 1, 32, 128)
    assert lengths[1] == [32, 304, 112, 208]  # exact; those of audio assume one rate


def test_window__equals_that_of_audio(made):
    data, out = made
    manifest = read_manifest(out / "train.tsv")
    for start in (0, 100, 290):  # the last one is cut off by the end
        found = read_window(manifest.entry(1), FRONT_END, start)
        expected = read_window(data / "a b" / "1.wav", FRONT_END, start)
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING / (2 * 4.569))
    assert probe_clip(manifest.path(1)) == (400 + 297 * 160, RATE)
    assert probe_clip(data / "a b" / "1.wav") == (48_000, RATE)
    with pytest.raises(ClipError, match="^is shorter than one frame .25 ms. from frame 298 on$"):
        read_window(manifest.path(1), FRONT_END, 298)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_dataset__same_in_other_processes(made, context):
    dataset = ClipDataset(
        reader_of(made[1], crop="random"), masks=MaskSpec((2, 8), 0.5, strategy="random")
    )
    expected = [dataset[index] for index in range(len(dataset))]  # maps the shard before the fork
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[1]["source"], expected[1]["source"])
    for workers in (1, 2):
        loader = DataLoader(
            dataset, batch_size=2, num_workers=workers, collate_fn=list,
            multiprocessing_context=context,
        )  # fmt: skip
        found = [item for batch in loader for item in batch]
        assert [item["id"] for item in found] == list(range(len(dataset)))
        for one, other in zip(found, expected):
            assert torch.equal(one["source"], other["source"])
            assert torch.equal(one["mask"], other["mask"])
        if context == "spawn":
            break


def test_reading__maps_a_shard_once(made, monkeypatch):
    cache._map_shard.cache_clear()
    opened = []
    memmap = np.memmap
    monkeypatch.setattr(np, "memmap", lambda *args: opened.append(args) or memmap(*args))
    reader = reader_of(made[1])
    for index in (0, 1, 2, 3, 1):
        reader.read(index, torch.Generator())
    assert len(opened) == 1


def change_record(folder, **changes):
    path = folder / "train-00000.json"
    record = json.loads(path.read_bytes())
    record.update(changes)
    path.write_text(json.dumps(record))
    stamp = path.with_suffix(".mel")
    os.utime(stamp, ns=(1, 1))  # a changed file is read again


@pytest.mark.parametrize("name", sorted(front_end_settings()))
def test_settings__error_names_a_different_front_end_option(copied, name):
    value = front_end_settings()[name]
    change_record(copied, settings={**front_end_settings(), name: value + 1})
    with pytest.raises(SettingsError) as caught:
        reader_of(copied)
    for part in (f"{copied}/train-00000.json", f"{name}={value + 1}", f"{name}={value};"):
        assert part in str(caught.value)
    manifest = read_manifest(copied / "train.tsv")
    with pytest.raises(SettingsError, match=name):
        read_window(manifest.path(0), FRONT_END)


@pytest.mark.parametrize(
    ("constant", "name"),
    [
        ("SAMPLE_RATE", "sample_rate"), ("FRAME_LENGTH", "frame_length"),
        ("FRAME_SHIFT", "frame_shift"), ("FFT_SIZE", "fft_size"), ("MEL_BINS", "mel_bins"),
        ("LOW_HZ", "low_hz"), ("HIGH_HZ", "high_hz"), ("PREEMPHASIS", "preemphasis"),
        ("ENERGY_FLOOR", "energy_floor"), ("ZERO_CROSSINGS", "resampler_zero_crossings"),
        ("ROLLOFF", "resampler_rolloff"),
    ],
)  # fmt: skip
def test_settings__list_every_front_end_option(monkeypatch, constant, name):
    module = features if hasattr(features, constant) else resampling
    monkeypatch.setattr(module, constant, 12345)
    assert front_end_settings()[name] == 12345


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 3}', "null", "[" * 9999])
def test_record__an_invalid_one_is_refused(copied, content):
    (copied / "train-00000.json").write_text(content)
    os.utime(copied / "train-00000.mel", ns=(2, 2))
    clip = read_manifest(copied / "train.tsv").entry(0)
    with pytest.raises(ClipError, match=r"train-00000\.json"):
        read_cached(clip, 0, 10)


def test_record__inconsistent_lengths_are_refused(copied):
    change_record(copied, samples=[3200, 48_000, 16_000, 32_160, None])
    with pytest.raises(ClipError, match=r"train-00000\.json: the lengths of its clips do not add"):
        reader_of(copied).read(0, torch.Generator())


@pytest.mark.parametrize("patch", [0, 16])
def test_reader__refuses_clips_shorter_than_a_frame(made, copied, patch):
    front_end = FrontEnd(32, -4.268, 4.569, patch=patch)
    # Caches of earlier versions have such clips, of 0 frames.
    write_manifest(copied / "train.tsv", copied, [("train-00000.mel:612:0/a b/4.wav", 320)])
    for folder, index in ((made[0], 4), (copied, 0)):
        reader = SpectrogramReader(read_manifest(folder / "train.tsv"), front_end)
        with pytest.raises(ClipError, match="^is shorter than one frame .25 ms.$"):
            reader.read(index, torch.Generator())


def test_shard__missing_truncated_or_replaced(copied):
    path = copied / "train-00000.mel"
    reader = reader_of(copied)
    reader.read(1, torch.Generator())
    whole = path.read_bytes()
    path.write_bytes(whole[:-256])  # while it is mapped
    with pytest.raises(ClipError, match=r"train-00000\.mel has 156416 bytes instead of 156672"):
        reader.read(1, torch.Generator())
    path.unlink()
    with pytest.raises(ClipError, match=r"train-00000\.mel cannot be opened: No such file"):
        reader.read(1, torch.Generator())
    assert len(reader_of(copied).manifest) == 4  # one shard: errors name single clips
    path.write_bytes(whole)
    assert reader.read(1, torch.Generator()).shape == (1, 32, 128)
    (copied / "train-00000.json").unlink()
    os.utime(path, ns=(3, 3))
    with pytest.raises(ClipError, match=r"no record: .*train-00000\.json"):
        reader.read(1, torch.Generator())


def test_entry__outside_its_shard_is_refused(copied):
    shard = copied / "train-00000.mel"

    def entry(frames, samples=None):
        return Entry(f"{shard}:600:{frames}/a.wav", Storage.CACHE, samples)

    with pytest.raises(ClipError, match="is outside of its shard, frames 600 to 613 of 612"):
        read_cached(entry(13), 0, 5)
    assert len(read_cached(entry(12), 0, 50)) == 12
    with pytest.raises(ClipError, match="has 12 frames, but 2000 samples were expected"):
        read_cached(entry(12, 2000), 0, 5)
    assert len(read_cached(entry(12, 400 + 11 * 160), 3, 5)) == 5
