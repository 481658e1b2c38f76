"""Clips that keep their own length: measured lengths, sorting, batches."""

import numpy as np
import pytest
import soundfile
import torch
from fairseq.data.data_utils import batch_by_size, numpy_seed
from torch.utils.data import DataLoader

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.labels import read_labels, write_labels
from eat_plugin.data.lengths import (
    ClipLengths,
    measure_lengths,
    pad_clips,
    sample_lengths,
    sort_by_length,
)
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.reader import SpectrogramReader, WindowsReader
from eat_plugin.masking import MaskSpec
from eat_plugin.tasks.dataset import ClipDataset
from eat_plugin.tasks.labelled import LabelledDataset

RATE = 16000
FRONT_END = FrontEnd(64, -4.268, 4.569, patch=16)
SPEC = MaskSpec((4, 8), 0.8)
SECONDS = (0.3, 0.05, 2.0, 0.325, 0.5, 0.31, 0.16, 0.9)
COLUMNS = [2, 1, 4, 2, 3, 2, 1, 4]  # of 28, 3, 64, 31, 48, 29, 14 and 64 frames


def write_clips(folder, seconds, rate=RATE):
    rng = np.random.default_rng(0)
    entries = []
    for number, length in enumerate(seconds):
        wave = rng.uniform(-0.5, 0.5, int(length * rate))
        soundfile.write(folder / f"{number}.wav", wave, rate)
        entries.append((f"{number}.wav", len(wave)))
    write_manifest(folder / "train.tsv", folder, entries)
    return read_manifest(folder / "train.tsv")


@pytest.fixture
def manifest(tmp_path):
    return write_clips(tmp_path, SECONDS)


def make(manifest, front_end=FRONT_END, **options):
    reader = SpectrogramReader(manifest, front_end, crop="random")
    options = {"masks": SPEC, "num_masks": 3, **options}
    return ClipDataset(reader, **options)


def test_front_end__short_clip_keeps_its_length_in_patches():
    padded = FrontEnd(64, -4.268, 4.569)
    for frames, expected in ((1, 16), (16, 16), (17, 32), (63, 64), (64, 64), (80, 64)):
        energies = torch.randn(frames, 128)
        found = FRONT_END.finish(energies)
        assert found.shape == (1, expected, 128)
        assert torch.equal(found, padded.finish(energies)[:, :expected])
    with pytest.raises(ValueError, match="target_length is 60; it must be divisible by patch_size"):
        FrontEnd(60, 0, 1, patch=16)


