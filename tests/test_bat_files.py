"""Published checkpoints of BAT: both layouts give the encoder; others are refused."""

import pytest
import torch

from eat_plugin.bat_files import IMAGE, NAMES
from eat_plugin.checkpoint_files import read_data
from eat_plugin.inference import load_checkpoint
from eat_plugin.models.classifier import EatClassifier
from eat_plugin.models.classifier_config import EatClassifierConfig, PredictionMode
from eat_plugin.models.eat import EatModel
from eat_plugin.models.interop import encoder_config
from eat_plugin.safetensors_files import write_safetensors


@pytest.fixture(scope="module")
def encoder():
    """An encoder of a head's width, and a table of positions of its own."""
    torch.manual_seed(0)
    image = {
        "in_chans": 1, "prenet_depth": 0, "num_extra_tokens": 1, "embed_dim": 64, "max_length": 4,
        "target_length": 64, "positions": "published",
    }  # fmt: skip
    options = {"depth": 2, "embed_dim": 64, "num_heads": 1, "average_top_k_layers": 2}
    options.update(attention_gate=True, modalities={"image": image})
    model = EatModel(encoder_config(options)).eval()
    torch.nn.init.normal_(model.patch_encoder.fixed_positional_encoder.positions)
    return model


@pytest.fixture(scope="module")
def weights(encoder):
    """Its weights by the published names."""
    theirs = {own: name for name, own in NAMES.items()}
    return {theirs.get(name, name): value for name, value in encoder.state_dict().items()}


def flat(weights, prefix):
    return {f"{prefix}{name}": value for name, value in weights.items()}


LAYOUTS = {
    "dictionary": lambda weights: {"encoder": weights, "decoder": {}, "ema_encoder": {}},
    "flat": lambda weights: {
        **flat(weights, "student.encoder."), "student.decoder.mask_token": torch.ones(1, 1, 64),
        **flat({"cls_token": torch.ones(1, 1, 64)}, "teacher."),
    },
    "lightning": lambda weights: {"state_dict": flat(weights, "student.encoder."), "epoch": 3},
}  # fmt: skip


@pytest.fixture(params=[*LAYOUTS, "safetensors"])
def path(request, weights, tmp_path):
    if request.param != "safetensors":
        torch.save(LAYOUTS[request.param](weights), tmp_path / "bat.pt")
        return tmp_path / "bat.pt"
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(flat(weights, "student.encoder."), tmp_path / "bat.safetensors")
    return tmp_path / "bat.safetensors"


def test_layouts__give_the_features_of_the_encoder(path, encoder):
    loaded = load_checkpoint(path)
    source = torch.randn(2, 1, 64, 128)
    expected = torch.stack(encoder.block_outputs(source), dim=1)
    assert torch.equal(loaded.features(source, "all", "all"), expected)
    assert loaded.encoder.cfg.modalities.image.target_length == loaded.front_end.target_length == 64
    assert loaded.cfg["task"]["frontend"] == "db"


def test_layouts__a_published_file_hears_a_clip_as_published(shared, tmp_path):
    known = torch.load(shared / "golden" / "bat_tiny.pt", weights_only=True)
    heads = {"num_heads": known["config"]["num_heads"]}
    torch.save({"encoder": known["teacher_before"], "config": heads}, tmp_path / "bat.pt")
    loaded = load_checkpoint(tmp_path / "bat.pt")
    for number, wave in enumerate(known["waveform"]):
        source = loaded.spectrogram((wave, 16_000))
        torch.testing.assert_close(source, known["features"][number], atol=1e-4, rtol=0)
        found = loaded.features(source[None], "all", "all")[0, :, 1:]  # without CLS
        torch.testing.assert_close(found, known["teacher_layers"][:, number], atol=1e-4, rtol=0)


def test_layouts__are_fine_tuned_with_their_table(path, encoder):
    cfg = EatClassifierConfig(
        model_path=str(path), num_classes=3, single_label=False, target_length=32, norm_eps=None,
        prediction_mode=PredictionMode.CLS_TOKEN, drop_path_rate=0.0,
    )  # fmt: skip
    model = EatClassifier(cfg).model.eval()
    assert torch.equal(
        model.patch_encoder.fixed_positional_encoder.positions,
        encoder.patch_encoder.fixed_positional_encoder.positions,
    )
    source = torch.randn(2, 1, 32, 128)
    found, expected = (each.encode(source)[0] for each in (model, encoder))
    assert torch.equal(found, expected)


def test_read_data__only_the_configuration(path):
    assert read_data(path, check=False, only_data=True)["cfg"]["model"]["num_heads"] == 1


def test_published__numbers_of_the_published_code(shared, tmp_path):
    golden = torch.load(shared / "golden" / "bat_tiny.pt", weights_only=True)
    path = tmp_path / "bat.pt"
    torch.save({"encoder": golden["teacher_before"], "config": golden["config"]}, path)
    found = load_checkpoint(path).features(golden["features"], "all", "all").transpose(0, 1)
    torch.testing.assert_close(found[:, :, 1:], golden["teacher_layers"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, :, 0], golden["layer_cls"], rtol=0, atol=1e-5)


def test_convert_bat__refuses_other_models(weights, tmp_path):
    path = tmp_path / "bat.pt"
    torch.save({"encoder": {**weights, "norm.weight": torch.ones(64)}}, path)
    with pytest.raises(ValueError, match=r"bat.pt looks like .* has weights 'norm.weight'"):
        load_checkpoint(path)
    torch.save({"encoder": {k: v for k, v in weights.items() if k != "pre_norm.bias"}}, path)
    with pytest.raises(ValueError, match=rf"{IMAGE}context_encoder.norm.bias"):
        load_checkpoint(path)
    narrow = {**weights, "cls_token": torch.ones(1, 1, 48)}
    torch.save({"encoder": narrow}, path)
    with pytest.raises(ValueError, match=r"width 48, .*does not say its number of attention heads"):
        load_checkpoint(path)


def test_safetensors__of_other_programs_are_refused(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "other.safetensors"
    from safetensors.torch import save_file

    save_file({"encoder.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="it was not written by eat export"):
        read_data(path)
    write_safetensors(path, {"cfg": {"model": {}}, "model": {"w": torch.ones(1)}})
    assert read_data(path)["cfg"] == {"model": {}}
