"""Checkpoints: accepted and refused files, and error messages."""

import pickle

import numpy as np
import pytest
import torch

from eat_plugin.models.encoder import EatEncoder
from eat_plugin.models.interop import (
    encoder_config,
    fold_normalisation,
    load_encoder,
    read_checkpoint,
    read_encoder,
)
from eat_plugin.sections import plain
from tests.versions import numpy_numbers


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemError('executed')",))


@numpy_numbers
def test_read_checkpoint__plain_data_and_numpy_numbers(tmp_path):
    state = {"cfg": {"model": {"depth": 1}}, "model": {"w": torch.ones(2)}}
    path = tmp_path / "good.pt"
    torch.save({**state, "best": np.float64(0.5), "flag": np.bool_(True)}, path)
    read = read_checkpoint(path)
    assert read["best"] == 0.5
    assert torch.equal(read["model"]["w"], torch.ones(2))


def test_read_checkpoint__refuses_objects_without_creating_them(tmp_path):
    path = tmp_path / "bomb.pt"
    torch.save({"cfg": {"model": {}}, "model": {}, "extra": Bomb()}, path)
    with pytest.raises(ValueError, match=r"bomb.pt holds Python objects.*if you trust it"):
        read_checkpoint(path)


def write_text(path):
    path.write_text("not a checkpoint")


def write_nothing(path):
    path.write_bytes(b"")


def write_cut_pickle(path):
    path.write_bytes(pickle.dumps({"model": 1, "cfg": 2}, protocol=2)[:10])


def write_pickle(path):
    path.write_bytes(pickle.dumps({"cfg": 1}))


def write_wav(path):
    path.write_bytes(b"RIFF" + bytes(100))


def write_truncated(path):
    torch.save({"cfg": {"model": {}}, "model": {"w": torch.ones(1000)}}, path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (write_text, "is not a PyTorch checkpoint"),
        (write_nothing, "is damaged: it is empty; copy it again"),
        (write_wav, "is not a PyTorch checkpoint"),
        (write_truncated, "is damaged: it is cut off"),
        (write_pickle, "is not a (PyTorch|fairseq) checkpoint"),
        (write_cut_pickle, "is not a PyTorch checkpoint"),
        (lambda path: torch.save([1], path), "no entry 'model'"),
        (lambda path: torch.save({"model": {}}, path), "it has no 'cfg'"),
        (lambda path: torch.save({"model": {}, "cfg": {"model": None}}, path), "it has no 'cfg'"),
        (lambda path: path.mkdir(), "is a folder"),
    ],
)
def test_read_checkpoint__refuses_other_files(tmp_path, write, problem):
    path = tmp_path / "bad.pt"
    write(path)
    with pytest.raises(ValueError, match=rf"bad\.pt.*{problem}|bad\.pt {problem}"):
        read_checkpoint(path)


def test_read_checkpoint__missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pt")


def test_read_encoder__refuses_other_models(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"cfg": {"model": {"_name": "wav2vec2"}}, "model": {}}, path)
    with pytest.raises(ValueError, match=r"other.pt holds a model 'wav2vec2'; expected .* EAT"):
        read_encoder(path)


@pytest.mark.parametrize("name", ["ckpt_pretrain_tiny.pt", "ckpt_finetune_tiny.pt"])
def test_read_encoder__published_checkpoints(shared, name):
    pretrained = read_encoder(shared / "golden" / name)
    encoder = EatEncoder(encoder_config(pretrained.model))
    load_encoder(encoder, pretrained)
    assert pretrained.task["_name"] == "mae_image_pretraining"
    weight = encoder.blocks[1].mlp.fc2.weight
    assert torch.equal(weight, pretrained.state["blocks.1.mlp.fc2.weight"])


MEANS, DEVIATIONS = tuple(np.linspace(-9, -4, 128)), tuple(np.linspace(2, 5, 128))
PROJECTION = "modality_encoders.IMAGE.local_encoder.proj"


def embedding(*patch):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 1, *patch, generator=generator, dtype=torch.float64)
    bias = torch.randn(8, generator=generator, dtype=torch.float64)
    return {f"{PROJECTION}.weight": weight, f"{PROJECTION}.bias": bias}


def embed(weights, energies, mean, std):
    """The patch embedding of energies [B, 1, T, 128] with their normalisation, in float64."""
    mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in (mean, std))
    weight, bias = (weights[f"{PROJECTION}.{name}"].double() for name in ("weight", "bias"))
    inputs = (energies - mean) / (2 * std)
    return torch.nn.functional.conv2d(inputs, weight, bias, stride=weight.shape[2:])


@pytest.mark.parametrize(
    ("patch", "own", "other"),
    [
        ((4, 128), (MEANS, DEVIATIONS), (-4.268, 4.569)),
        ((4, 128), (-4.268, 4.569), (MEANS, DEVIATIONS)),
        ((4, 128), (MEANS, DEVIATIONS), (MEANS[::-1], DEVIATIONS[::-1])),
        ((16, 16), (-5.0, 4.0), (-4.268, 4.569)),
    ],
)
def test_fold_normalisation__gives_the_same_tokens(patch, own, other, monkeypatch):
    energies = torch.randn(2, 1, 16, 128, dtype=torch.float64) * 4 - 5
    energies[:, :, 12:] = 0.0  # padding
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # no rounding
    weights = {**embedding(*patch), "_ema": embedding(*patch), "head.weight": torch.ones(1)}
    folded = fold_normalisation(weights, own, other)
    for before, after in ((weights, folded), (weights["_ema"], folded["_ema"])):
        expected, found = embed(before, energies, *own), embed(after, energies, *other)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert folded["head.weight"] is weights["head.weight"]


def test_fold_normalisation__of_all_bins_is_as_before():
    weights = {name: value.float() for name, value in embedding(16, 16).items()}
    folded = fold_normalisation(weights, (-5.0, 4.0), (-4.268, 4.569))
    kernel = weights[f"{PROJECTION}.weight"].double()
    shift = kernel.sum(dim=(1, 2, 3)) * ((-4.268 + 5.0) / 8.0)
    expected = (weights[f"{PROJECTION}.bias"].double() + shift).float()
    assert torch.equal(folded[f"{PROJECTION}.bias"], expected)
    assert torch.equal(folded[f"{PROJECTION}.weight"], (kernel * (4.569 / 4.0)).float())


@pytest.mark.parametrize("patch", [(16, 16), (8, 32)])
def test_fold_normalisation__of_each_bin_needs_patches_over_all(patch):
    message = f"folded into patches over all 128 mel bins, and those of this model have {patch[1]}"
    with pytest.raises(ValueError, match=message):
        fold_normalisation(embedding(*patch), (MEANS, DEVIATIONS), (-4.268, 4.569))


def test_encoder_config__resolves_all_interpolations():
    image = {"in_chans": 1, "prenet_depth": 0, "num_extra_tokens": 1}
    cfg = encoder_config({"modalities": {"image": image}, "encoder_dropout": 0.1}, layerdrop=0.2)
    options = plain(cfg)
    assert "${" not in str(options)
    assert options["modalities"]["image"]["num_alibi_heads"] == 12  # follows model.num_heads
    assert options["skip_ema"] is True
    assert options["layerdrop"] == 0.2
    assert options["encoder_dropout"] == 0.1


@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"depth": "deep"}])
def test_encoder_config__refuses_unknown_options(options):
    with pytest.raises(ValueError, match=f"options cannot be used: .*{next(iter(options))}|deep"):
        encoder_config(options)
