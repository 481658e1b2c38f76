"""Images: crops, normalisation, dependence on the generator alone."""

import sys

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.images.image_reader import ImageFrontEnd, ImageReader, centre_crop, draw_crop
from eat_plugin.tasks.dataset import ClipDataset, make_generator

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "eval_crop": 1.0}


def colours(rows):
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def noise(height, width, seed):
    return colours(np.random.default_rng(seed).integers(0, 256, (height, width, 3)))


# ---- Crops ---------------------------------------------------------------------------------


def draw_many(size, shape, scale, ratio, number=2000):
    generator = make_generator(0)
    boxes = np.array([draw_crop(size, shape, scale, ratio, generator) for _ in range(number)])
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes, sides[:, 0] * sides[:, 1] / (size[0] * size[1]), sides[:, 0] / sides[:, 1]


def test_draw_crop__distribution_of_area_shape_and_position():
    boxes, areas, shapes = draw_many((1000, 1000), 1.0, (0.1, 0.3), (0.5, 2.0))
    assert boxes.min() >= 0
    assert boxes.max() <= 1000
    assert 0.099 < areas.min() < 0.11
    assert 0.29 < areas.max() < 0.301
    assert abs(areas.mean() - 0.2) < 0.01  # uniform
    assert 0.49 < shapes.min() < 0.52
    assert 1.95 < shapes.max() < 2.02
    assert abs(np.log(shapes).mean()) < 0.04  # its logarithm is uniform
    assert abs(boxes[:, [0, 2]].mean() - 500) < 15
    assert boxes[:, 0].min() < 10


def test_draw_crop__every_position_is_drawn():
    boxes, _, _ = draw_many((10, 20), 1.0, (0.125, 0.125), (1.0, 1.0))  # 5 x 5 pixels
    assert set(boxes[:, 0]) == set(range(6))
    assert set(boxes[:, 1]) == set(range(16))


def test_draw_crop__shape_is_relative_to_the_output():
    _, _, shapes = draw_many((1000, 1000), 2.0, (0.1, 0.2), (1.0, 1.0))
    assert np.allclose(shapes, 2.0, atol=0.02)


@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [
        ((100, 50), 1.0, (25, 0, 75, 50)),  # the largest allowed width, centred
        ((50, 100), 1.0, (0, 25, 50, 75)),
        ((64, 128), 0.5, (0, 0, 64, 128)),
        ((1, 1), 1.0, (0, 0, 1, 1)),
    ],
)
def test_draw_crop__centre_if_no_draw_fits(size, shape, expected):
    assert draw_crop(size, shape, (1.0, 1.0), (1.0, 1.0), make_generator(0)) == expected


