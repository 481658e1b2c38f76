"""Models of images: square and other grids, one channel and three."""

import pytest
import torch
from omegaconf import OmegaConf

from eat_plugin.losses import normalize_patches
from eat_plugin.models.config import validate_config
from eat_plugin.models.encoder import EatEncoder
from eat_plugin.models.interop import PretrainedEncoder, load_encoder
from eat_plugin.modules.patches import patchify, sincos_positions
from eat_plugin.sections import plain

IMAGE = {"modalities__image__mask_length": 2, "recon_loss": 1.0}


@pytest.fixture
def make_image_model(make_model):
    def make(channels, size, patch=16, **changes):
        return make_model(
            modalities__image__in_chans=channels, modalities__image__image_size=size,
            modalities__image__patch_size=patch, **IMAGE, **changes,
        )  # fmt: skip

    return make


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "patch"), [([64, 64], 16), ([96, 48], 16), ([24, 40], 8)])
def test_pretrain__grids_and_channels(make_image_model, channels, size, patch):
    model = make_image_model(channels, size, patch).train()
    assert model.image_shape == (channels, *size)
    grid = (size[0] // patch, size[1] // patch)
    source = torch.randn(2, channels, *size, dtype=torch.float64)
    output = model(source=source)
    assert set(output["losses"]) == {"cls", "regression", "recon"}
    hidden = output["sample_size"]
    assert output["losses"]["recon"].shape == (hidden, channels * patch * patch)
    sum(loss.sum() for loss in output["losses"].values()).backward()
    assert model.patch_encoder.local_encoder.proj.weight.grad.abs().sum() > 0
    table = model.patch_encoder.fixed_positional_encoder.positions[0]
    assert torch.allclose(table.double(), sincos_positions(*grid, 32).double())


def test_pretrain__positions_encode_rows_and_columns(make_image_model):
    model = make_image_model(3, [32, 64]).eval()
    source = torch.zeros(1, 3, 32, 64, dtype=torch.float64)
    tokens = model.patch_encoder.embed(source)[0] - model.patch_encoder.local_features(source)[0]
    # Row-major: tokens 0 to 3 are the first row; the first half of the width encodes the column.
    assert torch.allclose(tokens[1, :16], tokens[5, :16])
    assert torch.allclose(tokens[1, 16:], tokens[2, 16:])
    assert not torch.allclose(tokens[1, :16], tokens[2, :16])


def test_recon__targets_are_the_pixels_of_all_channels(make_image_model):
    model = make_image_model(3, [32, 64]).train()
    torch.nn.init.zeros_(model.recon_proj.weight)
    source = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    masks = torch.tensor([[1, 1, 1, 1, 0, 1, 1, 1]] * 3, dtype=torch.uint8)
    found = model(source=source, precomputed_mask=masks)["losses"]["recon"]
    first = source[0, :, :16, 16:32].permute(1, 2, 0).flatten()  # row, column, channel
    first = (first - first.mean()) / (first.var() + 1e-6).sqrt()
    assert torch.allclose(found[1], first.square() / (16 * 16 * 3) ** 0.5)
    values = normalize_patches(patchify(source, 16))[0]
    assert torch.allclose(found[4], values[5].square() / (16 * 16 * 3) ** 0.5)


@pytest.mark.parametrize("shape", [(3, 64, 32), (1, 32, 64), (3, 32, 128), (3, 48, 64)])
def test_forward__refuses_other_images(make_image_model, shape):
    model = make_image_model(3, [32, 64])
    source = torch.zeros(1, *shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"expected images \[B, 3, 32, 64\]"):
        model(source=source)


def test_image_shape__is_none_for_spectrograms(make_model):
    assert make_model().image_shape is None


def test_classifier__image_size_differs_from_pre_training(make_classifier):
    options = {"image": {"in_chans": 3, "image_size": [64, 64], "patch_size": 16}}
    model = make_classifier(modalities=options, image_size=[48, 32]).eval()
    assert model.model.image_shape == (3, 48, 32)
    assert model(torch.zeros(2, 3, 48, 32, dtype=torch.float64)).shape == (2, 3)
    kept = make_classifier(modalities=options)
    assert kept.model.image_shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": [64, 60]}, r"image_size is \[64, 60\]; it must be divisible by .*=16"),
        ({"image_size": [64]}, r"image_size is \[64\]; it needs height and width"),
        ({"image_size": [0, 64]}, r"image_size is \[0, 64\]"),
        ({"image_size": [64, 64], "mel_by_time": True}, "mel_by_time is True; it is for spectro"),
        ({"image_size": None, "input_size": 60, "in_chans": 3}, "input_size is 60; .* divisible"),
    ],
)
def test_validate_config__images(make_model, options, message):
    cfg = OmegaConf.merge(make_model().cfg, {"modalities": {"image": options}})
    with pytest.raises(ValueError, match=message):
        validate_config(cfg)


def test_validate_config__ignores_spectrogram_options_for_images(make_model):
    options = {"image_size": [48, 72], "patch_size": 24, "target_length": 1000, "max_length": 1}
    validate_config(OmegaConf.merge(make_model().cfg, {"modalities": {"image": options}}))


def test_load_encoder__positions_of_another_grid_of_as_many_patches(make_image_model):
    models = [make_image_model(3, size) for size in ([64, 256], [128, 128])]
    wide, square = (EatEncoder(model.cfg) for model in models)
    (name,) = (n for n in square.state_dict() if n.endswith("positions"))
    own = square.state_dict()[name].clone()
    before = wide.state_dict()
    load_encoder(square, PretrainedEncoder("wide.pt", plain(wide.cfg), None, before))
    assert before[name].shape == own.shape
    assert not torch.equal(before[name], own)
    assert torch.equal(square.state_dict()[name], own)
    weight = "blocks.0.mlp.fc1.weight"
    assert torch.equal(square.state_dict()[weight], before[weight])
