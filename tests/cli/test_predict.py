"""`eat predict`, end to end."""

import json

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main
from eat_plugin.data.reader import read_window
from eat_plugin.inference import load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint("classification", task_single_label=True, model_loss="ce")


@pytest.fixture
def run(checkpoint):
    def run(*arguments):
        return main([*map(str, ["predict", "--checkpoint", checkpoint, *arguments])])

    return run


def read_table(text):
    return [line.split("\t") for line in text.splitlines()]


def test_predict__a_table_of_the_best(run, checkpoint, sounds, capsys):
    assert run(sounds, "--top", 2) == 0
    header, *rows = read_table(capsys.readouterr().out)
    assert header == ["file", "label", "score"]
    files = [sounds / "a.wav", sounds / "c.wav", sounds / "deep er" / "b.flac"]
    assert [row[0] for row in rows] == [str(file) for file in files for _ in range(2)]
    loaded = load_checkpoint(checkpoint)
    for file, (first, second) in zip(files, zip(rows[::2], rows[1::2])):
        scores = loaded.predict(loaded.spectrogram(file)[None])[0].numpy()
        best = np.argsort(-scores)
        names = ["A dog", "The rain", "A clock"]
        assert [first[1], second[1]] == [names[best[0]], names[best[1]]]
        assert [first[2], second[2]] == [f"{scores[index]:.4f}" for index in best[:2]]


def test_predict__json_has_an_object_per_file(run, checkpoint, sounds, capsys):
    assert run(sounds, "--json", "--batch-size", 2) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(found) for found in objects] == [{"file", "predictions"}] * 3
    assert objects[1]["file"] == str(sounds / "c.wav")
    loaded = load_checkpoint(checkpoint)
    scores = loaded.predict(loaded.spectrogram(sounds / "c.wav")[None])[0]
    found = {entry["label"]: entry["score"] for entry in objects[1]["predictions"]}
    assert [found[label] for label in ("dog", "rain", "clock")] == pytest.approx(
        scores.tolist(), abs=1e-5
    )
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert {entry["name"] for entry in objects[0]["predictions"]} == {
        "A dog", "The rain", "A clock",
    }  # fmt: skip
    ordered = [entry["score"] for entry in objects[0]["predictions"]]
    assert ordered == sorted(ordered, reverse=True)


def test_predict__a_long_file_is_scored_by_its_start_with_a_note(run, sounds, capsys):
    assert run(sounds) == 0
    error = capsys.readouterr().err
    note = "1 file longer than 1.28 s, scored by the start only; --window scores all windows"
    assert f"eat predict: {note}\n" in error
    assert run(sounds / "a.wav") == 0
    assert "scored by their start" not in capsys.readouterr().err


def test_predict__a_time_line(run, checkpoint, sounds, capsys):
    assert run(sounds / "c.wav", "--hop", 1, "--top", 1) == 0
    written = capsys.readouterr()
    header, *rows = read_table(written.out)
    assert header == ["file", "start", "end", "label", "score"]
    spans = [("0.00", "1.28"), ("1.00", "2.28"), ("2.00", "3.20")]
    assert [tuple(row[1:3]) for row in rows] == spans
    assert "scored by their start" not in written.err

    assert run(sounds / "c.wav", sounds / "a.wav", "--window", "0.5", "--hop", 1, "--json") == 0
    long, short = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    spans = [(0, 0.64), (1, 1.64), (2, 2.64), (3, 3.2)]
    assert [(window["start"], window["end"]) for window in long["windows"]] == spans
    assert [(window["start"], window["end"]) for window in short["windows"]] == [(0, 0.5)]
    samples, rate = soundfile.read(sounds / "c.wav", dtype="float32")
    part = sounds / "part.wav"
    soundfile.write(part, samples[2 * rate :], rate, "FLOAT")
    assert run(part, "--window", "0.5", "--json") == 0
    alone = json.loads(capsys.readouterr().out)["windows"][0]["predictions"]
    assert [entry["label"] for entry in alone] == [
        entry["label"] for entry in long["windows"][2]["predictions"]
    ]
    assert [entry["score"] for entry in alone] == pytest.approx(
        [entry["score"] for entry in long["windows"][2]["predictions"]], abs=1e-5
    )


def test_predict__lists_unusable_files_and_scores_the_others(run, sounds, capsys, add_bad_files):
    bad = add_bad_files()
    assert run(sounds, "--json") == 1
    written = capsys.readouterr()
    assert len(written.out.splitlines()) == 3
    assert "eat predict: 3 of 6 files cannot be used:\n" in written.err
    for name in bad:
        assert f"\n  {sounds / name}: " in written.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "0"], "argument --top: must be 1 or more, got 0 (see eat predict --help)"),
        (["nothing.wav"], "nothing.wav does not exist"),
        (
            ["--window", "9"],
            "the window is 9.12 s; the position table of this model ends at 2.56 s",
        ),
    ],
)
def test_predict__an_error_is_one_line(run, sounds, capsys, arguments, message):
    assert run(sounds, *arguments) == 2
    assert capsys.readouterr().err == f"eat predict: error: {message}\n"


