"""Tasks on images: the grid of the masks, errors at start."""

import pytest
from omegaconf import OmegaConf
from PIL import Image

from eat_plugin.images.image_reader import ImageFrontEnd
from eat_plugin.inputs.images import ImagesConfig, check_model, make_image_front_end
from eat_plugin.tasks.classification import ClassificationConfig, EatClassificationTask
from eat_plugin.tasks.pretraining import EatPretrainingTask, MaskConfig, PretrainingConfig

MASKS = {
    "patch_size": 16, "mask_prob": 0.8, "mask_prob_adjust": 0.07, "mask_length": 3,
    "inverse_mask": True, "mask_strategy": None, "mask_dropout": 0.0, "clone_batch": 4,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "eval"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (40, 30)).save(tmp_path / split / "a.png")
        (tmp_path / f"{split}.tsv").write_text(f"{tmp_path / split}\na.png\t1200\n")
    return tmp_path


@pytest.fixture
def make_task(folder):
    def make(images, **options):
        cfg = OmegaConf.structured(PretrainingConfig(data=str(folder), seed=1, patch_size=16))
        masks = OmegaConf.merge(OmegaConf.structured(MaskConfig()), MASKS)
        return EatPretrainingTask(
            OmegaConf.merge(cfg, {"precompute_mask_config": masks, "images": images, **options})
        )

    return make


def test_images_config__agrees_with_the_front_end():
    cfg = OmegaConf.structured(PretrainingConfig(data="", seed=1, patch_size=16))
    assert make_image_front_end(cfg) is None
    assert make_image_front_end(OmegaConf.merge(cfg, {"images": {}})) == ImageFrontEnd()
    assert ImagesConfig() == ImagesConfig()
    assert ImagesConfig().size is not ImagesConfig().size


def test_load_dataset__masks_cover_the_image(make_task):
    task = make_task({"size": [32, 80]})
    for split in ("train", "eval"):
        task.load_dataset(split)
    dataset = task.dataset("train")
    assert dataset.masks.grid == (2, 5)
    assert dataset[0]["source"].shape == (3, 32, 80)
    assert dataset[0]["mask"].shape == (4, 10)
    assert dataset.reader.augment
    assert not task.dataset("eval").reader.augment


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ({"size": [32, 40]}, {}, r"task.images.size is \[32, 40\]; .* divisible by patch_size=16"),
        ({"channels": 1}, {}, "task.images.mean .* channels=1"),
        ({}, {"crop": "random"}, "task.crop is random, which is for sound, .* leave it at start"),
        ({}, {"pad_value": "silence"}, "task.pad_value is silence, which is for sound"),
        ({}, {"length": "mask"}, "task.length is mask, which is for sound"),
        (None, {}, r"train.tsv:2: 'a.png' is an image by .*; images need task.images"),
    ],
)
def test_task__invalid_options_are_refused_at_start(make_task, images, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(images, **options).load_dataset("train")


def test_task__sound_is_refused_at_start(make_task, folder):
    (folder / "train.tsv").write_text(f"{folder}\ndog.wav\t1200\n")
    with pytest.raises(ValueError, match=r"train.tsv:2: 'dog.wav' is not an image by .* --images"):
        make_task({}).load_dataset("train")


@pytest.mark.parametrize("option", ["roll_gain", "noise"])
def test_classification__augmentations_of_sound_are_refused(option):
    options = {"images": {}, option: True}
    cfg = OmegaConf.structured(ClassificationConfig(data="", seed=1, patch_size=16))
    with pytest.raises(ValueError, match=f"task.{option} is True, which is for sound"):
        EatClassificationTask(OmegaConf.merge(cfg, options))


class Takes:
    def __init__(self, shape):
        self.image_shape = shape


@pytest.mark.parametrize(
    ("shape", "images", "message"),
    [
        ((1, 224, 224), ImageFrontEnd(), "images of 3 channels, .* takes images of 1 channel, 224"),
        ((3, 224, 128), ImageFrontEnd(), "224x224 pixels .* takes images of 3 channels, 224x128"),
        (None, ImageFrontEnd(), "images of 3 channels, 224x224 pixels .* the model takes sound"),
        ((3, 224, 224), None, "the data are sound .* the model takes images of 3 channels"),
    ],
)
def test_check_model__error_names_the_difference(shape, images, message):
    with pytest.raises(ValueError, match=message):
        check_model(Takes(shape), images)


def test_check_model__accepts_a_matching_model():
    check_model(Takes((3, 224, 224)), ImageFrontEnd())
    check_model(Takes(None), None)
