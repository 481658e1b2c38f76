"""`eat evaluate`, end to end."""

import csv
import hashlib
import json

import numpy as np
import pytest
import soundfile
import torch
from fairseq.tasks import setup_task
from omegaconf import OmegaConf

from eat_plugin.cli import main
from eat_plugin.inference import load_checkpoint
from eat_plugin.metrics import summarize
from eat_plugin.ranking import RankedScores
from eat_plugin.report import charts

TARGETS = np.eye(3)[np.arange(11) % 3]


@pytest.fixture(scope="module")
def single(make_checkpoint):
    return make_checkpoint("classification", task_single_label=True, model_loss="ce")


@pytest.fixture(scope="module")
def several(make_checkpoint):
    return make_checkpoint("classification")


def run(checkpoint, data, *arguments):
    command = ["evaluate", "--checkpoint", checkpoint, "--data", data, *arguments]
    return main([*map(str, command)])


def scores_of(checkpoint, data, clips=range(11)):
    loaded = load_checkpoint(checkpoint)
    audio = data / "audio"
    return np.concatenate(
        [loaded.predict(loaded.spectrogram(audio / f"{n:02d}.wav")[None]).numpy() for n in clips]
    )


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_evaluate__one_label_per_clip(single, labelled, tmp_path, capsys):
    assert run(single, labelled, "--json", "--out", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    metrics = json.loads(output)
    scores = scores_of(single, labelled)
    expected = summarize(RankedScores(scores, TARGETS), single_label=True)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    right = (scores.argmax(1) == np.arange(11) % 3).sum()
    assert metrics["accuracy"] == pytest.approx(right / 11)
    assert (metrics["n_clips"], metrics["n_missing"], metrics["n_classes"]) == (11, 0, 3)
    assert (metrics["on"], metrics["n_listed"]) == ("11 of 11 clips", 11)
    names = "\n".join(f"{number:02d}.wav" for number in range(11))
    assert metrics["clips_sha256"] == hashlib.sha256(names.encode()).hexdigest()
    interval = metrics["interval"]
    assert (interval["metric"], interval["level"]) == ("accuracy", 0.95)
    assert 0 <= interval["low"] < metrics["accuracy"] < interval["high"] <= 1

    out = tmp_path / "out"
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert (out / "missing.tsv").read_text() == ""
    assert (out / "classes.png").read_bytes().startswith(b"\x89PNG")
    rows = read_csv(out / "classes.csv")
    assert [(row["label"], row["name"], row["clips"]) for row in rows] == [
        ("dog", "A dog", "4"), ("rain", "The rain", "4"), ("clock", "A clock", "3"),
    ]  # fmt: skip
    ranked = RankedScores(scores, TARGETS)
    for row, precision, area in zip(rows, ranked.average_precision(), ranked.roc_auc()):
        assert float(row["AP"]) == pytest.approx(precision)
        assert float(row["AUC"]) == pytest.approx(area)
    predicted, true = scores.argmax(1), np.arange(11) % 3
    for index, row in enumerate(rows):
        hits = ((predicted == index) & (true == index)).sum()
        assert float(row["recall"]) == pytest.approx(hits / (true == index).sum())
        guesses = (predicted == index).sum()
        shown = float(row["precision"]) if row["precision"] else None
        assert shown == (pytest.approx(hits / guesses) if guesses else None)


def test_evaluate__several_labels_per_clip(several, labelled, tmp_path, capsys):
    lines = (labelled / "eval.lbl").read_text().replace("00.wav\tdog", "00.wav\tdog,clock")
    (labelled / "eval.lbl").write_text(lines)
    targets = TARGETS.copy()
    targets[0, 2] = 1
    assert run(several, labelled, "--json", "--out", tmp_path / "out") == 0
    metrics = json.loads(capsys.readouterr().out)
    ranked = RankedScores(scores_of(several, labelled), targets)
    expected = summarize(ranked, single_label=False)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert metrics["accuracy"] is None
    assert metrics["interval"]["metric"] == "mAP"
    rows = read_csv(tmp_path / "out" / "classes.csv")
    assert list(rows[0]) == ["label", "name", "clips", "AP", "AUC"]
    assert [row["clips"] for row in rows] == ["4", "4", "4"]


def test_evaluate__classes_in_another_order_are_mapped(single, labelled, capsys):
    assert run(single, labelled, "--json") == 0
    before = json.loads(capsys.readouterr().out)
    (labelled / "label_descriptors.csv").write_text("0,clock,x\n1,dog,y\n2,rain,z\n")
    assert run(single, labelled, "--json", "--batch-size", 3) == 0
    after = json.loads(capsys.readouterr().out)
    assert after.pop("interval") == pytest.approx(before.pop("interval"), abs=1e-6)
    assert after == pytest.approx(before, abs=1e-6)


def test_evaluate__a_class_that_does_not_occur(single, labelled, tmp_path, capsys):
    for name in ("eval.tsv", "eval.lbl"):  # clips 00 and 01: dog and rain
        lines = (labelled / name).read_text().splitlines()
        (labelled / name).write_text("\n".join(lines[: 3 if name == "eval.tsv" else 2]) + "\n")
    assert run(single, labelled, "--json", "--out", tmp_path / "out") == 0
    metrics = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    ranked = RankedScores(scores_of(single, labelled, range(2)), TARGETS[:2])
    assert metrics["mAP"] == pytest.approx(np.nanmean(ranked.average_precision()))
    rows = read_csv(tmp_path / "out" / "classes.csv")
    assert (rows[2]["clips"], rows[2]["AP"], rows[2]["recall"]) == ("0", "", "")


def test_evaluate__unusable_clips_are_listed_and_left_out(single, labelled, tmp_path, capsys):
    (labelled / "audio" / "03.wav").unlink()
    (labelled / "audio" / "07.wav").write_text("no audio")
    assert run(single, labelled, "--json", "--out", tmp_path / "out", "--batch-size", 4) == 1
    written = capsys.readouterr()
    metrics = json.loads(written.out)
    assert (metrics["n_clips"], metrics["n_missing"], metrics["n_listed"]) == (9, 2, 11)
    assert metrics["on"] == "9 of 11 clips"
    kept = [number for number in range(11) if number not in (3, 7)]
    names = "\n".join(f"{number:02d}.wav" for number in kept)
    assert metrics["clips_sha256"] == hashlib.sha256(names.encode()).hexdigest()
    ranked = RankedScores(scores_of(single, labelled, kept), TARGETS[kept])
    expected = summarize(ranked, single_label=True)
    assert metrics["mAP"] == pytest.approx(expected["mAP"], abs=1e-6)
    lines = (tmp_path / "out" / "missing.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["03.wav", "07.wav"]
    assert "eat evaluate: 2 of 11 files cannot be used:\n  03.wav: cannot be opened" in written.err


def test_evaluate__every_figure_says_on_how_many_clips_it_is(single, labelled, capsys):
    (labelled / "audio" / "03.wav").unlink()
    for share, code in (("0", 1), ("0.09", 1), ("0.1", 0)):  # 1 of 11 is 0.0909
        assert run(single, labelled, "--max-missing", share) == code
        lines = capsys.readouterr().out.splitlines()
        assert all(" on 10 of 11 clips" in line for line in lines[:4])
        assert lines[0].startswith("accuracy")
        assert "(95 % interval" in lines[0]
    assert run(single, labelled, "--max-missing", "1.5") == 2
    assert "--max-missing: must be from 0 to 1, got 1.5" in capsys.readouterr().err


def test_evaluate__clips_that_the_cache_left_out_are_missing(single, labelled, tmp_path, capsys):
    (labelled / "audio" / "03.wav").write_text("no audio")
    cache = tmp_path / "cache"
    assert main(["cache", str(labelled), "--out", str(cache)]) == 0  # of a held-out split alone
    capsys.readouterr()
    assert run(single, cache, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["on"], found["n_missing"]) == ("10 of 11 clips", 1)
    head = json.loads((cache / "cache.json").read_text())
    del head["splits"]["eval"]["clips"]  # as of an earlier version
    (cache / "cache.json").write_text(json.dumps(head))
    assert run(single, cache, "--json") == 0
    assert json.loads(capsys.readouterr().out)["on"] == "10 of 10 clips"


def test_evaluate__a_cache_of_other_channels_is_refused(single, labelled, tmp_path, capsys):
    cache = tmp_path / "cache"
    arguments = ["cache", str(labelled), "--out", str(cache), "--channels", "first"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert run(single, cache) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "was made with channels=first, but channels=mean is needed" in error


def test_evaluate__the_order_of_clips_does_not_matter(single, labelled, capsys):
    assert run(single, labelled, "--json") == 0
    before = json.loads(capsys.readouterr().out)
    for name in ("eval.tsv", "eval.lbl"):
        lines = (labelled / name).read_text().splitlines()
        root = lines[:1] if name == "eval.tsv" else []
        turned = [*root, *reversed(lines[len(root) :])]
        (labelled / name).write_text("\n".join(turned) + "\n")
    assert run(single, labelled, "--json", "--batch-size", "4") == 0
    after = json.loads(capsys.readouterr().out)
    for metrics in (before, after):
        del metrics["interval"]
    assert after == pytest.approx(before, abs=1e-6)


def test_evaluate__a_clip_of_another_length_is_unusable(single, labelled, capsys):
    write(labelled, "eval.tsv", "04.wav\t4800", "04.wav\t9600")
    assert run(single, labelled, "--json") == 1
    written = capsys.readouterr()
    assert json.loads(written.out)["n_missing"] == 1
    assert "04.wav: has 4800 samples, but 9600 were expected" in written.err


def test_evaluate__a_table_of_metrics(single, labelled, capsys):
    assert run(single, labelled, "--resamples", "0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "accuracy", "mAP", "mAUC", "d_prime", "n_clips", "n_missing", "clips_sha256",
    ]  # fmt: skip
    assert run(single, labelled, "--resamples", "20") == 0
    assert "(95 % interval 0." in capsys.readouterr().out.splitlines()[0]


def write(data, name, old, new):
    (data / name).write_text((data / name).read_text().replace(old, new))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("label_descriptors.csv", "rain", "snow"),
            "1 only in the data: 'snow'; 1 only in the checkpoint: 'rain'",
        ),
        (("label_descriptors.csv", "2,clock,A clock\n", ""), "1 only in the checkpoint: 'clock'"),
        (("eval.lbl", "04.wav\train", "04.wav\tsnow"), "eval.lbl:5: unknown label 'snow'"),
        (("eval.lbl", "04.wav\train", "04.wav\train,dog"), "eval.lbl:5: expected one label"),
        (("eval.lbl", "10.wav\train\n", ""), "eval.lbl has the labels of 10 clips"),
        (("eval.tsv", "04.wav\t4800", "04.wav"), "eval.tsv:6: expected 'path<TAB>samples'"),
    ],
)
def test_evaluate__names_a_mismatch_of_the_data(single, labelled, capsys, change, message):
    write(labelled, *change)
    assert run(single, labelled) == 2
    error = capsys.readouterr().err
    assert error.startswith("eat evaluate: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "test.tsv: no such manifest; there are: eval.tsv; "),
        (["--resamples", "-1"], "--resamples: must be 0 or more, got -1"),
        (["--batch-size", "0"], "--batch-size: must be 1 or more, got 0"),
    ],
)
def test_evaluate__an_error_is_one_line(single, labelled, capsys, arguments, message):
    assert run(single, labelled, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("file", "--out is {}/file, which is not a folder"),
        ("file/out", "--out is {}/file/out, but {}/file is not a folder"),
        ("metrics.json", "--out is {}/metrics.json; give a folder"),
    ],
)
def test_evaluate__refuses_a_file_in_place_of_the_folder(
    single, labelled, tmp_path, capsys, name, problem
):
    (tmp_path / "file").touch()
    assert run(single, labelled, "--out", tmp_path / name) == 2
    problem = problem.replace("{}", str(tmp_path))
    assert capsys.readouterr() == ("", f"eat evaluate: error: {problem}\n")
    assert not (tmp_path / "metrics.json").exists()