def test_measure_lengths__equal_the_lengths_of_items(manifest):
    lengths = measure_lengths(manifest, FRONT_END)
    assert (lengths.frames // 16).tolist() == COLUMNS
    assert lengths.frames.dtype == np.int64
    dataset = make(manifest)
    for index, columns in enumerate(COLUMNS):
        assert dataset[index]["source"].shape == (1, 16 * columns, 128)
        assert dataset.num_tokens(index) == dataset.size(index) == 16 * columns
    assert dataset.num_tokens_vec(np.array([2, 1])).tolist() == [64, 16]


@pytest.mark.parametrize("rate", [8000, 44100])
def test_measure_lengths__use_each_clips_rate(tmp_path, rate):
    manifest = write_clips(tmp_path, SECONDS, rate)
    (tmp_path / "0.wav").unlink()  # an unreadable clip has no effect
    assert (measure_lengths(manifest, FRONT_END).frames // 16).tolist() == COLUMNS


def test_measure_lengths__clip_shorter_than_a_frame_is_one_patch(tmp_path):
    manifest = write_clips(tmp_path, (0.01, 0.3))
    assert measure_lengths(manifest, FRONT_END).frames.tolist() == [16, 32]


def test_item__masks_cover_the_clips_own_patches(manifest):
    for index, columns in enumerate(COLUMNS):
        mask = make(manifest)[index]["mask"]
        assert mask.shape == (3, 8 * columns)
        assert (mask == 0).sum(dim=1).tolist() == [int(8 * columns * (1 - 0.8))] * 3


def test_item__depends_on_seed_and_epoch_not_on_the_batch(manifest):
    one, two = make(manifest)[2], make(manifest)[2]
    assert torch.equal(one["source"], two["source"])
    assert one["noise_seed"] == two["noise_seed"]
    later = make(manifest)
    later.set_epoch(2)
    assert later[2]["noise_seed"] != one["noise_seed"]
    assert not torch.equal(later[2]["source"], one["source"])  # another part of a long clip
    assert not torch.equal(later[2]["mask"], one["mask"])


def test_item__too_short_clip_is_excluded(tmp_path):
    manifest = write_clips(tmp_path, (0.02, 0.05, 0.3))
    dataset = make(manifest)
    assert dataset[0]["skipped"][0].reason == "is shorter than one frame (25 ms)"
    few = make(manifest, masks=MaskSpec((4, 8), 0.9))  # 0.1 of 8 patches rounds to 0
    item = few[1]
    assert item["skipped"][0].reason.startswith("has 16 frames; mask_prob=0.9 needs 32")
    assert item["clip"] == 2
    assert item["source"].shape == (1, 32, 128)


def test_item__a_replacement_is_not_longer_than_the_clip(tmp_path):
    manifest = write_clips(tmp_path, (0.3, 2.0, 2.0, 2.0))
    (tmp_path / "0.wav").write_bytes(b"no audio")
    item = make(manifest)[0]
    assert item["clip"] != 0
    assert item["source"].shape == (1, 32, 128)
    assert item["mask"].shape == (3, 16)


def test_collater__pads_to_the_longest(manifest):
    dataset = make(manifest)
    items = [dataset[index] for index in (0, 2, 6)]
    net_input = dataset.collater(items)["net_input"]
    assert set(net_input) == {"source", "padding_mask", "precomputed_mask", "noise_seed"}
    assert net_input["source"].shape == (3, 1, 64, 128)
    assert net_input["padding_mask"].shape == (3, 32)
    assert net_input["noise_seed"] == [item["noise_seed"] for item in items]
    for row, (item, columns) in enumerate(zip(items, (2, 4, 1))):
        assert torch.equal(net_input["source"][row, :, : 16 * columns], item["source"])
        padding = net_input["padding_mask"][row]
        assert padding.tolist() == [False] * (8 * columns) + [True] * (32 - 8 * columns)
        masks = net_input["precomputed_mask"][3 * row : 3 * row + 3]
        assert torch.equal(masks[:, : 8 * columns], item["mask"])


def test_collater__equal_lengths_give_the_published_batch(manifest):
    reader = SpectrogramReader(manifest, FrontEnd(64, -4.268, 4.569), crop="random")
    plain = ClipDataset(reader, masks=SPEC, num_masks=3)
    own = make(manifest)
    batches = [d.collater([d[2], d[7]])["net_input"] for d in (own, plain)]
    seeds = [batch.pop("noise_seed") for batch in batches]
    assert isinstance(seeds[0], list)
    assert set(batches[0]) == set(batches[1]) == {"source", "precomputed_mask", "num_visible"}
    assert torch.equal(batches[0]["source"], batches[1]["source"])
    assert torch.equal(batches[0]["precomputed_mask"], batches[1]["precomputed_mask"])
    assert batches[0]["num_visible"] == batches[1]["num_visible"] == 6
    short = own.collater([own[0], own[3]])["net_input"]
    assert "padding_mask" not in short
    assert short["num_visible"] == 3


def test_pad_clips__any_patch_size():
    source, padding = pad_clips([torch.ones(2, 4, 6), torch.ones(2, 2, 6)], 2)
    assert source.shape == (2, 2, 4, 6)
    assert padding.tolist() == [[False] * 6, [False] * 3 + [True] * 3]


def order(lengths, seed, shuffle=True):
    with numpy_seed(seed):
        return sort_by_length(np.arange(len(lengths)), lengths, shuffle)


def test_sort_by_length__every_clip_once_similar_neighbours():
    lengths = np.random.default_rng(0).integers(1, 700, 500) * 16
    first = order(lengths, 1)
    assert sorted(first.tolist()) == list(range(500))
    assert np.array_equal(order(lengths, 1), first)
    assert not np.array_equal(order(lengths, 2), first)
    sorted_lengths = lengths[first]
    assert (np.maximum.accumulate(sorted_lengths) <= 1.1 * sorted_lengths).all()
    # Each epoch groups the clips differently.
    batches, others = (
        {frozenset(found[i : i + 10].tolist()) for i in range(0, 500, 10)}
        for found in (first, order(lengths, 2))
    )
    assert len(batches & others) < 5
    plain = order(lengths, 1, shuffle=False)
    assert np.array_equal(plain, np.argsort(lengths, kind="stable"))


def test_sort_by_length__equal_lengths_in_random_order():
    lengths = np.full(50, 64)
    assert sorted(order(lengths, 1).tolist()) == list(range(50))
    assert not np.array_equal(order(lengths, 1), order(lengths, 2))


@pytest.mark.parametrize(
    "limits", [{"max_tokens": 128}, {"max_sentences": 3}, {"max_tokens": 200, "max_sentences": 2}]
)
def test_batches__respect_the_limits(manifest, limits):
    dataset = make(manifest)
    with numpy_seed(3):
        indices = dataset.ordered_indices()
    batches = batch_by_size(indices, dataset.num_tokens, dataset.num_tokens_vec(indices), **limits)
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    for batch in batches:
        source = dataset.collater([dataset[index] for index in batch])["net_input"]["source"]
        assert len(batch) * source.size(2) <= limits.get("max_tokens", 10**6)
        assert len(batch) <= limits.get("max_sentences", 8)


def test_batches__same_for_any_number_of_workers(manifest):
    dataset = make(manifest)
    batches = [[0, 3, 5], [2, 7], [6, 1], [4]]

    def read(workers):
        dataset.set_epoch(2)
        return [
            batch["net_input"]
            for batch in DataLoader(
                dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=workers
            )
        ]

    first = read(0)
    for workers in (1, 2):
        for one, two in zip(first, read(workers)):
            assert one.keys() == two.keys()
            assert all(
                torch.equal(one[name], two[name]) for name in one if torch.is_tensor(one[name])
            )
            assert one["noise_seed"] == two["noise_seed"]


KINDS = LabelSet(("dog", "rain"))


def make_labelled(manifest, reader, **options):
    names = [manifest.name(index) for index in range(len(manifest))]
    path = manifest.root / "train.lbl"
    write_labels(path, names, [[KINDS.ids[index % 2]] for index in range(len(names))])
    labels = read_labels(path, KINDS, manifest, single_label=True)
    return LabelledDataset(reader, labels, **options)


def test_labelled__own_lengths(manifest):
    reader = SpectrogramReader(manifest, FRONT_END, crop="random", noise=True)
    lengths = reader.lengths
    dataset = make_labelled(manifest, reader)
    net_input = dataset.collater([dataset[0], dataset[4]])["net_input"]
    assert set(net_input) == {"imgs", "label", "padding_mask"}
    assert net_input["padding_mask"].sum(dim=1).tolist() == [8, 0]
    assert net_input["imgs"].shape == (2, 1, 48, 128)
    assert set(dataset.collater([dataset[2]])["net_input"]) == {"imgs", "label"}
    weighted = make_labelled(manifest, reader, weights=np.arange(8.0), num_samples=6)
    with numpy_seed(1):
        order = weighted.ordered_indices()
    assert len({*order.tolist()}) == 6
    assert (np.diff(lengths.frames[order]) >= 0).all()
    evaluated = make_labelled(manifest, reader, shuffle=False)
    assert evaluated.ordered_indices().tolist() == [1, 6, 0, 3, 5, 4, 2, 7]


def test_labelled__evaluation_windows(manifest):
    front_end = FrontEnd(64, -4.268, 4.569)
    dataset = make_labelled(manifest, WindowsReader(manifest, front_end, 3), shuffle=False)
    net_input = dataset.collater([dataset[2], dataset[0]])["net_input"]
    assert net_input["num_windows"] == [3, 1]
    assert net_input["imgs"].shape == (4, 1, 64, 128)
    assert net_input["label"].tolist() == [[1, 0], [1, 0]]
    wave, _ = soundfile.read(manifest.path(2), dtype="float32")
    starts = (0, 67, 134)  # of 198 frames
    for window, start in zip(net_input["imgs"], starts):
        expected = front_end(torch.from_numpy(wave[160 * start :]), RATE)
        torch.testing.assert_close(window, expected)
    plain = SpectrogramReader(manifest, front_end)
    torch.testing.assert_close(net_input["imgs"][3], plain.read(0, torch.Generator()))


def test_lengths__none_for_padded_clips(manifest):
    assert SpectrogramReader(manifest, FrontEnd(64, -4.268, 4.569)).lengths is None
    assert isinstance(SpectrogramReader(manifest, FRONT_END).lengths, ClipLengths)


def test_pad_clips__two_sides():
    source, padding = pad_clips([torch.ones(1, 8, 6), torch.ones(1, 4, 6)], 4, 3)
    assert source.shape == (2, 1, 8, 6)
    assert padding.tolist() == [[False] * 4, [False] * 2 + [True] * 2]


def test_sample_lengths__at_each_clip_s_own_rate(tmp_path):
    """One second at 8 and at 44.1 kHz, and a file that cannot be read."""
    for name, rate in (("a.wav", 8000), ("b.wav", 44100)):
        soundfile.write(tmp_path / name, np.zeros(rate), rate)
    (tmp_path / "c.wav").write_bytes(b"no sound")
    lines = [str(tmp_path), "a.wav\t8000", "b.wav\t44100", "c.wav\t999999"]
    (tmp_path / "train.tsv").write_text("\n".join(lines) + "\n")
    assert sample_lengths(read_manifest(tmp_path / "train.tsv")).tolist() == [16000, 16000]
    (tmp_path / "train.tsv").write_text("\n".join([lines[0], lines[3]]) + "\n")
    with pytest.raises(ValueError, match=r"none of 1 clips under .* can be read, such as c.wav"):
        sample_lengths(read_manifest(tmp_path / "train.tsv"))
