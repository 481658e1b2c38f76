"""`eat export --format hf`: code, files and numbers of a folder, all or nothing."""

import ast
import json
import sys
from pathlib import Path

import pytest

from eat_plugin.cli import main
from eat_plugin.huggingface import folder as written
from eat_plugin.huggingface.copied_code import NAMED, PACKAGE, copy_code

ALLOWED = {"torch", "numpy", "transformers"}


def without_imports(text):
    """The code of a file without imports, and without what is for types alone."""
    kept = [
        node
        for node in ast.parse(text).body
        if not isinstance(node, (ast.If, ast.Import, ast.ImportFrom))
    ]
    return ast.dump(ast.Module(kept, []))


def test_copied_code__is_that_of_the_package():
    files = copy_code()
    assert {"modeling_eat.py", "models_encoder.py", "data_frontend.py"} <= files.keys()
    for name, text in files.items():
        source = PACKAGE.parent / text.splitlines()[0].rpartition(" ")[2]
        flat = source.relative_to(PACKAGE).as_posix().removeprefix("huggingface/")
        assert name == flat.replace("/", "_")
        own = source.read_text(encoding="utf-8")
        assert without_imports(text) == without_imports(own)
        assert "TYPE_CHECKING" not in [
            ast.unparse(n.test) for n in ast.parse(text).body if isinstance(n, ast.If)
        ]


def test_copied_code__imports_its_own_files_and_few_packages():
    files = copy_code()
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert (node.level, f"{node.module}.py" in files) == (1, True)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert module.split(".")[0] in ALLOWED | set(sys.stdlib_module_names)
                is_for_transformers = name.removesuffix(".py") in NAMED
                assert is_for_transformers or not module.startswith("transformers")
    assert not [
        name for name in files if "decoder" in name or "masking" in name or name == "eat.py"
    ]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("pretraining", {"task_norm_mean": -5.0, "task_norm_std": 3.5}),
        ("classification", {"task_length": "crop", "model_prediction_mode": "MEAN_MAX_POOLING"}),
    ],
)
def test_export__writes_all_files_and_says_what_was_compared(
    export, make_checkpoint, capsys, kind, changes
):
    code, out = export(make_checkpoint(kind, **changes))
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    is_classifier = kind == "classification"
    auto = "AutoModelForAudioClassification" if is_classifier else "AutoModel"
    assert shown.out.startswith(
        f"{out}: folder for transformers ({auto}), compared by its own code without transformers; "
        "largest difference on 2 clips: features 0.0e+00"
    )
    names = {path.name for path in out.iterdir()}
    others = {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"}
    assert names == others | copy_code().keys()
    assert [path.name for path in out.parent.iterdir()] == ["folder"]
    config = json.loads((out / "config.json").read_text())
    assert ("AutoModelForAudioClassification" in config["auto_map"]) == is_classifier
    assert config.get("id2label") == (
        {"0": "A dog", "1": "The rain", "2": "A clock"} if is_classifier else None
    )
    weights, _ = written.read_weights(out / "model.safetensors")
    assert "model.pre_norm.weight" in weights
    assert ("model.head.weight" in weights) == is_classifier
    assert all(name.startswith("model.") for name in weights)
    assert not [name for name in weights if "decoder" in name or "_ema" in name or "IMAGE" in name]


def test_export__a_folder_that_would_differ_is_not_written(
    export, make_checkpoint, capsys, monkeypatch
):
    own = written.describe_input
    monkeypatch.setattr(written, "describe_input", lambda loaded: {**own(loaded), "mean": -4.2})
    code, out = export(make_checkpoint("classification"))
    assert code == 2
    assert f"error: {out} would differ from the checkpoint by " in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "arguments", "message"),
    [
        ("full", (), "full, which is not empty; give a new folder"),
        ("full/file", (), "full/file, which is not a folder"),
        ("model.safetensors", (), "model.safetensors; give a new folder for --format hf"),
        ("new", ("--metrics", "full/file"), "full/file is not JSON: "),
        ("new", ("--metrics", "full/other"), "full/other is not the metrics.json of eat evaluate"),
        ("new", ("--waveform",), "--waveform is for --format onnx, not for hf"),
    ],
)
def test_export__refuses(
    export, make_checkpoint, tmp_path, monkeypatch, capsys, out, arguments, message
):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/file").write_text("nothing")
    Path("full/other").write_text("[1]")
    code, _ = export(make_checkpoint("pretraining"), *arguments, out=Path(out))
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["full"]