def test_evaluate__refuses_a_folder_in_place_of_a_file(single, labelled, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(single, labelled, "--out", out) == 0
    (out / "classes.csv").unlink()
    (out / "classes.csv").mkdir()
    capsys.readouterr()
    assert run(single, labelled, "--out", out) == 2
    assert capsys.readouterr() == (
        "", f"eat evaluate: error: {out}/classes.csv is a folder, where a file is written; "
        "remove it\n",
    )  # fmt: skip
    assert (out / "metrics.json").exists()


def test_evaluate__refuses_a_data_folder_for_its_files(single, labelled, tmp_path, capsys):
    (labelled / "missing.tsv").write_text("listed by eat manifest\n")
    assert run(single, labelled, "--out", labelled) == 2
    assert "a data folder; give another one" in capsys.readouterr().err
    assert (labelled / "missing.tsv").read_text() == "listed by eat manifest\n"


def test_evaluate__names_the_files_that_were_written(
    single, labelled, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "evaluation"
    assert run(single, labelled, "--out", out) == 0
    names = "metrics.json, classes.csv, classes.png, missing.tsv, clips.npz, record.json"
    line = f"{out}: {names}"
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert sorted(path.name for path in out.iterdir()) == sorted(line.split(": ")[1].split(", "))
    assert run(single, labelled, "--out", out, "--json") == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_evaluate__nothing_to_evaluate(single, make_checkpoint, labelled, capsys):
    for path in (labelled / "audio").iterdir():
        path.unlink()
    assert run(single, labelled, "--json") == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert "none of the 11 files can be used" in written.err
    assert run(make_checkpoint("pretraining"), labelled) == 2
    assert "is a pre-trained checkpoint without a classifier" in capsys.readouterr().err


def test_evaluate__without_matplotlib_writes_the_rest(
    single, labelled, tmp_path, capsys, monkeypatch
):
    def refuse(*args):
        raise ValueError("drawing needs matplotlib")

    assert run(single, labelled, "--out", tmp_path / "out") == 0
    monkeypatch.setattr(charts, "draw_confusion", refuse)
    assert run(single, labelled, "--out", tmp_path / "out") == 0  # removes the earlier picture
    assert "eat evaluate: no picture: drawing needs matplotlib" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "metrics.json", "missing.tsv", "classes.csv", "clips.npz", "record.json",
    }  # fmt: skip


def test_evaluate__an_interrupted_one_leaves_no_file_of_an_earlier_one(
    single, labelled, tmp_path, monkeypatch
):
    def interrupt(*args):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    assert run(single, labelled, "--out", out) == 0
    (out / "notes.txt").touch()
    monkeypatch.setattr("eat_plugin.cli.evaluate.write_record", interrupt)
    assert run(single, labelled, "--out", out) == 130
    found = {path.name for path in out.iterdir()}
    assert found == {"missing.tsv", "classes.csv", "classes.png", "notes.txt"}


def test_evaluate__through_the_console(console, single, labelled):
    code, output, errors = console(
        "evaluate", "--checkpoint", single, "--data", labelled, "--split", "eval", "--json"
    )
    assert code == 0, errors
    assert {"accuracy", "mAP", "n_clips"} < set(json.loads(output))
    assert output.count("\n") == 1


def test_evaluate__a_model_of_crops_averages_windows(make_checkpoint, labelled, capsys):
    """The score of a clip is the mean over the windows of validation."""
    for number in (1, 4):
        samples = np.random.default_rng(number).normal(0, 0.01 * number, 40_000)
        soundfile.write(labelled / "audio" / f"{number:02d}.wav", samples, 16_000)
    text = (labelled / "eval.tsv").read_text()
    for number in (1, 4):
        text = text.replace(f"{number:02d}.wav\t4800", f"{number:02d}.wav\t40000")
    (labelled / "eval.tsv").write_text(text)
    (labelled / "audio" / "07.wav").write_text("no audio")
    path = make_checkpoint(
        "classification", task_length="crop", task_single_label=True, model_loss="ce",
        task_data=str(labelled), task_norm_mean=-4.268, task_norm_std=4.569,
    )  # fmt: skip
    assert run(path, labelled, "--json", "--batch-size", 4) == 1
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["n_clips"] == 10

    loaded = load_checkpoint(path)
    task = setup_task(OmegaConf.create(loaded.cfg).task)
    task.load_dataset("eval")
    dataset = task.dataset("eval")
    used = [number for number in range(11) if number != 7]
    batch = dataset.collater([dataset[number] for number in used])
    assert batch["net_input"]["num_windows"] == [3 if number in (1, 4) else 1 for number in used]
    with torch.no_grad():
        output = loaded.model(**batch["net_input"])
    ranked = RankedScores(output["_predictions"].numpy(), TARGETS[used])
    expected = summarize(ranked, single_label=True)
    for name in ("mAP", "accuracy"):
        assert metrics[name] == pytest.approx(expected[name], abs=1e-6)
