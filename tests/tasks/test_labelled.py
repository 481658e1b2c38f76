"""The labelled data set: labels, augmentation, balanced sampling."""

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.label_set import LabelSet
from eat_plugin.data.labels import read_labels, write_labels
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.tasks.dataset import make_generator
from eat_plugin.tasks.labelled import LabelledDataset

RATE = 16000
LENGTH = 5000  # samples, less than the window
FRONT_END = FrontEnd(32, -4.268, 4.569)
KINDS = LabelSet(("dog", "rain", "clock"))
LABELS = (["dog"], ["rain"], ["clock", "dog"], ["rain"], ["dog"])


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{number}.wav" for number in range(len(LABELS))]
    for name in names:
        soundfile.write(tmp_path / name, rng.uniform(-0.5, 0.5, LENGTH), RATE)
    write_manifest(tmp_path / "train.tsv", tmp_path, [(name, LENGTH) for name in names])
    write_labels(tmp_path / "train.lbl", names, LABELS)
    return tmp_path


def make(folder, roll_gain=False, noise=False, **options):
    manifest = read_manifest(folder / "train.tsv")
    labels = read_labels(folder / "train.lbl", KINDS, manifest, single_label=False)
    reader = SpectrogramReader(manifest, FRONT_END, roll_gain=roll_gain, noise=noise)
    return LabelledDataset(reader, labels, **options)


def test_collater__adds_labels(folder):
    dataset = make(folder)
    batch = dataset.collater([dataset[2], dataset[1]])
    assert batch["id"].tolist() == [2, 1]
    assert set(batch["net_input"]) == {"imgs", "label"}
    assert batch["net_input"]["imgs"].shape == (2, 1, 32, 128)
    assert batch["net_input"]["label"].tolist() == [[1, 0, 1], [0, 1, 0]]
    assert batch["net_input"]["label"].dtype == torch.float32
    assert batch["replaced"].tolist() == [False, False]
    assert dataset.collater([]) == {}


def test_collater__a_replacement_has_its_own_label(folder):
    (folder / "1.wav").write_bytes(b"no audio")
    dataset = make(folder)
    item = dataset[1]
    batch = dataset.collater([item, dataset[0]])
    assert batch["id"].tolist() == [1, 0]
    assert batch["replaced"].tolist() == [True, False]
    assert item["clip"] != 1
    expected = [float(kind in LABELS[item["clip"]]) for kind in KINDS.ids]
    assert batch["net_input"]["label"][0].tolist() == expected
    assert [clip.name for clip in batch["skipped"]] == ["1.wav"]


def test_item__without_augmentation_equals_the_front_end(folder):
    wave, rate = soundfile.read(folder / "3.wav", dtype="float32")
    expected = FRONT_END(torch.from_numpy(wave), rate)
    assert torch.allclose(make(folder)[3]["source"], expected, atol=1e-6)


@pytest.mark.parametrize("option", ["roll_gain", "noise"])
def test_item__augmentation_depends_on_seed_epoch_and_clip(folder, option):
    plain = make(folder)
    dataset, again = (make(folder, **{option: True}) for _ in range(2))
    first = dataset[3]["source"]
    assert not torch.equal(first, plain[3]["source"])
    assert torch.equal(first, again[3]["source"])
    again.set_epoch(2)
    assert not torch.equal(first, again[3]["source"])
    other_seed = make(folder, **{option: True}, seed=2)
    assert not torch.equal(first, other_seed[3]["source"])


def test_item__augmentation_equals_augment(folder):
    from eat_plugin.data.augment import add_noise, roll_and_gain

    wave, rate = soundfile.read(folder / "3.wav", dtype="float32")
    generator = make_generator(1, 1, 3)
    rolled = FRONT_END(roll_and_gain(torch.from_numpy(wave), generator), rate)
    expected = add_noise(rolled, generator)
    got = make(folder, roll_gain=True, noise=True)[3]["source"]
    assert torch.allclose(got, expected, atol=1e-6)


def test_ordered_indices__balanced_sampling(folder):
    weights = np.array([0.0, 3.0, 1.0, 0.0, 0.0])
    dataset = make(folder, weights=weights, num_samples=4000, replacement=True)
    np.random.seed(0)
    order = dataset.ordered_indices()
    assert len(order) == 4000
    counts = np.bincount(order % 5, minlength=5)
    assert len(np.unique(order)) == 4000
    assert order[order % 5 == 2].tolist() == [2 + 5 * n for n in range(counts[2])]
    assert counts[[0, 3, 4]].tolist() == [0, 0, 0]
    assert counts[1] / 4000 == pytest.approx(0.75, abs=0.03)


def test_item__draws_of_a_clip_differ(folder):
    dataset = make(folder, weights=np.ones(5), num_samples=15, replacement=True, noise=True)
    first, second = dataset[3], dataset[8]  # the second draw of clip 3
    assert first["id"] == second["id"] == second["clip"] == 3
    assert not torch.equal(first["source"], second["source"])
    assert torch.equal(second["source"], dataset[8]["source"])
    batch = dataset.collater(dataset.__getitems__([3, 8]))
    assert torch.equal(batch["net_input"]["label"][0], batch["net_input"]["label"][1])
    assert dataset.num_tokens(8) == dataset.num_tokens(3)


def test_ordered_indices__without_replacement_no_repeats(folder):
    dataset = make(folder, weights=np.arange(5.0), num_samples=4)
    np.random.seed(0)
    orders = [sorted(dataset.ordered_indices().tolist()) for _ in range(5)]
    assert orders == [[1, 2, 3, 4]] * 5


def test_ordered_indices__evaluation_has_every_clip_once(folder):
    dataset = make(folder, weights=np.arange(5.0), num_samples=2, shuffle=False)
    assert dataset.ordered_indices().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"weights": np.ones(4), "num_samples": 2}, "4 clips have weights, .* has 5"),
        ({"weights": np.ones(5), "num_samples": 0}, "task.num_samples is 0"),
        ({"weights": np.ones(5), "num_samples": 6}, "only 5 clips can be drawn"),
        ({"weights": np.array([1.0, 0, 0, 0, 1]), "num_samples": 3}, "only 2 clips can be drawn"),
    ],
)
def test_dataset__invalid_sampling_is_refused(folder, options, problem):
    with pytest.raises(ValueError, match=problem):
        make(folder, **options)


def test_dataset__labels_of_another_manifest_are_refused(folder):
    manifest = read_manifest(folder / "train.tsv")
    labels = read_labels(folder / "train.lbl", KINDS, manifest, single_label=False)
    entries = [(manifest.name(number), LENGTH) for number in range(3)]
    write_manifest(folder / "eval.tsv", folder, entries)
    with pytest.raises(ValueError, match="5 clips have labels; the manifest has 3"):
        LabelledDataset(SpectrogramReader(read_manifest(folder / "eval.tsv"), FRONT_END), labels)


def test_epoch_size__equals_the_number_of_drawn_clips(folder):
    assert make(folder).epoch_size == 5
    weighted = make(folder, weights=np.arange(5.0), num_samples=70, replacement=True)
    assert weighted.epoch_size == 70
