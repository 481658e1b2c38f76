"""`eat import`: folders of ours and published ones; bad ones are named in one line."""

import json
import shutil

import pytest
import torch

from eat_plugin.checkpoint_files import read_data
from eat_plugin.cli import main
from eat_plugin.huggingface.names import name_in_checkpoint, name_in_folder
from eat_plugin.inference import load_checkpoint
from eat_plugin.models.encoder import EatEncoder
from eat_plugin.models.interop import encoder_config, load_encoder, read_encoder
from eat_plugin.safetensors_files import read_weights


def run_import(source, out):
    return main(["import", str(source), "--out", str(out)])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("pretraining", {"task_norm_mean": -5.0, "task_norm_std": 3.5}),
        ("classification", {"task_length": "crop", "task_eval_windows": 2}),
        ("bat", {}),
        ("other", {}),
    ],
)
def test_import__gives_back_the_checkpoint(
    export, make_any, clips, tmp_path, capsys, kind, changes
):
    first = load_checkpoint(make_any(kind, **changes))
    code, folder = export(first.path)
    assert code == 0
    for name in ("modeling_eat.py", "network_eat.py", "configuration_eat.py"):
        (folder / name).write_text("raise SystemExit('this code must not run')")
    out = tmp_path / "checkpoint.pt"
    capsys.readouterr()
    assert run_import(folder, out) == 0
    shown = capsys.readouterr()
    assert "training cannot be resumed from it (no decoder, teacher and state of" in shown.out
    assert shown.err == ""
    second = load_checkpoint(out)
    assert second.front_end == first.front_end
    assert (second.labels, second.single_label) == (first.labels, first.single_label)
    assert second.eval_windows == first.eval_windows
    orders = [each.encoder.cfg.modalities.image.positions for each in (first, second)]
    assert orders[0] == orders[1]
    for own, other in zip(first.features(clips, "all"), second.features(clips, "all")):
        assert torch.equal(own, other)
    if first.labels is not None:
        assert torch.equal(first.predict(clips), second.predict(clips))
    pretrained = read_encoder(out)
    encoder = EatEncoder(encoder_config(pretrained.model))
    load_encoder(encoder, pretrained)  # as fine-tuning does
    assert torch.equal(encoder.blocks[1].mlp.fc2.weight, first.encoder.blocks[1].mlp.fc2.weight)


def test_import__classes_that_were_replaced_since(export, make_checkpoint, tmp_path):
    """As after fine-tuning in transformers, which keeps the entries that it does not know."""
    options = {"task_single_label": True, "model_loss": "bce", "model_single_label": True}
    _, folder = export(make_checkpoint("classification", **options))
    own, others = ("dog", "rain", "clock"), ("male", "female", "child")
    replaced = {str(number): name for number, name in enumerate(others)}
    for number, (change, ids, single) in enumerate((
        ({}, own, True),
        ({"id2label": replaced}, others, False),
        ({"problem_type": "single_label_classification"}, own, True),
    )):  # fmt: skip
        config = json.loads((folder / "config.json").read_text())
        other = tmp_path / f"folder{number}"
        shutil.copytree(folder, other)
        (other / "config.json").write_text(json.dumps({**config, **change}))
        assert run_import(other, tmp_path / f"{number}.pt") == 0
        loaded = load_checkpoint(tmp_path / f"{number}.pt")
        assert (loaded.labels.ids, loaded.single_label) == (ids, single)


def test_import__refuses_what_would_be_built_or_computed_wrongly(
    export, make_checkpoint, tmp_path, capsys
):
    safetensors = pytest.importorskip("safetensors.torch")
    _, folder = export(make_checkpoint("pretraining"))
    capsys.readouterr()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "depth": 1_000_000_000}))
    assert run_import(folder, tmp_path / "x.pt") == 2
    assert "depth is 1000000000, but model.safetensors has 2 blocks" in capsys.readouterr().err
    (folder / "config.json").write_text(json.dumps(config))
    weights = safetensors.load_file(folder / "model.safetensors")
    name = next(iter(weights))
    for wrong in (weights[name].int(), weights[name] * float("nan")):
        safetensors.save_file({**weights, name: wrong}, folder / "model.safetensors")
        assert run_import(folder, tmp_path / "x.pt") == 2
        assert "or not finite; expected finite" in capsys.readouterr().err
    assert not (tmp_path / "x.pt").exists()


