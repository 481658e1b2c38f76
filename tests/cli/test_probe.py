"""`eat probe`, end to end."""

import json

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main

RATE = 16_000
POOLINGS = ["mean", "cls", "mean+max", "frames", "time"]
LOG_MEL = [
    "mean, deviation", "mean, deviation, maximum, change", "8 segments of time",
    "16 segments of time",
]  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(make_checkpoint):
    return make_checkpoint("pretraining")


def write_split(data, split, count, labels=("up", "down")):
    """Two tones of random level, one after the other: their order is the class."""
    lines, texts = [str(data / "audio")], []
    time = np.arange(RATE // 4) / RATE
    for number in range(count):
        random = np.random.default_rng([len(split), number])
        tones = [
            np.sin(2 * np.pi * hertz * time) * random.uniform(0.05, 0.2) for hertz in (500, 2_500)
        ]
        label = labels[number % len(labels)]
        samples = np.concatenate(tones if number % 2 == 0 else tones[::-1])
        name = f"{split}{number:02d}.wav"
        soundfile.write(data / "audio" / name, samples + random.normal(0, 0.01, len(samples)), RATE)
        lines.append(f"{name}\t{len(samples)}")
        texts.append(f"{name}\t{label}")
    (data / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (data / f"{split}.lbl").write_text("\n".join(texts) + "\n")


def write_data(folder):
    """The splits train, 20 clips, and eval, 12 clips."""
    (folder / "audio").mkdir(parents=True)
    write_split(folder, "train", 20)
    write_split(folder, "eval", 12)
    (folder / "label_descriptors.csv").write_text("0,up,Up\n1,down,Down\n")
    return folder


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def run(checkpoint, data, *arguments):
    command = ["probe", "--checkpoint", checkpoint, "--data", data, "--resamples", "50", *arguments]
    return main([*map(str, command)])


def results(capsys):
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    return json.loads(output, parse_constant=pytest.fail)


def find(found, source, pooling, layer=None):
    (row,) = (
        row for row in found["rows"]
        if (row["source"], row["pooling"], row["layer"]) == (source, pooling, layer)
    )  # fmt: skip
    return row


def test_probe__statistics_do_not_know_the_order(pretrained, data, capsys):
    assert run(pretrained, data, "--json") == 0
    found = results(capsys)
    for method in ("linear", "knn"):
        for pooling in LOG_MEL[:2]:
            assert find(found, "log-mel", pooling)[method]["value"] < 0.8
        for pooling in LOG_MEL[2:]:
            assert find(found, "log-mel", pooling)[method]["value"] == 1
        assert find(found, "model", "time", 1)[method]["value"] == 1


def test_probe__results_as_data(pretrained, data, tmp_path, capsys):
    assert run(pretrained, data, "--json", "--out", tmp_path / "out") == 0
    found = results(capsys)
    assert json.loads((tmp_path / "out" / "probe.json").read_text()) == found
    assert (tmp_path / "out" / "missing.tsv").read_text() == ""
    sides = {"n_missing": 0}
    assert found["train"] == {
        "split": "train", "n_clips": 20, "n_drawn": 20, "n_listed": 20, **sides,
    }  # fmt: skip
    assert found["heldout"] == {
        "split": "eval", "n_clips": 12, "n_drawn": 12, "n_listed": 12, **sides,
    }  # fmt: skip
    assert (found["metric"], found["kind"], found["classes"]) == ("accuracy", "pre-trained", 2)
    assert (found["folds"], found["level"], found["seed"]) == (5, 0.95, 0)
    listed = [(row["source"], row["layer"], row["pooling"]) for row in found["rows"]]
    assert listed == [
        *(("log-mel", None, pooling) for pooling in LOG_MEL),
        *(("model", layer, pooling) for pooling in POOLINGS for layer in (1, 2)),
        *(("random weights", layer, pooling) for pooling in POOLINGS for layer in (1, 2)),
    ]
    for row in found["rows"]:
        for method, setting in (("linear", "C"), ("knn", "k")):
            outcome = row[method]
            assert list(outcome) == ["value", "low", "high", "cv", setting, "is_chosen"]
            assert 0 <= outcome["low"] <= outcome["value"] <= outcome["high"] <= 1
    for method in ("linear", "knn"):
        for source in ("model", "random weights", "log-mel"):
            own = [row[method] for row in found["rows"] if row["source"] == source]
            (chosen,) = (each for each in own if each["is_chosen"])
            assert chosen["cv"] == max(each["cv"] for each in own)
    pairs = [(each["method"], each["source"]) for each in found["differences"]]
    assert pairs == [
        ("linear", "log-mel"), ("linear", "random weights"),
        ("knn", "log-mel"), ("knn", "random weights"),
    ]  # fmt: skip
    best = {
        row["source"]: row["linear"]["value"] for row in found["rows"] if row["linear"]["is_chosen"]
    }
    for each in found["differences"][:2]:
        assert each["value"] == pytest.approx(best["model"] - best[each["source"]])


def test_probe__a_table(pretrained, data, tmp_path, capsys):
    assert run(pretrained, data, "--layer", "-1", "--out", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert (tmp_path / "out" / "probe.md").read_text() == output
    lines = output.splitlines()
    assert lines[0] == f"checkpoint: {pretrained}, pre-trained"
    assert lines[1:4] == [
        "learnt from: 20 of 20 clips of train", "held out: 12 of 12 clips of eval",
        "labels: 2 classes",
    ]  # fmt: skip
    assert lines[4].startswith("accuracy in %")
    table = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|")]
    assert len({len(row) for row in table}) == 1
    assert table[0][1:5] == ["features", "layer", "vector", "width"]
    found = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert len(table) == 2 + len(found["rows"]) == 2 + 4 + 5 + 5
    for cells, row in zip(table[2:], found["rows"]):
        layer = "" if row["layer"] is None else "2"
        assert cells[1:5] == [row["source"], layer, row["pooling"], str(row["width"])]
        value, low, high = (100 * row["linear"][name] for name in ("value", "low", "high"))
        shown = f"{value:.1f} ({low:.1f} to {high:.1f})"
        assert cells[5] == shown + " *" * row["linear"]["is_chosen"]
        assert cells[8].startswith(f"{100 * row['knn']['value']:.1f} (")
    assert lines[-4].startswith("linear probe, chosen rows: model - log-mel ")
    assert " points (" in lines[-4]


def test_probe__without_resamples_has_no_intervals(pretrained, data, capsys):
    assert run(pretrained, data, "--layer", "1", "--resamples", "0", "--json") == 0
    found = results(capsys)
    assert {row["linear"]["low"] for row in found["rows"]} == {None}
    assert found["differences"][0]["high"] is None
    assert run(pretrained, data, "--layer", "1", "--resamples", "0") == 0
    assert " to " not in capsys.readouterr().out


def test_probe__of_a_fine_tuned_checkpoint_takes_its_encoder(make_checkpoint, data, capsys):
    path = make_checkpoint("classification")  # of other classes
    assert run(path, data, "--layer", "mean") == 0
    output = capsys.readouterr().out
    assert output.startswith(f"checkpoint: {path}, fine-tuned; its encoder is probed\n")
    assert "| model          | mean  | mean " in output


def test_probe__clips_are_drawn_by_a_fixed_seed(pretrained, data, capsys):
    arguments = ("--layer", "1", "--max-clips", "10")
    assert run(pretrained, data, *arguments, "--json") == 0
    first = results(capsys)
    assert (first["train"]["n_clips"], first["train"]["n_drawn"]) == (10, 10)
    assert first["train"]["n_listed"] == 20
    assert find(first, "log-mel", LOG_MEL[2])["linear"]["value"] == 1  # labels go with clips
    assert run(pretrained, data, *arguments, "--json") == 0
    assert results(capsys)["rows"] == first["rows"]
    assert run(pretrained, data, *arguments) == 0
    output = capsys.readouterr().out
    assert "learnt from: 10 of 20 clips of train, 10 drawn by a fixed seed\n" in output
    assert run(pretrained, data, "--layer", "1", "--max-clips", "20") == 0
    assert "drawn" not in capsys.readouterr().out


def test_probe__unusable_clips_are_named_and_left_out(pretrained, data, tmp_path, capsys):
    (data / "audio" / "train03.wav").write_text("no audio")
    (data / "audio" / "eval05.wav").unlink()
    arguments = ("--layer", "1", "--out", tmp_path / "out")
    assert run(pretrained, data, *arguments) == 1
    written = capsys.readouterr()
    assert "eat probe: 1 of 20 files cannot be used:\n  train03.wav: " in written.err
    assert "eat probe: 1 of 12 files cannot be used:\n  eval05.wav: " in written.err
    assert "learnt from: 19 of 20 clips of train, 1 missing\n" in written.out
    assert "held out: 11 of 12 clips of eval, 1 missing\n" in written.out
    found = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert find(found, "log-mel", LOG_MEL[2])["linear"]["cv"] == 1
    missing = (tmp_path / "out" / "missing.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in missing] == [
        ["train", "train03.wav"], ["eval", "eval05.wav"],
    ]  # fmt: skip
    assert run(pretrained, data, *arguments, "--max-missing", "0.08") == 1  # 1 of 12 is 0.083
    assert run(pretrained, data, *arguments, "--max-missing", "0.09") == 0


def test_probe__clips_that_the_cache_left_out_are_missing(pretrained, data, tmp_path, capsys):
    (data / "audio" / "eval05.wav").write_text("no audio")
    assert run(pretrained, data, "--layer", "1", "--json") == 1
    before = results(capsys)
    cache = tmp_path / "cache"
    assert main(["cache", str(data), "--out", str(cache)]) == 0
    capsys.readouterr()
    assert run(pretrained, cache, "--layer", "1", "--json") == 1
    found = results(capsys)
    assert found["heldout"] == before["heldout"]
    for row, own in zip(found["rows"], before["rows"]):
        assert row["linear"]["value"] == pytest.approx(own["linear"]["value"], abs=0.1)


def test_probe__several_labels_per_clip(pretrained, data, capsys):
    for split in ("train", "eval"):
        path = data / f"{split}.lbl"
        path.write_text(path.read_text().replace("00.wav\tup", "00.wav\tup,down"))
    assert run(pretrained, data, "--layer", "1", "--json") == 0
    found = results(capsys)
    assert found["metric"] == "mAP"
    assert find(found, "log-mel", LOG_MEL[2])["linear"]["value"] > 0.95
    assert find(found, "log-mel", LOG_MEL[0])["linear"]["value"] < 0.9


def test_probe__a_held_out_class_that_training_lacks_is_said(pretrained, data, capsys):
    (data / "label_descriptors.csv").write_text("0,up,Up\n1,down,Down\n2,flat,Flat\n")
    change(data, "eval.lbl", "eval00.wav\tup", "eval00.wav\tflat")
    assert run(pretrained, data, "--layer", "1") == 0
    assert "labels: 3 classes, 1 of the held-out split not in training" in capsys.readouterr().out


def change(data, name, old, new):
    (data / name).write_text((data / name).read_text().replace(old, new))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: (data / "label_descriptors.csv").unlink(), "the clips have no labels"),
        (lambda data: (data / "train.lbl").unlink(), "train.lbl"),
        (lambda data: (data / "eval.tsv").unlink(), "eval.tsv: no such manifest"),
        (lambda data: change(data, "train.lbl", "down", "up"), "have the same label; give two"),
        (lambda data: write_split(data, "train", 4), "has 4 usable clips; 5 at least are needed"),
        (lambda data: change(data, "eval.lbl", "01.wav\tdown", "01.wav\tsnow"), "label 'snow'"),
        (lambda data: [path.unlink() for path in (data / "audio").glob("eval*")], "none of the 12"),
    ],
)
def test_probe__names_a_fault_of_the_data(pretrained, data, capsys, edit, message):
    edit(data)
    assert run(pretrained, data, "--layer", "1") == 2
    written = capsys.readouterr()
    error = written.err.splitlines()[-1]
    assert error.startswith("eat probe: error: ")
    assert message in error
    assert not written.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "7"], "the layer is 7; choose 1 to 2"),
        (["--layer", "last"], "the layer is 'last'"),
        (["--split", "train"], "--train-split and --split are both 'train'; hold one out"),
        (["--train-split", "big"], "big.tsv: no such manifest"),
        (["--max-clips", "0"], "--max-clips: must be 1 or more, got 0"),
        (["--max-missing", "2"], "--max-missing: must be from 0 to 1, got 2"),
        (["--out", "probe.json"], "--out is probe.json; give a folder"),
    ],
)
def test_probe__an_error_is_one_line(pretrained, data, capsys, arguments, message):
    assert run(pretrained, data, *arguments) == 2
    written = capsys.readouterr()
    assert written.err.startswith("eat probe: error: ")
    assert message in written.err
    assert written.err.count("\n") == 1
    assert not written.out


def test_probe__says_which_package_is_missing(pretrained, data, capsys, monkeypatch):
    monkeypatch.setattr("eat_plugin.cli.probe.find_spec", lambda name: None)
    assert run(pretrained, data) == 2
    error = capsys.readouterr().err
    assert error == (
        "eat probe: error: needs the package scikit-learn, which is not installed: "
        "pip install 'eat-plugin[probe]'\n"
    )