def test_predict__needs_a_classifier(make_checkpoint, sounds, capsys):
    path = make_checkpoint("pretraining")
    assert main(["predict", "--checkpoint", str(path), str(sounds)]) == 2
    problem = "is a pre-trained checkpoint without a classifier; fine-tune it first"
    assert capsys.readouterr().err == f"eat predict: error: {path} {problem}\n"


def test_predict__published_checkpoint(shared, sounds, capsys):
    path = shared / "golden" / "ckpt_finetune_tiny.pt"
    assert main(["predict", "--checkpoint", str(path), str(sounds), "--json", "--top", "8"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert {entry["label"] for entry in first["predictions"]} == {f"/m/00{n}" for n in range(8)}


def test_predict__labels_of_a_file(run, sounds, tmp_path, capsys):
    file = tmp_path / "classes.csv"
    file.write_text('index,mid,display_name\n2,/m/c,"C, or c"\n0,/m/a,A\n1,/m/b,B\n')
    assert run(sounds / "a.wav", "--json") == 0
    before = json.loads(capsys.readouterr().out)["predictions"]
    assert run(sounds / "a.wav", "--json", "--labels", file) == 0
    after = json.loads(capsys.readouterr().out)["predictions"]
    names = {"dog": "A", "rain": "B", "clock": "C, or c"}
    assert [names[entry["label"]] for entry in before] == [entry["name"] for entry in after]
    assert [entry["score"] for entry in before] == [entry["score"] for entry in after]


def test_predict__refuses_labels_that_do_not_fit(run, checkpoint, sounds, tmp_path, capsys):
    file = tmp_path / "classes.csv"
    file.write_text("0,a\n1,b\n")
    assert run(sounds / "a.wav", "--labels", file) == 2
    problem = f"2 labels are given for the 3 classes of {checkpoint}"
    assert capsys.readouterr().err == f"eat predict: error: {problem}\n"
    assert run(sounds / "a.wav", "--labels", tmp_path / "none.csv") == 2
    problem = f"--labels: there is no file {tmp_path}/none.csv"
    assert capsys.readouterr().err == f"eat predict: error: {problem}\n"


def test_predict__through_the_console(console, checkpoint, sounds):
    file = sounds / "a.wav"
    code, output, errors = console("predict", "--checkpoint", checkpoint, file, "--json")
    assert code == 0, errors
    assert json.loads(output)["file"] == str(file)


def test_predict__refuses_another_file_as_checkpoint(sounds, capsys):
    path = str(sounds / "a.wav")
    assert main(["predict", "--checkpoint", path, path]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"eat predict: error: {path} is not a PyTorch checkpoint")
    assert error.count("\n") == 1


def test_predict__a_model_of_crops_averages_windows(make_checkpoint, sounds, capsys):
    path = make_checkpoint("classification", task_length="crop", task_eval_windows=2)
    arguments = [str(sounds / "a.wav"), str(sounds / "c.wav"), "--json", "--top", "3"]
    assert main(["predict", "--checkpoint", str(path), *arguments]) == 0
    written = capsys.readouterr()
    assert "scored by their start" not in written.err
    short, long = (json.loads(line)["predictions"] for line in written.out.splitlines())
    loaded = load_checkpoint(path)
    each = []
    for start in (0, 318 - 128):  # frames
        window = read_window(sounds / "c.wav", loaded.front_end, start)
        each.append(loaded.predict(window[None])[0])
    expected = (each[0] + each[1]) / 2
    found = {entry["label"]: entry["score"] for entry in long}
    assert [found[label] for label in ("dog", "rain", "clock")] == pytest.approx(
        expected.tolist(), abs=1e-5
    )
    scores = loaded.predict(loaded.spectrogram(sounds / "a.wav")[None])[0]
    assert max(scores.tolist()) == pytest.approx(short[0]["score"], abs=1e-5)
    # With --window, each window has its own score.
    assert main(["predict", "--checkpoint", str(path), *arguments, "--window", "1.28"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[1])
    assert [window["start"] for window in shown["windows"]] == [0.0, 1.28, 2.56]


def test_predict__with_length_mask_no_padding(make_checkpoint, sounds, capsys):
    path = make_checkpoint("classification", task_length="mask")
    arguments = [*map(str, sorted(sounds.glob("*.wav"))), "--json", "--top", "3"]
    assert main(["predict", "--checkpoint", str(path), *arguments]) == 0
    loaded = load_checkpoint(path)
    for line in capsys.readouterr().out.splitlines():
        shown = json.loads(line)
        spectrogram = loaded.spectrogram(shown["file"])
        assert spectrogram.shape[1] == {"a.wav": 48, "c.wav": 128}[shown["file"][-5:]]
        scores = loaded.predict(spectrogram[None])[0].max().item()
        assert shown["predictions"][0]["score"] == pytest.approx(scores, abs=1e-5)