def test_import__a_safetensors_file(make_checkpoint, clips, tmp_path):
    pytest.importorskip("safetensors")
    path = make_checkpoint("classification")
    model = tmp_path / "model.safetensors"
    command = ["export", "--checkpoint", path, "--out", model, "--clips", *clips]
    assert main([*map(str, command)]) == 0
    assert run_import(model, tmp_path / "again.pt") == 0
    first, second = load_checkpoint(path), load_checkpoint(tmp_path / "again.pt")
    assert torch.equal(first.predict(clips), second.predict(clips))
    state = read_data(tmp_path / "again.pt")
    assert state["last_optimizer_state"] is None


# Of the published fine-tuned model: config.json without what is of ours, no preprocessor_config.
PUBLISHED = {
    "architectures": ["EATModel"],
    "auto_map": {"AutoConfig": "configuration_eat.EATConfig", "AutoModel": "modeling_eat.EATModel"},
    "model_type": "eat", "embed_dim": 96, "depth": 2, "num_heads": 4, "patch_size": 16,
    "stride": 16, "in_chans": 1, "mel_bins": 128, "max_length": 768, "mlp_ratio": 4.0,
    "qkv_bias": True, "drop_rate": 0.0, "attn_drop_rate": 0.0, "activation_dropout": 0.0,
    "post_mlp_drop": 0.0, "start_drop_path_rate": 0.0, "end_drop_path_rate": 0.0,
    "layer_norm_first": False, "norm_eps": 1e-6, "norm_affine": True, "fixed_positions": True,
    "img_size": [256, 128], "torch_dtype": "float32", "transformers_version": "4.51.3",
}  # fmt: skip


# Options that both have, with the same values.
SHARED = PUBLISHED.keys() - {
    "architectures", "auto_map", "transformers_version", "end_drop_path_rate",
}  # fmt: skip


@pytest.fixture(params=["pretrain", "finetune"])
def published(request, shared, tmp_path):
    """A folder in the published layout, made of a checkpoint of the published code."""
    torch_files = pytest.importorskip("safetensors.torch")
    path = shared / "golden" / f"ckpt_{request.param}_tiny.pt"
    weights = {}
    for name, value in read_data(path)["model"].items():
        if name == "_ema" or "decoder" in name or "recon" in name:
            continue
        name = name.removeprefix("model.").replace("modality_encoders.IMAGE.", "")
        weights["model." + name.replace("context_encoder.norm", "pre_norm")] = value
    config = {**PUBLISHED, "model_variant": request.param}
    if request.param == "finetune":
        config["num_classes"] = 8
        config["id2label"] = {str(number): f"/m/00{number}" for number in range(8)}
    folder = tmp_path / "published"
    folder.mkdir()
    torch_files.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return path, folder


def test_import__a_published_folder(published, clips, tmp_path, capsys):
    path, folder = published
    assert run_import(folder, tmp_path / "checkpoint.pt") == 0
    assert capsys.readouterr().err == (
        "eat import: no preprocessor_config.json: inputs are normalised by AudioSet's mean and "
        "deviation\n"
    )
    first, second = load_checkpoint(path), load_checkpoint(tmp_path / "checkpoint.pt")
    assert second.front_end == first.front_end
    for own, other in zip(first.features(clips, "all"), second.features(clips, "all")):
        assert torch.equal(own, other)
    if first.labels is not None:
        assert second.labels.ids == first.labels.ids
        assert torch.equal(first.predict(clips), second.predict(clips))


def test_folder__has_the_names_of_a_published_one_and_loads_it(
    published, export, transformers, clips
):
    path, folder = published
    code, own = export(path)
    assert code == 0
    names = [read_weights(each / "model.safetensors")[0].keys() for each in (own, folder)]
    assert names[0] == names[1]
    config = json.loads((own / "config.json").read_text())
    assert {name: config[name] for name in SHARED} == {name: PUBLISHED[name] for name in SHARED}
    loaded = load_checkpoint(path)
    ours = transformers.AutoModel.from_pretrained(own, trust_remote_code=True)
    model, info = type(ours).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    source = loaded.spectrogram(clips[1])[None]
    with torch.no_grad():
        found = model(source).last_hidden_state
    assert (found - loaded.features(source, "all")).abs().max() < 1e-5


def edit(name, **changes):
    def change(folder):
        values = json.loads((folder / name).read_text())
        values.update(changes)
        (folder / name).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    return change


