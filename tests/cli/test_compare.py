"""`eat compare`: evaluations, checkpoints and configurations."""

import json

import pytest

from eat_plugin.cli import main


@pytest.fixture(scope="module")
def checkpoints(make_checkpoint):
    options = {"task_single_label": True, "model_loss": "ce"}
    return [
        make_checkpoint("classification", **options),
        make_checkpoint("classification", **options, model_label_smoothing=0.25),
    ]


def evaluate(checkpoint, data, out, *more):
    command = ["evaluate", "--checkpoint", checkpoint, "--data", data, "--out", out, *more]
    return main([*map(str, command), "--resamples", "0"])


def test_compare__evaluations(checkpoints, labelled, tmp_path, capsys):
    (tmp_path / "list.csv").write_text("# ids\n00, 0\n01, 0\nabsent, 0\n")
    official = ["--official", tmp_path / "list.csv"]
    assert evaluate(checkpoints[0], labelled, tmp_path / "a", *official) == 0
    shown = capsys.readouterr().out
    assert "official     2 of 3 ids of" in shown
    assert "(66.67%); 9 clips not in it" in shown
    assert (tmp_path / "a" / "uncovered.txt").read_text() == "absent\n"
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["official"]["n_covered"] == 2
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    assert record["configuration"]["task"]["single_label"] is True
    assert record["evaluation"]["data"].keys() == {"eval"}
    assert record["training"] is None  # the checkpoint has none

    (labelled / "audio" / "03.wav").unlink()
    assert evaluate(checkpoints[1], labelled, tmp_path / "b") == 1
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    shown = capsys.readouterr().out
    assert "on 10 clips that both have (first 11, second 10)" in shown
    assert "difference +0.0000 (95 % interval +0.0000 to +0.0000): within the noise" in shown
    assert "\n  model.label_smoothing: 0.0 -> 0.25\n" in shown
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["is_real"] for row in found["metrics"]] == [False, False]
    assert found["options"]["model.label_smoothing"] == [0.0, 0.25]


def test_compare__checkpoint_and_configuration(checkpoints, tmp_path, capsys):
    assert main(["compare", str(checkpoints[0]), str(checkpoints[0])]) == 0
    assert "the same options\nthe same records" in capsys.readouterr().out
    assert main(["compare", "pretrain", "sslam"]) == 0
    shown = capsys.readouterr().out
    assert "\n  model.retention_loss: 0.0 -> 1.0\n" in shown
    assert main(["config", "--copy", str(tmp_path / "own")]) == 0
    path = tmp_path / "own" / "pretrain.yaml"
    path.write_text(path.read_text().replace("clip_norm: 4.0", "clip_norm: 3.0"))
    capsys.readouterr()
    assert main(["compare", "pretrain", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["options that differ: 1", "  optimization.clip_norm: 4.0 -> 3.0"]


@pytest.mark.parametrize(
    ("second", "problem"),
    [("pretrein", "there is no pretrein: give a folder"), ("text.pt", "is not a readable checkpo")],
)
def test_compare__mistakes(tmp_path, monkeypatch, capsys, second, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("text")
    assert main(["compare", "pretrain", second]) == 2
    assert problem in capsys.readouterr().err


def test_compare__an_evaluation_with_something_else(checkpoints, labelled, tmp_path, capsys):
    assert evaluate(checkpoints[0], labelled, tmp_path / "a") == 0
    capsys.readouterr()
    assert main(["compare", str(checkpoints[0]), str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'a'} is an evaluation, {checkpoints[0]} is not" in error


def test_compare__an_older_evaluation(tmp_path, capsys):
    (tmp_path / "metrics.json").write_text("{}")
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "has no clips.npz: evaluate again" in capsys.readouterr().err


def test_evaluate__refuses_a_list_of_other_clips(checkpoints, labelled, tmp_path, capsys):
    (tmp_path / "list.csv").write_text("other\n")
    more = ["--official", tmp_path / "list.csv"]
    assert evaluate(checkpoints[0], labelled, tmp_path / "out", *more) == 2
    assert "has none of the clips: its first id is 'other'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
