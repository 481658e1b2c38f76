"""The data set: windows, masks, randomness, damaged clips."""

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.masking import MaskSpec
from eat_plugin.tasks.dataset import ClipDataset, make_generator

RATE = 16000
FRONT_END = FrontEnd(32, -4.268, 4.569)
SPEC = MaskSpec((2, 8), 0.5, strategy="random")
SECONDS = (0.2, 1.0, 2.0, 0.5, 1.5, 3.0)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    entries = []
    for number, seconds in enumerate(SECONDS):
        wave = rng.uniform(-0.5, 0.5, (int(seconds * RATE), 1 + number % 2))
        name = f"clip {number}.wav"
        soundfile.write(tmp_path / name, wave, RATE)
        entries.append((name, len(wave)))
    write_manifest(tmp_path / "train.tsv", tmp_path, entries)
    return tmp_path


def make(folder, crop="start", **options):
    options = {"masks": SPEC, "num_masks": 3, **options}
    manifest = read_manifest(folder / "train.tsv")
    return ClipDataset(SpectrogramReader(manifest, FRONT_END, crop=crop), **options)


def same(a, b):
    return torch.equal(a["source"], b["source"]) and torch.equal(a["mask"], b["mask"])


def test_item__shapes_and_kinds(folder):
    item = make(folder)[2]
    assert item["id"] == 2
    assert item["source"].shape == (1, 32, 128)
    assert item["source"].dtype == torch.float32
    assert item["mask"].shape == (3, 16)
    assert item["skipped"] == []


def test_item__equals_the_front_end_on_the_whole_file(folder):
    for index in range(len(SECONDS)):
        wave, rate = soundfile.read(folder / f"clip {index}.wav", dtype="float32", always_2d=True)
        expected = FRONT_END(torch.from_numpy(wave.mean(axis=1)), rate)
        assert torch.allclose(make(folder)[index]["source"], expected, atol=1e-5)


def test_crop__random_window_lies_within_the_clip(folder):
    dataset = make(folder, crop="random")
    wave, _ = soundfile.read(folder / "clip 2.wav", dtype="float32")
    windows = []
    for epoch in range(1, 5):
        dataset.set_epoch(epoch)
        windows.append(dataset[2]["source"])
        needed = FRONT_END.needed_samples(RATE)
        start = int(
            torch.randint(len(wave) - needed + 1, (), generator=make_generator(1, epoch, 2))
        )
        expected = FRONT_END(torch.from_numpy(wave[start : start + needed]), RATE)
        assert torch.allclose(windows[-1], expected, atol=1e-5)
    assert not any(torch.equal(windows[0], other) for other in windows[1:])
    assert torch.equal(dataset[0]["source"], make(folder)[0]["source"])  # short: padded


def test_crop__start_is_the_same_in_every_epoch(folder):
    dataset = make(folder)
    first = dataset[5]
    dataset.set_epoch(2)
    assert torch.equal(first["source"], dataset[5]["source"])
    assert not torch.equal(first["mask"], dataset[5]["mask"])


def test_randomness__depends_on_seed_epoch_and_index_only(folder):
    first, again, other = (make(folder, crop="random", seed=seed) for seed in (1, 1, 2))
    assert same(first[2], again[2])
    torch.manual_seed(99)
    [first[index] for index in range(6)]
    assert same(first[2], again[2])
    assert not same(first[2], other[2])
    again.set_epoch(2)
    assert not same(first[2], again[2])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers__same_batches_in_every_epoch(folder, num_workers):
    dataset = make(folder, crop="random")

    def loader(workers):
        return DataLoader(
            dataset,
            batch_size=2,
            collate_fn=dataset.collater,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    plain, parallel = loader(0), loader(num_workers)
    for epoch in (1, 2):
        dataset.set_epoch(epoch)  # persistent workers must see it
        for a, b in zip(plain, parallel):
            assert torch.equal(a["net_input"]["source"], b["net_input"]["source"])
            assert torch.equal(
                a["net_input"]["precomputed_mask"], b["net_input"]["precomputed_mask"]
            )
            assert a["net_input"]["noise_seed"] == b["net_input"]["noise_seed"]


def test_collater__rows_are_clips_times_clones(folder):
    dataset = make(folder)
    items = [dataset[4], dataset[1]]
    batch = dataset.collater(items)
    assert batch["id"].tolist() == [4, 1]
    net_input = batch["net_input"]
    assert net_input["source"].shape == (2, 1, 32, 128)
    assert net_input["precomputed_mask"].shape == (6, 16)
    assert torch.equal(net_input["precomputed_mask"][3], items[1]["mask"][0])
    assert net_input["num_visible"] == 8
    assert dataset.collater([]) == {}
    assert set(make(folder, masks=None).collater([make(folder, masks=None)[0]])["net_input"]) == {
        "source"
    }


def test_collater__noise_differs_between_batches_and_epochs(folder):
    dataset = make(folder)
    items = [dataset[index] for index in range(4)]
    seeds = {dataset.collater(items[i : i + 2])["net_input"]["noise_seed"] for i in range(3)}
    dataset.set_epoch(2)
    seeds.add(dataset.collater(items[:2])["net_input"]["noise_seed"])
    assert len(seeds) == 4


def test_damaged_clip__is_replaced_and_named(folder):
    (folder / "clip 1.wav").write_bytes(b"no audio at all")
    dataset = make(folder, crop="random")
    item = dataset[1]
    assert item["id"] == 1
    assert [clip.name for clip in item["skipped"]] == ["clip 1.wav"]
    assert item["skipped"][0].reason
    assert item["source"].isfinite().all()
    assert same(item, make(folder, crop="random")[1])
    batch = dataset.collater([dataset[0], item])
    assert batch["skipped"] == item["skipped"]


def test_damaged_clip__wrong_length_missing_or_not_finite(folder):
    (folder / "clip 0.wav").unlink()
    wave = np.full(RATE, np.nan, dtype=np.float32)
    soundfile.write(folder / "clip 1.wav", wave, RATE, subtype="FLOAT")
    soundfile.write(folder / "clip 2.wav", wave[:100] * 0, RATE)
    dataset = make(folder)
    reasons = [dataset[index]["skipped"][0].reason for index in range(3)]
    assert "no such file" in reasons[0].lower() or "does not exist" in reasons[0].lower()
    assert "finite" in reasons[1]
    assert "100 samples, but 32000 were expected" in reasons[2]


def test_damaged_clip__all_damaged_is_an_error(folder):
    for file in folder.glob("*.wav"):
        file.write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"100 clips in a row .* the first is 'clip 3.wav'"):
        make(folder)[3]


def test_order__depends_on_fairseqs_seed(folder):
    dataset = make(folder)
    np.random.seed(5)
    first = dataset.ordered_indices().tolist()
    np.random.seed(5)
    assert dataset.ordered_indices().tolist() == first
    assert sorted(first) == list(range(6))
    assert make(folder, shuffle=False).ordered_indices().tolist() == list(range(6))
    assert dataset.num_tokens(0) == dataset.size(0) == 32
    assert dataset.num_tokens_vec(np.arange(2)).tolist() == [32, 32]


def test_crop__unknown_value_is_refused(folder):
    with pytest.raises(ValueError, match=r"task.crop is 'middle'; choose one of start, random"):
        make(folder, crop="middle")
