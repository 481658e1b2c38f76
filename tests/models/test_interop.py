"""Checkpoints: accepted and refused files, and error messages."""

import pickle

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from eat_plugin.models.encoder import EatEncoder
from eat_plugin.models.interop import encoder_config, load_encoder, read_checkpoint, read_encoder
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


def test_encoder_config__resolves_all_interpolations():
    image = {"in_chans": 1, "prenet_depth": 0, "num_extra_tokens": 1}
    cfg = encoder_config({"modalities": {"image": image}, "encoder_dropout": 0.1}, layerdrop=0.2)
    options = OmegaConf.to_container(cfg, resolve=True)
    assert "${" not in str(OmegaConf.to_container(cfg, resolve=False))
    assert options["skip_ema"] is True
    assert options["layerdrop"] == 0.2
    assert options["encoder_dropout"] == 0.1


@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"depth": "deep"}])
def test_encoder_config__refuses_unknown_options(options):
    with pytest.raises(ValueError, match=f"options cannot be used: .*{next(iter(options))}|deep"):
        encoder_config(options)
