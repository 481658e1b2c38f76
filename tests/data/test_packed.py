"""Packed samples: exact, compact, with the same spectrograms as from the workers."""

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from eat_plugin.data.clip import ClipError
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.packed import (
    PackedClip,
    PackedReader,
    compute_spectrograms,
    join_clips,
    pack_waveform,
)
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.masking import MaskSpec
from eat_plugin.prepare import cache_folder
from eat_plugin.prepare.cache_shards import finish_all
from eat_plugin.tasks.dataset import ClipDataset, make_generator
from tests.reading import read_audio

FRONT_END = FrontEnd(32, -4.268, 4.569)
MASKS = MaskSpec((2, 8), 0.5, strategy="random")
# Seconds, rate, channels, level, coding. The fifth is a frame, and one sample.
CLIPS = (
    (2.0, 16_000, 1, 0.5, "PCM_16"),
    (1.5, 16_000, 2, 0.5, "PCM_16"),
    (1.0, 8_000, 1, 0.5, "PCM_16"),
    (2.0, 44_100, 1, 0.5, "PCM_24"),
    (401 / 16_000, 16_000, 1, 0.5, "PCM_16"),
    (0.2, 32_000, 1, 0.5, "FLOAT"),
    (1.0, 16_000, 1, 0.0, "PCM_16"),
    (1.0, 22_254, 1, 0.5, "PCM_16"),
    (2.5, 16_000, 1, 0.5, "PCM_16"),
)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    entries = []
    for number, (seconds, rate, channels, level, coding) in enumerate(CLIPS):
        wave = level * rng.uniform(-1, 1, (round(seconds * rate), channels))
        soundfile.write(tmp_path / f"{number}.wav", wave, rate, subtype=coding)
        entries.append((f"{number}.wav", len(wave)))
    write_manifest(tmp_path / "train.tsv", tmp_path, entries)
    return tmp_path


def make(folder, kind, **options):
    reader = kind(read_manifest(folder / "train.tsv"), FRONT_END, **options)
    return ClipDataset(reader, masks=MASKS, num_masks=3)


def batches(dataset, epoch, size=4, workers=0):
    """The batches of an epoch in the order of the manifest; the last one is smaller."""
    dataset.set_epoch(epoch)
    return list(DataLoader(dataset, size, collate_fn=dataset.collater, num_workers=workers))


def source_of(batch):
    return compute_spectrograms(batch["net_input"]["source"], FRONT_END)


@pytest.mark.parametrize(
    "samples",
    [[0.0, -1.0, 32767 / 32768], [1 / 32768, -1 / 32768], [-0.0]],
)
def test_pack_waveform__16_bits_if_exact(samples):
    waveform = torch.tensor(samples)
    packed = pack_waveform(waveform)
    assert packed.dtype == torch.int16
    assert packed.tolist() == [round(32768 * sample) for sample in samples]


@pytest.mark.parametrize(
    "samples", [[0.0, 1.0], [0.5 / 32768], [0.1], [2.0], [65536.0, 0.5], [-1e10]]
)
def test_pack_waveform__other_samples_are_exact(samples):
    waveform = torch.tensor(samples)
    packed = pack_waveform(waveform)
    assert packed.dtype == torch.int32
    assert torch.equal(packed.view(torch.float32), waveform)


def test_pack_waveform__part_of_a_wider_array():
    stereo = torch.rand(5, 2)
    assert torch.equal(pack_waveform(stereo[:, 1]).view(torch.float32), stereo[:, 1])


def test_reader__sends_the_samples_of_the_window(folder):
    reader = make(folder, PackedReader).reader
    assert reader.num_frames == 32
    sent = [reader.read(number, torch.Generator()) for number in range(len(CLIPS))]
    assert [clip.sample_rate for clip in sent] == [rate for _, rate, *_ in CLIPS]
    for number, (clip, (seconds, rate, *_)) in enumerate(zip(sent, CLIPS)):
        needed = FRONT_END.needed_samples(rate)
        assert len(clip.values) == min(round(seconds * rate), needed)
        exact = number not in (1, 3, 5)  # stereo, 24 bits, floating point
        assert clip.values.dtype == (torch.int16 if exact else torch.int32)
    waveform, _ = read_audio(folder / "0.wav")
    assert torch.equal(sent[0].values / 32768, waveform[: len(sent[0].values)])


@pytest.mark.parametrize("kind", [SpectrogramReader, PackedReader])
@pytest.mark.parametrize(("rate", "samples"), [(16_000, 399), (8_000, 199), (44_100, 1_099)])
def test_reader__a_clip_shorter_than_a_frame_is_replaced(folder, kind, rate, samples):
    soundfile.write(folder / "4.wav", np.zeros(samples), rate)
    write_manifest(folder / "train.tsv", folder, [("0.wav", 32_000), ("4.wav", samples)])
    skipped, *_ = make(folder, kind)[1]["skipped"]
    assert skipped == ("4.wav", "is shorter than one frame (25 ms)")
    soundfile.write(folder / "4.wav", np.zeros(samples + 3), rate)
    write_manifest(folder / "train.tsv", folder, [("0.wav", 32_000), ("4.wav", samples + 3)])
    assert make(folder, kind)[1]["skipped"] == []


