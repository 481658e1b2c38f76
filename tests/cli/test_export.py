"""`eat export`, end to end."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fairseq.checkpoint_utils import load_model_ensemble_and_task

from eat_plugin.cli import main
from eat_plugin.inference import conversion, load_checkpoint
from eat_plugin.models.interop import read_checkpoint

# Mean and standard deviation of the published data sets.
AUDIOSET, ESC50, SPEECH = (-4.268, 4.569), (-6.627, 5.359), (-6.846, 5.565)
SINGLE = {"task_single_label": True, "model_loss": "ce"}


@pytest.fixture(scope="module")
def source():
    return torch.randn(2, 1, 128, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def run(tmp_path):
    def run(checkpoint):
        out = tmp_path / "out" / "published.pt"
        return main(["export", "--checkpoint", str(checkpoint), "--out", str(out)]), out

    return run


def keys_of(tree, prefix=""):
    """All names in a nested configuration."""
    if not isinstance(tree, dict):
        return {prefix}
    return {prefix}.union(*(keys_of(value, f"{prefix}.{name}") for name, value in tree.items()))


def flags_of(options):
    return {name for name in ("esc50_eval", "spcv2_eval") if options[name]}


def statistics(pair):
    return {"task_norm_mean": pair[0], "task_norm_std": pair[1]}


def test_export__pretrained(run, make_checkpoint, source, capsys, tmp_path):
    path = make_checkpoint("pretraining", **statistics(ESC50), task_precompute_mask_config={})
    code, out = run(path)
    assert code == 0
    assert capsys.readouterr().out == (
        f"{out}: published checkpoint (task mae_image_pretraining, model data2vec_multi), same "
        "results, no optimizer state: load or fine-tune it, training cannot be resumed; largest "
        "difference on 6 clips: features 0.0e+00\n"
    )
    exported, original = torch.load(out, weights_only=True), read_checkpoint(path)
    cfg = exported["cfg"]
    assert (cfg["task"]["_name"], cfg["model"]["_name"], cfg["criterion"]["_name"]) == (
        "mae_image_pretraining", "data2vec_multi", "model",
    )  # fmt: skip
    assert "eat" not in str(cfg["optimizer"]) + str(cfg["common"]) + str(cfg["task"])
    assert cfg["optimizer"]["groups"]["default"]["lr_scheduler"]["warmup_updates"] == 2
    assert flags_of(cfg["task"]) == {"esc50_eval"}
    assert cfg["task"]["precompute_mask_config"]["clone_batch"] == 3
    assert exported["last_optimizer_state"] is None
    for name, value in original["model"].items():
        if name != "_ema":
            assert torch.equal(exported["model"][name], value)
    assert exported["model"]["_ema"].keys() == original["model"]["_ema"].keys()

    first, second = load_checkpoint(path), load_checkpoint(out)
    assert first.front_end == second.front_end
    assert torch.equal(first.features(source, "all"), second.features(source, "all"))
    (model,), _, task = load_model_ensemble_and_task([str(out)])
    assert type(task).__name__ == "MaeImagePretrainingTask"
    with torch.no_grad():
        x = model.eval().extract_features(source, remove_extra_tokens=False)["x"]
    torch.testing.assert_close(x, first.features(source, "all"))


def test_export__fine_tuned(run, make_checkpoint, source):
    path = make_checkpoint("classification", model_mixup=0.8, model_supported_modality=None)
    code, out = run(path)
    assert code == 0
    state = torch.load(out, weights_only=True)
    cfg = state["cfg"]
    assert cfg["task"]["_name"] == cfg["model"]["_name"] == "mae_image_classification"
    assert (cfg["task"]["key"], cfg["task"]["audio_mae"]) == ("imgs", True)
    assert not flags_of(cfg["task"]) | flags_of(cfg["model"])
    assert state["task_state"]["labels"] == {"dog": "0", "rain": "1", "clock": "2"}
    arguments = cfg["model"]["pretrained_model_args"]
    assert arguments["model"]["_name"] == "data2vec_multi"
    assert arguments["model"]["supported_modality"] == "IMAGE"
    assert arguments["model"]["skip_ema"] is False
    assert all(isinstance(cfg["model"][name], int) for name in ("freqm", "timem"))
    assert arguments["task"]["_name"] == "mae_image_pretraining"
    assert arguments["task"]["key"] == "source"
    (model,), _, task = load_model_ensemble_and_task([str(out)])
    assert type(task).__name__ == "MaeImageClassificationTask"
    with torch.no_grad():
        expected = load_checkpoint(path).model(source)
        assert torch.equal(model.eval()(source), expected)
    assert load_checkpoint(out).labels == load_checkpoint(path).labels


@pytest.fixture
def published(shared):
    """The published checkpoints."""
    names = {"pretraining": "ckpt_pretrain_tiny.pt", "classification": "ckpt_finetune_tiny.pt"}
    return {kind: read_checkpoint(shared / "golden" / name) for kind, name in names.items()}


@pytest.mark.parametrize("kind", ["pretraining", "classification"])
def test_export__has_exactly_the_published_names(run, make_checkpoint, published, kind):
    masks = {"task_precompute_mask_config": {}} if kind == "pretraining" else {}
    _, out = run(make_checkpoint(kind, **masks))
    ours, theirs = read_checkpoint(out), published[kind]
    assert set(ours) == set(theirs)
    assert set(ours["model"]) == set(theirs["model"])
    models = [state["cfg"]["model"] for state in (ours, theirs)]
    arguments = [model.pop("pretrained_model_args", None) for model in models]
    for part in ("task", "model", "criterion"):
        assert keys_of(ours["cfg"][part]) == keys_of(theirs["cfg"][part])
    if kind == "classification":  # the parts that the published code reads
        ours, theirs = arguments
        assert set(ours) == {"_name", "criterion", "lr_scheduler", "model", "task"} < set(theirs)
        # The published classifier adds an option itself.
        assert keys_of(ours["model"]) == keys_of(theirs["model"]) - {".drop_path_rate"}
        assert set(ours["task"]) == set(theirs["task"])


@pytest.mark.parametrize(
    ("options", "task_flags", "model_flags"),
    [
        ({**statistics(AUDIOSET), **SINGLE}, set(), {"esc50_eval"}),
        ({**statistics(ESC50), **SINGLE}, {"esc50_eval"}, {"esc50_eval"}),
        ({**statistics(SPEECH), **SINGLE}, {"spcv2_eval"}, {"esc50_eval"}),
        (
            {**statistics(SPEECH), "task_single_label": True, "model_mixup": 0.8},
            {"spcv2_eval"}, {"spcv2_eval"},
        ),
    ],
)  # fmt: skip
def test_export__statistics_and_objective_by_published_flags(
    run, make_checkpoint, source, options, task_flags, model_flags
):
    path = make_checkpoint("classification", **options)
    code, out = run(path)
    assert code == 0
    cfg = read_checkpoint(out)["cfg"]
    assert flags_of(cfg["task"]) == task_flags
    assert flags_of(cfg["model"]) == model_flags
    assert cfg["criterion"]["log_keys"] == ["correct"]
    first, second = load_checkpoint(path), load_checkpoint(out)
    assert first.front_end == second.front_end
    assert first.single_label is second.single_label is True
    assert torch.equal(first.predict(source), second.predict(source))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("pretraining", {**statistics((-5.0, 4.0)), "model_ema_encoder_only": False}),
        ("pretraining", {**statistics((-5.0, 4.0)), "model_ema_encoder_only": True}),
        ("classification", statistics((-5.0, 6.0))),
        ("classification", statistics(ESC50)),  # published with one label per clip only
    ],
)
def test_export__folds_other_statistics_into_the_patch_embedding(
    run, make_checkpoint, capsys, tmp_path, kind, options
):
    path = make_checkpoint(kind, **options)
    code, out = run(path)
    assert code == 0
    assert "normalise inputs by -4.268 and 4.569" in capsys.readouterr().err
    clip = tmp_path / "short.wav"  # padded, too
    soundfile.write(clip, np.random.default_rng(0).uniform(-0.1, 0.1, 12_000), 16_000)
    first, second = load_checkpoint(path), load_checkpoint(out)
    assert not flags_of(read_checkpoint(out)["cfg"]["task"])
    sources = [loaded.spectrogram(clip)[None] for loaded in (first, second)]
    assert not torch.allclose(*sources, atol=0.1)
    features = [loaded.features(x, "all") for loaded, x in zip((first, second), sources)]
    torch.testing.assert_close(*features, atol=1e-4, rtol=0)
    if kind == "classification":
        predictions = [loaded.predict(x) for loaded, x in zip((first, second), sources)]
        torch.testing.assert_close(*predictions, atol=1e-4, rtol=0)
        return
    averages = [read_checkpoint(file)["model"]["_ema"] for file in (path, out)]
    name = "modality_encoders.IMAGE.local_encoder.proj.weight"
    if options["model_ema_encoder_only"]:
        assert name not in averages[0]
    else:
        torch.testing.assert_close(averages[1][name], averages[0][name] * (4.569 / 4.0))


BINS = {
    "task_norm": "bins", "task_norm_mean": [-9 + bin / 25 for bin in range(128)],
    "task_norm_std": [2 + bin / 50 for bin in range(128)],
}  # fmt: skip


def test_export__folds_statistics_of_bins_into_patches_over_all(
    run, make_checkpoint, golden, capsys, tmp_path
):
    micro = json.loads((golden / "pretraining_micro.json").read_text())["model"]["modalities"]
    micro["image"]["patch_size"] = 128
    path = make_checkpoint("classification", model_modalities=micro, **BINS)
    code, out = run(path)
    assert code == 0
    assert capsys.readouterr().err == (
        "eat export: the means and deviations of the mel bins (task.norm=bins) were folded into "
        "the patch embedding; normalise inputs by -4.268 and 4.569\n"
    )
    clip = tmp_path / "short.wav"  # padded, too
    soundfile.write(clip, np.random.default_rng(0).uniform(-0.1, 0.1, 12_000), 16_000)
    first, second = load_checkpoint(path), load_checkpoint(out)
    assert first.front_end.mean == tuple(BINS["task_norm_mean"])
    assert second.front_end.mean == -4.268
    sources = [loaded.spectrogram(clip)[None] for loaded in (first, second)]
    assert not torch.allclose(*sources, atol=0.1)
    predictions = [loaded.predict(x) for loaded, x in zip((first, second), sources)]
    torch.testing.assert_close(*predictions, atol=1e-4, rtol=0)


def test_export__refuses_statistics_of_bins_for_small_patches(run, make_checkpoint, capsys):
    code, out = run(make_checkpoint("pretraining", **BINS))
    assert (code, out.exists()) == (2, False)
    assert capsys.readouterr().err == (
        "eat export: error: task.norm=bins has no published name; it can be folded into patches "
        "over all 128 mel bins, and those of this model have 16\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task_single_label": True},
            "model.loss=bce with task.single_label=True, model.mixup=0.0 and model.cutmix=0.0 has "
            "no published name",
        ),
        ({"task_pad_value": "silence"}, "task.pad_value=silence has no published name"),
        ({"task_length": "mask"}, "task.length=mask has no published name; only pad has"),
    ],
)
def test_export__refuses_options_without_a_published_name(
    run, make_checkpoint, capsys, options, message
):
    code, out = run(make_checkpoint("classification", **options))
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"eat export: error: {message}")
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("pretraining", {"model_attention_gate": True}, "model.attention_gate is true; it has no"),
        ("classification", {"model_attention_gate": True}, "model.attention_gate is true; it has"),
        ("classification", {"model_loss": "asymmetric"}, "model.loss=asymmetric with task.single"),
    ],
)
def test_export__refuses_ingredients_without_a_published_name(
    run, make_checkpoint, capsys, kind, options, message
):
    code, out = run(make_checkpoint(kind, **options))
    assert (code, out.exists()) == (2, False)
    error = capsys.readouterr().err
    assert error.startswith(f"eat export: error: {message}")
    assert error.count("\n") == 1


def test_export__refuses_the_transposed_layout(run, make_checkpoint, capsys):
    path = make_checkpoint("pretraining")
    state = read_checkpoint(path)
    state["cfg"]["model"]["modalities"]["image"]["mel_by_time"] = True
    torch.save(state, path)
    assert run(path)[0] == 2
    assert "model.modalities.image.mel_by_time=true has no" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pretraining", "classification"])
def test_export__patches_must_be_square(run, make_checkpoint, capsys, kind):
    micro = json.loads((Path(__file__).parents[1] / "golden/pretraining_micro.json").read_text())
    modalities = micro["model"]["modalities"]
    modalities["image"]["patch_size"] = [16, 128]
    path = make_checkpoint(kind, model_modalities=copy.deepcopy(modalities))
    assert run(path)[0] == 2
    assert capsys.readouterr().err == (
        "eat export: error: model.modalities.image.patch_size is [16, 128]; it has no published "
        "name: the patches of published code are square\n"
    )
    modalities["image"]["patch_size"] = [16, 16]
    masks = {"task_precompute_mask_config": {}} if kind == "pretraining" else {}
    code, out = run(make_checkpoint(kind, model_modalities=modalities, **masks))
    assert code == 0
    cfg = read_checkpoint(out)["cfg"]
    model = cfg["model"].get("pretrained_model_args", cfg)["model"]
    assert model["modalities"]["image"]["patch_size"] == 16
    if masks:
        assert cfg["task"]["precompute_mask_config"]["patch_size"] == 16


def test_export__lists_training_options_that_are_left_out(run, make_checkpoint, capsys):
    path = make_checkpoint(
        "classification", task_crop="random", task_length="crop", task_roll_gain=True,
        task_weights_file="w.csv",
        model_layer_decay_embeddings=True, model_linear_probe=True,
    )  # fmt: skip
    code, out = run(path)
    assert code == 0
    assert capsys.readouterr().err == (
        "eat export: left out, no published name: task.crop=random, "
        "task.length=crop, model.layer_decay_embeddings=True\n"
        "eat export: of clips longer than 1.28 s published code scores the start, this model the "
        "mean of 3 windows (task.length=crop)\n"
    )
    cfg = read_checkpoint(out)["cfg"]
    assert (cfg["task"]["roll_aug"], cfg["task"]["AS2M_finetune"]) == (True, True)
    assert cfg["task"]["weights_file"] == "/nowhere/w.csv"
    assert cfg["model"]["linear_classifier"] is True


def test_export__lists_smooth_mixed_only_if_it_has_an_effect(run, make_checkpoint, capsys):
    mixed = {"model_mixup": 0.5, "model_label_smoothing": 0.1}
    single = {**mixed, **SINGLE, **statistics(ESC50)}
    assert run(make_checkpoint("classification", **single))[0] == 0
    assert "model.smooth_mixed=True" in capsys.readouterr().err
    assert run(make_checkpoint("classification", **single, model_smooth_mixed=False))[0] == 0
    assert "smooth_mixed" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ckpt_pretrain_tiny.pt", "ckpt_finetune_tiny.pt"])
def test_export__keeps_a_published_configuration(run, shared, name):
    code, out = run(shared / "golden" / name)
    assert code == 0
    before, after = read_checkpoint(shared / "golden" / name)["cfg"], read_checkpoint(out)["cfg"]
    assert after["task"] == before["task"]
    assert after["model"] == before["model"]
    assert after["criterion"] == before["criterion"]
    assert after["optimizer"] == before["optimizer"]


def test_export__keeps_published_flags_if_others_fit_too(run, shared, tmp_path):
    state = read_checkpoint(shared / "golden" / "ckpt_finetune_tiny.pt")
    for part in ("task", "model"):
        state["cfg"][part]["spcv2_eval"] = True
    state["cfg"]["model"]["mixup"] = 0.0
    torch.save(state, tmp_path / "speech.pt")
    code, out = run(tmp_path / "speech.pt")
    assert code == 0
    cfg = read_checkpoint(out)["cfg"]
    for part in ("task", "model"):
        assert cfg[part] == state["cfg"][part]


def test_export__twice_gives_the_same(run, make_checkpoint, tmp_path):
    _, once = run(make_checkpoint("classification", **statistics(SPEECH), **SINGLE))
    twice = tmp_path / "twice.pt"
    assert main(["export", "--checkpoint", str(once), "--out", str(twice)]) == 0
    assert read_checkpoint(once)["cfg"] == read_checkpoint(twice)["cfg"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x.ckpt", "a PyTorch checkpoint is written, give a name that ends in .pt"),
        ("x", "a PyTorch checkpoint is written, give a name that ends in .pt"),
        ("folder.pt", "which is a folder; give the name of a file"),
        ("file/x.pt", "but {}/file is not a folder"),
    ],
)
def test_export__refuses_another_output_than_a_checkpoint(
    make_checkpoint, tmp_path, capsys, name, problem
):
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "file").touch()
    arguments = ["--checkpoint", str(make_checkpoint("pretraining"))]
    assert main(["export", *arguments, "--out", str(tmp_path / name)]) == 2
    problem = problem.format(tmp_path)
    shown = capsys.readouterr().err
    assert shown.startswith(f"eat export: error: --out is {tmp_path / name}")
    assert shown.endswith(f"{problem}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"folder.pt", "file"}


def test_export__does_not_overwrite_the_checkpoint(make_checkpoint, capsys):
    path = make_checkpoint("pretraining")
    before = path.read_bytes()
    assert main(["export", "--checkpoint", str(path), "--out", str(path)]) == 2
    assert "the checkpoint itself; choose another file" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_export__writes_nothing_if_the_results_would_differ(
    run, make_checkpoint, monkeypatch, capsys
):
    translate = conversion.convert_to_published

    def spoil(state, loaded):
        exported, left_out = translate(state, loaded)
        weights = exported["model"]
        exported["model"] = {**weights, "head.bias": weights["head.bias"] + 1}
        return exported, left_out

    monkeypatch.setattr(conversion, "convert_to_published", spoil)
    code, out = run(make_checkpoint("classification"))
    assert code == 2
    assert "would give other results after the conversion; not written" in capsys.readouterr().err
    assert not out.exists()


def test_export__through_the_console(console, make_checkpoint, tmp_path):
    path = make_checkpoint("pretraining")
    code, output, errors = console(
        "export", "--checkpoint", path, "--out", tmp_path / "x.pt", "--format", "published"
    )
    assert code == 0, errors
    assert output.startswith(f"{tmp_path / 'x.pt'}: published checkpoint (task mae_image_pretr")
    assert load_checkpoint(tmp_path / "x.pt").labels is None


def test_export__leaves_out_the_losses_of_whole_clips(run, make_checkpoint, capsys):
    changes = {"dino_loss": 1.0, "cls_target": "last"}
    path = make_checkpoint("pretraining", **{f"model_{n}": v for n, v in changes.items()})
    code, out = run(path)
    assert code == 0
    said = capsys.readouterr()
    assert "model.dino_loss=1.0" in said.out + said.err
    exported, plain = read_checkpoint(out), read_checkpoint(make_checkpoint("pretraining"))
    assert not set(changes) & set(exported["cfg"]["model"])
    assert exported["model"].keys() == plain["model"].keys()
    assert exported["model"]["_ema"].keys() == plain["model"]["_ema"].keys()
