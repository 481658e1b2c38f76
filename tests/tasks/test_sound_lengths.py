"""``task.length``: the data of each policy, and invalid options."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf

from eat_plugin.inputs.sound import check_patches
from eat_plugin.tasks.classification import ClassificationConfig, EatClassificationTask
from eat_plugin.tasks.pretraining import EatPretrainingTask, MaskConfig, PretrainingConfig

RATE = 16000
MASKS = {
    "patch_size": 16, "mask_prob": 0.8, "mask_prob_adjust": 0.07, "mask_length": 5,
    "inverse_mask": True, "mask_strategy": None, "mask_dropout": 0.0, "clone_batch": 4,
}  # fmt: skip


@pytest.fixture
def make_task(tmp_path):
    """A task of either kind on three clips: 0.3, 1.5 and 3 s."""
    entries, labels = [], []
    (tmp_path / "audio").mkdir()
    for number, seconds in enumerate((0.3, 1.5, 3.0)):
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, int(seconds * RATE))
        soundfile.write(tmp_path / "audio" / f"{number}.wav", wave, RATE)
        entries.append(f"{number}.wav\t{len(wave)}\n")
        labels.append(f"{number}.wav\t{'ab'[number % 2]}\n")
    shutil.copytree(tmp_path / "audio", tmp_path / "held_out")
    for split, folder in (("train", "audio"), ("eval", "held_out")):
        (tmp_path / f"{split}.tsv").write_text(f"{tmp_path / folder}\n{''.join(entries)}")
        (tmp_path / f"{split}.lbl").write_text("".join(labels))
    (tmp_path / "label_descriptors.csv").write_text("0,a,Alpha\n1,b,Beta\n")

    def make(kind, **options):
        options = {"target_length": 128, "patch_size": 16, **options}
        if kind == "pretraining":
            cfg = OmegaConf.structured(PretrainingConfig(data=str(tmp_path), seed=1))
            cfg.precompute_mask_config = OmegaConf.merge(OmegaConf.structured(MaskConfig()), MASKS)
            return EatPretrainingTask(OmegaConf.merge(cfg, options))
        cfg = OmegaConf.structured(ClassificationConfig(data=str(tmp_path), seed=1))
        return EatClassificationTask(OmegaConf.merge(cfg, {"single_label": True, **options}))

    return make


def load(task, split):
    task.load_dataset(split)
    return task.dataset(split)


KINDS = pytest.mark.parametrize("kind", ["pretraining", "classification"])


@KINDS
def test_length__pad_is_the_default(make_task, kind):
    task = make_task(kind)
    assert task.cfg.length == "pad"
    assert task.front_end.patch == 0
    for split in ("train", "eval"):
        dataset = load(task, split)
        assert dataset.lengths is None
        assert [dataset[index]["source"].shape[1] for index in range(3)] == [128] * 3
    assert make_task(kind, patch_size=48).front_end.patch == 0  # has no effect


@KINDS
def test_length__mask_keeps_lengths_and_crops_in_training_only(make_task, kind):
    task = make_task(kind, length="mask")
    assert task.front_end.patch == 16
    windows = {}
    for split in ("train", "eval"):
        dataset = load(task, split)
        assert dataset.lengths.frames.tolist() == [32, 128, 128]
        assert [dataset[index]["source"].shape[1] for index in range(3)] == [32, 128, 128]
        windows[split] = [dataset[2]["source"]]
        dataset.set_epoch(2)
        windows[split].append(dataset[2]["source"])
    assert not torch.equal(*windows["train"])
    assert torch.equal(*windows["eval"])
    start = load(make_task(kind), "eval")[2]["source"]
    assert torch.equal(windows["eval"][0], start)


@KINDS
def test_length__crop_takes_a_random_window_in_training(make_task, kind):
    task = make_task(kind, length="crop")
    train = load(task, "train")
    assert train.lengths is None
    first = train[2]["source"]
    assert first.shape == (1, 128, 128)
    assert torch.equal(first, load(make_task(kind, crop="random"), "train")[2]["source"])
    train.set_epoch(2)
    assert not torch.equal(train[2]["source"], first)
    expected = {"pretraining": (1, 128, 128), "classification": (3, 1, 128, 128)}[kind]
    assert load(task, "eval")[2]["source"].shape == expected


def test_length__crop_evaluates_the_set_number_of_windows(make_task):
    dataset = load(make_task("classification", length="crop", eval_windows=5), "eval")
    assert [len(dataset[index]["source"]) for index in range(3)] == [1, 5, 5]


@KINDS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": "cut"}, "task.length is 'cut'; choose one of pad, mask, crop"),
        ({"length": "mask", "target_length": 100}, "target_length is 100; .* by patch_size=16"),
        ({"length": "mask", "images": {}}, "task.length is mask, which is for sound"),
    ],
)
def test_length__invalid_options_are_refused_at_start(make_task, kind, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(kind, **options)


def test_eval_windows__at_least_one(make_task):
    with pytest.raises(ValueError, match="task.eval_windows is 0; it must be 1 or more"):
        make_task("classification", length="crop", eval_windows=0)


def test_check_patches__model_and_task_must_agree(make_task):
    class Patches(torch.nn.Module):
        cfg = OmegaConf.create({"patch_size": 8})

    model = torch.nn.Module()
    model.patch_encoder = Patches()
    classifier = torch.nn.Module()
    classifier.model = model
    check_patches(model, make_task("pretraining").front_end)
    front_end = make_task("pretraining", length="mask").front_end
    for found in (model, classifier):
        with pytest.raises(ValueError, match="task.patch_size is 16, .*: set that to 8"):
            check_patches(found, front_end)
    check_patches(classifier, make_task("pretraining", length="mask", patch_size=8).front_end)


@pytest.mark.parametrize(("sides", "columns"), [([4, 128], [7, 32]), ([8, 32], [4, 16])])
def test_length__mask_with_two_sides(make_task, sides, columns):
    task = make_task("classification", length="mask", patch_size=sides)
    bands = 128 // sides[1]
    assert (task.front_end.patch, task.front_end.patch_bins) == tuple(sides)
    dataset = load(task, "eval")
    assert dataset.lengths.frames.tolist() == [sides[0] * columns[0], 128, 128]
    batch = dataset.collater([dataset[0], dataset[1]])["net_input"]
    padding = batch["padding_mask"]
    assert padding.shape == (2, columns[1] * bands)
    assert torch.logical_not(padding).sum(dim=1).tolist() == [n * bands for n in columns]
    assert bool(padding[0, columns[0] * bands :].all())


def test_check_patches__both_sides_must_agree(make_task):
    model = torch.nn.Module()
    model.patch_encoder = torch.nn.Module()
    model.patch_encoder.cfg = OmegaConf.create({"patch_size": [4, 128]})
    check_patches(model, make_task("pretraining", length="mask", patch_size=[4, 128]).front_end)
    front_end = make_task("pretraining", length="mask", patch_size=[4, 64]).front_end
    message = (
        r"task.patch_size is \[4, 64\], but the model's patches have 4 frames and 128 mel bins; "
        r".*: set that to \[4, 128\]"
    )
    with pytest.raises(ValueError, match=message):
        check_patches(model, front_end)
    with pytest.raises(ValueError, match=r"^task.patch_size is \[4\.5, 8\]; give one positive"):
        make_task("pretraining", length="mask", patch_size=[4.5, 8])