def edit_weights(change):
    def rewrite(folder):
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return rewrite


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit("config.json", model_type="hubert"), "config.json is of a model 'hubert'; expected"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON: "),
        (lambda f: (f / "config.json").write_text("[]"), "config.json is not a JSON object"),
        (lambda f: (f / "config.json").unlink(), "config.json: No such file or directory"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (truncate, "model.safetensors is not a safetensors file, or is damaged: "),
        (
            edit_weights(lambda w: w.pop("model.pre_norm.bias")),
            "model.safetensors has no weight model.modality_encoders.IMAGE.context_encoder.norm.bi",
        ),
        (
            edit_weights(lambda w: w.update({"model.extra": torch.ones(1)})),
            "model.safetensors has an unknown weight model.extra (1 in all)",
        ),
        (
            edit_weights(lambda w: w.update({"model.head.bias": torch.ones(4)})),
            "model.safetensors: head.bias has shape (4,), but config.json says (3,)",
        ),
        (edit("config.json", num_heads=5), "config.json: "),
        (edit("config.json", stride=10), "config.json: stride is 10; only that of patch_size is"),
        (edit("config.json", qkv_bias=False), "config.json: qkv_bias is False; only true is"),
        (edit("config.json", mel_bins=64), "config.json: mel_bins is 64; only 128 is"),
        (edit("config.json", pooling="MAX"), "config.json: model.prediction_mode is 'MAX'"),
        (edit("config.json", depth="two"), "config.json"),
        (
            edit("config.json", id2label=None),
            "config.json: it has 3 classes, but no id2label that names them",
        ),
        (edit("config.json", id2label="x"), "config.json: id2label is x; it must name the"),
        (edit("config.json", id2label=["a", "b", "c"]), "config.json: id2label is ['a', 'b'"),
        (edit("config.json", id2label={}), "config.json: id2label is {}; it must name the classes"),
        (edit("config.json", id2label={"0": "a", "2": "b"}), "config.json: id2label is {'0': 'a'"),
        (edit("config.json", trained="abc"), "config.json: trained is abc; it must have ids, "),
        (edit("config.json", problem_type="regression"), "config.json: problem_type is regression"),
        (edit("config.json", img_size=[]), "config.json: img_size is []; it must be a list"),
        (edit("preprocessor_config.json", patch=8), "patch in preprocessor_config.json is 8; "),
        (edit("preprocessor_config.json", eval_windows="2"), "eval_windows in preprocessor_config"),
        (
            edit("preprocessor_config.json", sampling_rate=8000),
            "sampling_rate in preprocessor_config.json is 8000; only 16000 is",
        ),
        (edit("preprocessor_config.json", std=-1), "std must be positive and finite, got -1"),
    ],
)
def test_import__names_what_is_wrong(classifier_folder, tmp_path, capsys, damage, message):
    folder = tmp_path / "folder"
    shutil.copytree(classifier_folder, folder)
    damage(folder)
    assert run_import(folder, tmp_path / "out" / "checkpoint.pt") == 2
    error = capsys.readouterr().err
    assert error.startswith("eat import: error: ")
    assert message in error
    assert str(folder) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def classifier_folder(export, make_checkpoint):
    return export(make_checkpoint("classification"))[1]


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("checkpoint.pt", "new.pt", "checkpoint.pt is neither a folder nor a .safetensors file"),
        ("folder", "new.bin", "new.bin; a PyTorch checkpoint is written, give a name that ends in"),
    ],
)
def test_import__refuses_other_names(tmp_path, capsys, source, out, message):
    assert run_import(tmp_path / source, tmp_path / out) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("is_classifier", [False, True])
def test_names__one_table_both_ways(is_classifier):
    prefix = "model." if is_classifier else ""
    patches = f"{prefix}modality_encoders.IMAGE."
    for name, other in (
        (f"{patches}extra_tokens", "model.extra_tokens"),
        (f"{patches}context_encoder.norm.weight", "model.pre_norm.weight"),
        (
            f"{patches}local_encoder.proj.bias",
            "model.local_encoder.proj.bias",
        ),
        (f"{prefix}blocks.3.attn.qkv.bias", "model.blocks.3.attn.qkv.bias"),
        (f"{prefix}norm.weight", "model.norm.weight"),
    ):
        assert name_in_folder(name, is_classifier) == other
        assert name_in_checkpoint(other, is_classifier) == name
    assert name_in_checkpoint("model.head.bias", is_classifier) == (
        "head.bias" if is_classifier else None
    )