def test_draw_crop__draws_equally_many_numbers_per_image():
    states = []
    for size in ((100, 100), (1000, 3)):
        generator = make_generator(3)
        draw_crop(size, 1.0, (0.2, 1.0), (0.75, 4 / 3), generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


@pytest.mark.parametrize(
    ("size", "shape", "share", "expected"),
    [
        ((256, 256), 1.0, 0.875, (16, 16, 240, 240)),
        ((400, 256), 1.0, 0.875, (88, 16, 312, 240)),
        ((128, 512), 0.5, 1.0, (0, 128, 128, 384)),
    ],
)
def test_centre_crop__hand_computed(size, shape, share, expected):
    assert centre_crop(size, shape, share) == pytest.approx(expected)


# ---- The front end -------------------------------------------------------------------------


def test_front_end__normalises_each_channel(tmp_path):
    colours([[(0, 51, 255)]]).save(tmp_path / "a.png")
    front_end = ImageFrontEnd((1, 1), mean=(0.5, 0.1, 0.0), std=(0.25, 0.5, 2.0))
    found = front_end(tmp_path / "a.png")
    assert found.shape == (3, 1, 1)
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([-2.0, 0.2, 0.5])


def test_front_end__height_comes_before_width(tmp_path):
    colours([[RED, GREEN], [BLUE, WHITE], [RED, RED]]).save(tmp_path / "a.png")
    found = ImageFrontEnd((3, 2), **PLAIN)(tmp_path / "a.png")
    assert found[:, 1, 0].tolist() == [0, 0, 1]
    assert found[:, 0, 1].tolist() == [0, 1, 0]
    assert ImageFrontEnd((32, 16), **PLAIN)(tmp_path / "a.png").shape == (3, 32, 16)


def test_front_end__evaluation_crops_the_centre_without_draws(tmp_path):
    image = np.zeros((8, 12, 3), dtype=np.uint8)
    image[2:6, 4:8] = 255
    colours(image).save(tmp_path / "a.png")
    found = ImageFrontEnd((4, 4), **{**PLAIN, "eval_crop": 0.5})(tmp_path / "a.png")
    assert torch.allclose(found, torch.ones(3, 4, 4), atol=0.2)  # bicubic exceeds the crop
    assert found[:, 1:3, 1:3].min() == 1


def test_front_end__flip_is_random(tmp_path):
    colours([[RED, BLUE]]).save(tmp_path / "a.png")
    options = {"size": (1, 2), "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), **PLAIN}
    for flip, expected in ((0.0, {0.0}), (1.0, {1.0}), (0.5, {0.0, 1.0})):
        front_end = ImageFrontEnd(**options, flip=flip)
        read = (front_end(tmp_path / "a.png", make_generator(n)) for n in range(12))
        assert {float(image[2, 0, 0]) for image in read} == expected


OPTIONS = [
    ({"size": (224,)}, r"size is \[224\]; it needs height and width"),
    ({"size": (0, 224)}, r"size is \[0, 224\]; it must be 1 pixel or more"),
    ({"channels": 2}, "channels is 2; choose 1"),
    ({"channels": 1}, r"mean is \[0.485, 0.456, 0.406\]; it needs one for each of channels=1"),
    ({"std": (1.0,)}, r"std is \[1.0\]; it needs one for each of channels=3"),
    ({"std": (0.0, 1.0, 1.0)}, "std is .* above 0"),
    ({"mean": (float("nan"),) * 3}, "mean is .* finite"),
    ({"crop_scale": (0.5, 0.2)}, r"crop_scale is \[0.5, 0.2\]; it must be 0 < least"),
    ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
    ({"crop_ratio": (0.0, 1.0)}, "crop_ratio"),
    ({"flip": 1.5}, "flip is 1.5; it must be a probability"),
    ({"eval_crop": 0.0}, "eval_crop is 0.0"),
    ({"max_pixels": 200_000_000}, "max_pixels is 200000000; it must be from 1 to 178956970"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=[str(o) for o, _ in OPTIONS])
def test_front_end__invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"task.images.{message}"):
        ImageFrontEnd(**options)


# ---- Manifest, data set --------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        noise(20, 30 + number, number).save(tmp_path / f"{number}.png")
    entries = [(f"{number}.png", 20 * (30 + number)) for number in range(5)]
    write_manifest(tmp_path / "train.tsv", tmp_path, [*entries, ("bad.png", 9), ("dog.wav", 9)])
    (tmp_path / "bad.png").write_bytes(b"bad")
    (tmp_path / "dog.wav").write_bytes((tmp_path / "0.png").read_bytes())
    return tmp_path


def make(folder, augment=True):
    manifest = read_manifest(folder / "train.tsv")
    reader = ImageReader(manifest, ImageFrontEnd((8, 16)), augment=augment)
    return ClipDataset(reader, seed=3)


def test_reader__crops_depend_on_seed_epoch_and_index(folder):
    dataset = make(folder)
    first = dataset[1]["source"]
    assert first.shape == (3, 8, 16)
    assert dataset.num_tokens(1) == 8
    assert torch.equal(make(folder)[1]["source"], first)
    dataset.set_epoch(2)
    assert not torch.equal(dataset[1]["source"], first)


def test_reader__without_augmentation_epochs_are_equal(folder):
    dataset = make(folder, augment=False)
    first = dataset[1]["source"]
    dataset.set_epoch(2)
    assert torch.equal(dataset[1]["source"], first)
    assert torch.equal(ImageFrontEnd((8, 16))(folder / "1.png"), first)


def test_reader__replaces_damaged_images_and_sound(folder):
    dataset = make(folder)
    for index, name, reason in (
        (5, "bad.png", "is not a PNG, JPEG or WebP image"),
        (6, "dog.wav", "is not an image by the ending of its name; expected one of png, jpg"),
    ):
        item = dataset[index]
        assert item["skipped"][0].name == name
        assert reason in item["skipped"][0].reason
        assert item["source"].shape == (3, 8, 16)


def test_reader__missing_pillow_is_an_error_at_start(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ValueError, match="images need Pillow"):
        make(folder)


def test_audio_reader__replaces_images(folder):
    soundfile.write(folder / "dog.wav", np.zeros(16000), 16000)
    write_manifest(folder / "train.tsv", folder, [("0.png", 600), ("dog.wav", 16000)])
    reader = SpectrogramReader(read_manifest(folder / "train.tsv"), FrontEnd(32, -4.0, 4.5))
    (skipped, *_) = ClipDataset(reader, seed=3)[0]["skipped"]
    assert skipped.name == "0.png"
    assert skipped.reason == "is an image by the ending of its name; images need task.images"
