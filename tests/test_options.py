"""The sides of a patch, from each form in which the option comes."""

import pytest
from omegaconf import OmegaConf

from eat_plugin.models.config import EatConfig, decoder_kernel, validate_config
from eat_plugin.options import patch_sides, read_patch_size


@pytest.mark.parametrize(
    ("given", "sides"),
    [
        (16, (16, 16)), ([16], (16, 16)), ([4, 128], (4, 128)), ((8, 32), (8, 32)),
        (OmegaConf.create([4, 128]), (4, 128)),
    ],
)  # fmt: skip
def test_patch_sides__of_one_or_two_numbers(given, sides):
    assert patch_sides(given) == sides


@pytest.mark.parametrize(
    "given", [0, -1, [4, 0], [], [4, 8, 16], "16", "4,128", 16.0, [4.0, 128], True, None, {"a": 1}]
)
def test_patch_sides__refuses_others(given):
    with pytest.raises(ValueError, match=r"^task.patch_size is .*; give one positive integer, or"):
        patch_sides(given, "task.patch_size")


@pytest.mark.parametrize(
    ("text", "value"), [("16", 16), ("4,128", [4, 128]), ("[4, 128]", [4, 128])]
)
def test_read_patch_size__keeps_one_number_as_it_is(text, value):
    assert read_patch_size(text) == value


def make_config(**image):
    cfg = OmegaConf.structured(EatConfig())
    fixed = {"in_chans": 1, "prenet_depth": 0, "target_length": 1024}
    return OmegaConf.merge(cfg, {"modalities": {"image": {**fixed, **image}}, "seed": 1})


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"patch_size": [4, 48]}, r"patch_size is \[4, 48\]; its mel side must divide the 128 mel"),
        ({"patch_size": [24, 128]}, r"target_length is 1024; .* divisible by .*=\[24, 128\]"),
        ({"patch_size": [4, 128], "max_length": 255}, "ends at max_length=255 patches of 4 frames"),
        ({"patch_size": [4, 8, 16]}, r"image.patch_size is \[4, 8, 16\]; give one positive"),
        ({"patch_size": [8, 16], "in_chans": 3, "input_size": 24}, "input_size is 24; .*divisible"),
        (
            {"patch_size": [16, 8], "image_size": [24, 24]},
            r"image_size is \[24, 24\]; it must be divisible by .*=\[16, 8\]",
        ),
    ],
)
def test_validate_config__names_the_side_that_does_not_fit(image, message):
    with pytest.raises(ValueError, match=message):
        validate_config(make_config(**image))


@pytest.mark.parametrize(
    "image",
    [
        {"patch_size": [4, 128], "max_length": 256}, {"patch_size": [8, 32]},
        {"patch_size": [8, 16], "in_chans": 3, "image_size": [24, 32]},
    ],
)  # fmt: skip
def test_validate_config__takes_two_sides(image):
    validate_config(make_config(**image))


@pytest.mark.parametrize(
    ("image", "kernel", "sides"),
    [
        ({"patch_size": [4, 128]}, 5, (5, 1)),
        ({"patch_size": [8, 64]}, 5, (5, 3)),
        ({"patch_size": [8, 32]}, 5, (5, 5)),
        ({"patch_size": [8, 32]}, 8, (8, 7)),
        ({"patch_size": [8, 64]}, 2, (2, 2)),
        ({"patch_size": 128}, 5, (5, 5)),  # as published
        ({"patch_size": [64, 64]}, 5, (5, 5)),
        ({"patch_size": [4, 32], "image_size": [64, 32]}, 5, (5, 5)),
    ],
)
def test_decoder_kernel__ends_at_the_last_band(image, kernel, sides):
    options = make_config(**image, decoder={"decoder_kernel": kernel}).modalities.image
    assert decoder_kernel(options) == sides