def test_export__a_model_of_time_steps_is_refused(export, make_checkpoint, tmp_path, capsys):
    changes = {"model_prediction_mode": "FRAMES", "task_events": True, "task_single_label": False}
    path = make_checkpoint("classification", **changes)
    assert export(path, out=tmp_path / "folder")[0] == 2
    assert "labels time steps (benchmark=frames)" in capsys.readouterr().err
    assert not (tmp_path / "folder").exists()


def test_card__has_the_numbers_of_an_evaluation_and_no_others(export, make_checkpoint, tmp_path):
    yaml = pytest.importorskip("yaml")
    metrics = {"on": "9 of 10 clips", "split": "eval", "accuracy": 0.875, "mAP": 0.75}
    metrics["n_classes"] = 3
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**metrics, "mAUC": 0.5, "d_prime": None}))
    checkpoint = make_checkpoint("classification", model_mixup=0.5)
    for arguments, values in ((("--metrics", path), [0.875, 0.75, 0.5]), ((), None)):
        card = (export(checkpoint, *arguments)[1] / "README.md").read_text()
        head = yaml.safe_load(card.split("---\n")[1])
        assert head["library_name"] == "transformers"
        assert head["pipeline_tag"] == "audio-classification"
        found = head.get("model-index")
        assert (found is None) == (values is None)
        if values is not None:
            found = [each["value"] for each in found[0]["results"][0]["metrics"]]
            assert found == values
            assert "| accuracy | 0.8750 |" in card
            assert "split `eval`, 9 of 10 clips" in card
        assert ("None were measured" in card) == (values is None)
        assert "- updates: 8\n" in card
        assert "- mixup: 0.5\n" in card
        assert "masks of each clip" not in card


def test_card__the_numbers_of_another_model(export, make_checkpoint, tmp_path, capsys):
    metrics = dict.fromkeys(("on", "split", "accuracy", "mAP", "mAUC", "d_prime"), None)
    metrics.update(n_classes=50, checkpoint="/other.pt")
    path, checkpoint = tmp_path / "metrics.json", make_checkpoint("classification")
    path.write_text(json.dumps(metrics))
    assert export(checkpoint, "--metrics", path, out=tmp_path / "a")[0] == 2
    assert "is of a model with 50 classes, this one has 3" in capsys.readouterr().err
    path.write_text(json.dumps({**metrics, "n_classes": 3, "accuracy": "0.9"}))
    assert export(checkpoint, "--metrics", path, out=tmp_path / "a")[0] == 2
    assert f"{path} is not the metrics.json of eat evaluate" in capsys.readouterr().err
    path.write_text(json.dumps({**metrics, "n_classes": 3}))
    assert export(checkpoint, "--metrics", path, out=tmp_path / "a")[0] == 0
    assert "metrics.json is of /other.pt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("channels", "mixed"), [("mean", "mean(axis=1)"), ("first", "[:, 0]"), ("loudest", "argmax()]")]
)
def test_card__mixes_channels_as_in_training(export, make_checkpoint, channels, mixed):
    path = make_checkpoint("pretraining", task_channels=channels)
    card = (export(path)[1] / "README.md").read_text()
    assert f"{mixed}\ninputs = " in card
    assert ("the mean of the channels" in card) == (channels == "mean")


def test_card__says_what_the_input_is(export, make_checkpoint):
    bins = {"task_norm": "bins", "task_norm_mean": [0.5] * 128, "task_norm_std": [0.2] * 128}
    for changes, found in (
        ({}, "(as Kaldi's); clips are cut to 1.28 s or padded to 1.28 s; values are (x - -4.268)"),
        ({"task_frontend": "db"}, "to 0 to 1 in each clip; clips are cut to 1.28 s or padded to "),
        ({"task_frontend": "db", **bins}, "values are (x - mean) / (2 x std) of each mel bin, see"),
    ):
        card = (export(make_checkpoint("pretraining", **changes))[1] / "README.md").read_text()
        assert found in card
        assert ("in decibels" in card) == ("task_frontend" in changes)


def test_card__an_imported_checkpoint_states_no_training(export, make_checkpoint, tmp_path):
    _, out = export(make_checkpoint("pretraining"))
    assert main(["import", str(out), "--out", str(tmp_path / "again.pt")]) == 0
    assert (
        "The checkpoint does not state it."
        in (export(tmp_path / "again.pt")[1] / "README.md").read_text()
    )