def test_join_clips__groups_similar_clips():
    long, short = torch.arange(3, dtype=torch.int16), torch.arange(2, dtype=torch.int16)
    clips = [
        PackedClip(long, 16_000), PackedClip(short, 16_000), PackedClip(long, 8_000),
        PackedClip(short + 1, 16_000), PackedClip(long.int(), 16_000), PackedClip(long, 16_000),
    ]  # fmt: skip
    batch = join_clips(clips)
    found = [(group["values"].tolist(), group["sample_rate"]) for group in batch["groups"]]
    assert found == [
        ([[0, 1, 2], [0, 1, 2]], 16_000), ([[0, 1], [1, 2]], 16_000), ([[0, 1, 2]], 8_000),
        ([[0, 1, 2]], 16_000),
    ]  # fmt: skip
    assert batch["order"].tolist() == [0, 2, 4, 3, 5, 1]
    alike = join_clips(clips[1::2][:2])
    assert len(alike["groups"]) == 1
    assert alike["order"] is None


@pytest.mark.parametrize("options", [{}, {"crop": "random"}, {"crop": "random", "roll_gain": True}])
def test_epochs__equal_the_batches_of_spectrograms(folder, options):
    (folder / "6.wav").write_bytes(b"no audio")
    pair = [make(folder, kind, **options) for kind in (SpectrogramReader, PackedReader)]
    sources = []
    for epoch in (1, 2):
        expected, found = (batches(dataset, epoch) for dataset in pair)
        assert [len(batch["id"]) for batch in found] == [4, 4, 1]
        for one, other in zip(expected, found):
            assert torch.equal(source_of(other), one["net_input"].pop("source"))
            sources.append(source_of(other))
            del other["net_input"]["source"]
            assert torch.equal(
                one["net_input"].pop("precomputed_mask"), other["net_input"].pop("precomputed_mask")
            )
            assert one["net_input"] == other["net_input"]
            assert one["skipped"] == other["skipped"]
        assert [clip.name for batch in found for clip in batch["skipped"]] == ["6.wav"]
    moved = not torch.equal(sources[0], sources[3])
    assert moved == (options != {})


def test_epochs__same_with_workers(folder):
    dataset = make(folder, PackedReader, crop="random")
    for one, other in zip(batches(dataset, 3), batches(dataset, 3, workers=2)):
        assert torch.equal(source_of(one), source_of(other))


def test_batch__has_integer_tensors_only(folder):
    def tensors(value):
        if isinstance(value, dict):
            return [tensor for part in value.values() for tensor in tensors(part)]
        if isinstance(value, list):
            return [tensor for part in value for tensor in tensors(part)]
        return [value] if torch.is_tensor(value) else []

    found = [
        tensor.dtype
        for batch in batches(make(folder, PackedReader), 1)
        for tensor in tensors(batch["net_input"]["source"])
    ]
    assert set(found) == {torch.int16, torch.int32, torch.int64}


def test_compute__normalises_each_bin(folder):
    means, deviations = np.linspace(-9, -4, 128), np.linspace(2, 5, 128)
    front_end = FrontEnd(32, tuple(means), tuple(deviations))
    clips = [make(folder, PackedReader)[number]["source"] for number in (0, 3)]
    found = compute_spectrograms(join_clips(clips), front_end)
    reader = SpectrogramReader(read_manifest(folder / "train.tsv"), front_end)
    expected = [reader.read(number, torch.Generator()) for number in (0, 3)]
    assert torch.equal(found, torch.stack(expected))
    energies = compute_spectrograms(join_clips(clips), FrontEnd(32, 0.0, 0.5)).numpy()
    np.testing.assert_allclose(found, (energies - means) / (2 * deviations), atol=1e-5)


def test_compute__one_clip_and_many(folder):
    dataset = make(folder, PackedReader)
    clips = [dataset[number]["source"] for number in (0, 8, 2, 0)]
    together = compute_spectrograms(join_clips(clips), FRONT_END)
    assert together.shape == (4, 1, 32, 128)
    for clip, spectrogram in zip(clips, together):
        assert torch.equal(compute_spectrograms(join_clips([clip]), FRONT_END)[0], spectrogram)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_254, 32_000, 44_100])
def test_compute__float64_input_equals_float32(rate):
    noise = torch.randn(2, rate, generator=make_generator(0)) / 10
    expected = torch.stack([FRONT_END(waveform, rate) for waveform in noise])
    found = FRONT_END.finish(FRONT_END.batch_energies(noise.double(), rate))
    assert found.dtype == torch.float64
    assert (found - expected).abs().max() < 2e-4


def test_cache__sends_stored_energies(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("parent") / "cache"
    for shards in cache_folder.plan_shards(out, folder, ["train"]):
        list(finish_all(shards, 1))
        cache_folder.write_split(folder, shards)
    expected, found = (
        batches(make(out, kind, crop="random"), 1) for kind in (SpectrogramReader, PackedReader)
    )
    for one, other in zip(expected, found):
        groups = other["net_input"]["source"]["groups"]
        assert {group["values"].dtype for group in groups} == {torch.float16}
        assert {group["sample_rate"] for group in groups} == {0}
        assert torch.equal(source_of(other), one["net_input"]["source"])


def test_reader__error_names_images(folder):
    write_manifest(folder / "train.tsv", folder, [("a.png", 100)])
    with pytest.raises(ClipError, match="is an image"):
        make(folder, PackedReader).reader.read(0, torch.Generator())


def test_reader__options_are_checked(folder):
    with pytest.raises(ValueError, match="task.crop is 'end'"):
        make(folder, PackedReader, crop="end")
