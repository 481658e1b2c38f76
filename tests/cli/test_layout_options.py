"""`eat manifest --layout ...` from the command line."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin import cli
from eat_plugin.data.label_set import read_label_set
from eat_plugin.data.labels import clip_weights, read_labels, read_weights
from eat_plugin.data.manifest import read_manifest
from eat_plugin.prepare import listing
from eat_plugin.prepare.layouts import LAYOUTS


def add_clips(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros(800), 8_000)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def run(*arguments: object) -> int:
    return cli.main(["manifest", *map(str, arguments)])


def read(data: Path, split: str) -> dict:
    """The labels of each clip of a split, read as training reads them."""
    manifest = read_manifest(data / f"{split}.tsv")
    label_set = read_label_set(data / "label_descriptors.csv")
    labels = read_labels(data / f"{split}.lbl", label_set, manifest, single_label=False)
    assert labels.names_match
    return {
        manifest.name(index): [label_set.ids[position] for position in labels.classes(index)]
        for index in range(len(manifest))
    }


def counts_in(data: Path) -> list:
    with open(data / "class_counts.csv", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Ten clips of dogs, five of cats, one of a cow, and a damaged one of a newt."""
    folder = tmp_path / "animals"
    add_clips(folder, *(f"dog/{number}.wav" for number in range(10)), "cow/1.wav")
    add_clips(folder, *(f"cat/{number % 2}/{number}.wav" for number in range(5)))
    (folder / "newt").mkdir()
    (folder / "newt" / "1.wav").touch()
    return folder


def test_folders__writes_all_files(
    animals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_clips(animals, "stray.wav")
    data = tmp_path / "data"
    assert run(animals, "--out", data, "--layout", "folders") == 0
    train = read(data, "train")
    assert len(train) == 16
    assert (train["cat/1/3.wav"], train["cow/1.wav"]) == (["cat"], ["cow"])
    assert (data / "label_descriptors.csv").read_text() == "0,cat,cat\n1,cow,cow\n2,dog,dog\n"
    assert counts_in(data) == [
        ["label", "name", "train"],
        *(["cat", "cat", "5"], ["cow", "cow", "1"], ["dog", "dog", "10"]),
    ]
    weights = read_weights(data / "train.weights.csv", 16)
    expected = [1000 / 5.01] * 5 + [1000 / 1.01] + [1000 / 10.01] * 10
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert (data / "rejected.tsv").read_text().splitlines() == [
        "newt/1.wav\tis empty: 0 bytes",
        "stray.wav\tis not in a folder named after its class",
    ]
    names = {*("train.tsv", "train.lbl", "train.weights.csv", "rejected.tsv")}
    assert {path.name for path in data.iterdir()} == {
        *names,
        *("label_descriptors.csv", "class_counts.csv"),
    }
    shown = capsys.readouterr().out
    for expected in (
        "train.tsv: 16 clips, ",
        "3 classes from 1 clip ('cow') to 10 ('dog')",
        "1 class excluded, without a usable clip: 'newt'",
    ):
        assert expected in shown
    assert shown.endswith(f"\n{data}/rejected.tsv: 2 files rejected, with the reasons\n")


def test_folders__holds_out_a_fraction_of_each_class(animals: Path, tmp_path: Path) -> None:
    def split(seed: int) -> tuple:
        options = ("--valid", 0.2, "--seed", seed)
        assert run(animals, "--out", tmp_path, "--layout", "folders", *options) == 0
        return tuple(read(tmp_path, split) for split in ("train", "eval"))

    train, held_out = split(1)
    assert not {*train} & {*held_out}
    assert [counts[2:] for counts in counts_in(tmp_path)] == [
        *(["train", "eval"], ["4", "1"], ["1", "0"], ["8", "2"])
    ]
    assert len(read_weights(tmp_path / "train.weights.csv", 13)) == 13
    assert not (tmp_path / "valid.tsv").exists()
    assert split(1) == (train, held_out)
    assert split(2) != (train, held_out)


def test_folders__under_another_name(animals: Path, tmp_path: Path) -> None:
    assert run(animals, "--out", tmp_path, "--layout", "folders", "--split", "test") == 0
    assert len(read(tmp_path, "test")) == 16
    assert not (tmp_path / "train.weights.csv").exists()


def test_folders__refuses_to_train_on_clips_held_out_earlier(
    animals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (animals, "--out", tmp_path, "--layout", "folders")
    assert run(*arguments, "--valid", 0.2) == 0
    plain = arguments[:3]
    for later in (arguments, plain, (*plain, "--valid", 0.2)):
        assert run(*later) == 2
        assert "eval.tsv, written by an earlier run, has 3" in capsys.readouterr().err


def test_folders__refuses_to_hold_out_training_clips_of_an_earlier_run(
    animals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (animals, "--out", tmp_path, "--layout", "folders")
    assert run(*arguments) == 0
    assert run(*arguments, "--split", "eval") == 2
    assert "train.tsv, written by an earlier run, has 16" in capsys.readouterr().err
    assert not (tmp_path / "eval.tsv").exists()
    assert run(*arguments, "--split", "more") == 0  # not the name of a held-out split


def test_folders__each_split_has_its_own_reports(animals: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run(animals, "--out", data, "--layout", "folders") == 0
    before = (data / "rejected.tsv").read_text()
    (animals / "cat" / "broken.wav").write_text("no audio")
    assert run(animals, "--out", data, "--layout", "folders", "--split", "more") == 0
    assert (data / "rejected.tsv").read_text() == before
    after = (data / "rejected.more.tsv").read_text()
    assert after.startswith("cat/broken.wav\t")
    assert after.endswith(before)
    assert run(animals, "--out", data, "--layout", "folders", "--split", "rejected.x") == 2


def test_folders__refuses_other_classes_than_an_earlier_split(
    animals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert run(animals, "--out", data, "--layout", "folders", "--split", "test") == 0
    before = (data / "label_descriptors.csv").read_bytes()
    add_clips(tmp_path / "birds", "jay/1.wav", "owl/1.wav")
    assert run(tmp_path / "birds", "--out", data, "--layout", "folders") == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert f"{data}/test.lbl:1: unknown label 'cat'" in shown
    assert "remove it or choose another --out" in shown
    assert (data / "label_descriptors.csv").read_bytes() == before
    assert not (data / "train.tsv").exists()


def test_folders__replaces_a_split_of_other_classes(animals: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run(animals, "--out", data, "--layout", "folders") == 0
    add_clips(tmp_path / "birds", "jay/1.wav", "owl/1.wav")
    assert run(tmp_path / "birds", "--out", data, "--layout", "folders") == 0
    assert read(data, "train") == {"jay/1.wav": ["jay"], "owl/1.wav": ["owl"]}
    assert counts_in(data)[0] == ["label", "name", "train"]


def test_esc50__fold_and_missing_files(tmp_path: Path) -> None:
    names = [(fold, kind) for fold in (1, 2) for kind in (1, 0)]
    rows = [f"{fold}-{kind}.wav,{fold},{kind * 7},kind {kind}" for fold, kind in names]
    write(tmp_path / "esc50.csv", "filename,fold,target,category", *rows, "gone.wav,1,0,kind 0")
    add_clips(tmp_path / "audio", "1-0.wav", "1-1.wav", "2-0.wav", "2-1.wav", "unlisted.wav")
    assert run(tmp_path, "--out", tmp_path, "--layout", "esc50", "--fold", 2) == 0
    assert read(tmp_path, "train") == {"audio/1-0.wav": ["kind 0"], "audio/1-1.wav": ["kind 1"]}
    assert read(tmp_path, "eval") == {"audio/2-0.wav": ["kind 0"], "audio/2-1.wav": ["kind 1"]}
    assert counts_in(tmp_path)[0] == ["label", "name", "train", "eval"]
    assert (tmp_path / "rejected.tsv").read_text() == (
        "audio/gone.wav\tcannot be opened: No such file or directory\n"
    )


def test_speech_commands__official_split(tmp_path: Path) -> None:
    add_clips(tmp_path, *(f"{word}/{number}.wav" for word in ("yes", "no") for number in range(3)))
    add_clips(tmp_path, "_background_noise_/hum.wav")
    write(tmp_path / "validation_list.txt", "no/1.wav", "yes/1.wav")
    write(tmp_path / "testing_list.txt", "no/2.wav", "yes/2.wav")
    assert run(tmp_path, "--out", tmp_path, "--layout", "speech_commands") == 0
    for number, split in enumerate(("train", "valid", "eval")):
        assert read(tmp_path, split) == {
            f"no/{number}.wav": ["no"],
            f"yes/{number}.wav": ["yes"],
        }
    assert (tmp_path / "label_descriptors.csv").read_text() == "0,no,no\n1,yes,yes\n"


@pytest.fixture
def audioset(tmp_path: Path) -> Path:
    folder = tmp_path / "audioset"
    add_clips(folder, "aaaaaaaaaaa.wav", "Ybbbbbbbbbbb.wav", "0/ccccccccccc_0_10.wav")
    write(folder / "classes.csv", "index,mid,display_name", "0,/m/b,B", '1,/m/a,"A, a"', "2,/m/c,C")
    row = '{}, 0.000, 10.000, "{}"'
    train = (("aaaaaaaaaaa", "/m/a"), ("bbbbbbbbbbb", "/m/a,/m/b"), ("ddddddddddd", "/m/c"))
    write(folder / "train.csv", "# comment", *(row.format(*fields) for fields in train))
    write(folder / "eval.csv", row.format("ccccccccccc", "/m/b"))
    return folder


def run_audioset(folder: Path, data: Path, split: str, *options: object) -> int:
    tables = ("--csv", folder / f"{split}.csv", "--classes", folder / "classes.csv")
    return run(folder, "--out", data, "--layout", "audioset", *tables, "--split", split, *options)


def test_audioset__one_split_after_another(
    audioset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert run_audioset(audioset, data, "train") == 0
    assert "missing.tsv: 1 missing\nnot in the table: 1 file\n" in capsys.readouterr().out
    assert (data / "missing.tsv").read_text() == "ddddddddddd\t0.000\t10.000\n"
    weights = read_weights(data / "train.weights.csv", 2)
    assert run_audioset(audioset, data, "eval") == 0
    assert read(data, "train") == {
        "Ybbbbbbbbbbb.wav": ["/m/a", "/m/b"],
        "aaaaaaaaaaa.wav": ["/m/a"],
    }
    assert read(data, "eval") == {"0/ccccccccccc_0_10.wav": ["/m/b"]}
    np.testing.assert_array_equal(read_weights(data / "train.weights.csv", 2), weights)
    np.testing.assert_allclose(weights, [1000 / 2.01 + 1000 / 1.01, 1000 / 2.01])
    assert (data / "label_descriptors.csv").read_text() == '0,/m/b,B\n1,/m/a,"A, a"\n2,/m/c,C\n'
    assert counts_in(data) == [
        ["label", "name", "eval", "train"],
        *(["/m/b", "B", "1", "1"], ["/m/a", "A, a", "0", "2"], ["/m/c", "C", "0", "0"]),
    ]


def test_csv__split_column_and_several_labels(tmp_path: Path) -> None:
    add_clips(tmp_path, "x/1.wav", "x/2.wav", "x/3.wav")
    rows = ("x/3.wav,train,a;b", "x/1.wav,test,b", "x/2.wav,train,c")
    table = write(tmp_path / "t.csv", "file,part,tags", *rows)
    columns = ("--path-column", "file", "--label-column", "tags", "--split-column", "part")
    arguments = (tmp_path, "--out", tmp_path, "--layout", "csv", "--csv", table, *columns)
    assert run(*arguments, "--label-separator", ";") == 0
    assert read(tmp_path, "train") == {"x/2.wav": ["c"], "x/3.wav": ["a", "b"]}
    assert read(tmp_path, "test") == {"x/1.wav": ["b"]}


def test_csv__default_columns_and_hold_out(tmp_path: Path) -> None:
    add_clips(tmp_path, *(f"{number}.wav" for number in range(8)))
    rows = [f"{number}.wav\t{number % 2}" for number in range(8)]
    table = write(tmp_path / "t.tsv", "filename\tlabel", *rows)
    arguments = (tmp_path, "--out", tmp_path / "data", "--layout", "csv", "--csv", table)
    assert run(*arguments, "--valid", 0.25) == 0
    assert (len(read(tmp_path / "data", "train")), len(read(tmp_path / "data", "eval"))) == (6, 2)


def test_pattern__holds_out_groups(tmp_path: Path) -> None:
    add_clips(tmp_path, *(f"{who}/{what}_1.wav" for who in "abc" for what in ("hi", "bye")))
    add_clips(tmp_path, "a/noise.wav")
    pattern = "^(?P<group>.)/(?P<label>.*)_"
    arguments = (tmp_path, "--out", tmp_path, "--layout", "pattern", "--pattern", pattern)
    assert run(*arguments, "--valid-groups", "b, c") == 0
    assert read(tmp_path, "train") == {"a/bye_1.wav": ["bye"], "a/hi_1.wav": ["hi"]}
    assert {name[0] for name in read(tmp_path, "eval")} == {"b", "c"}
    rejected = (tmp_path / "rejected.tsv").read_text()
    assert rejected == "a/noise.wav\thas no label that matches --pattern\n"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--layout folders --fold 1", "--layout folders does not use --fold, which is for: esc50"),
        ("--layout plain --csv t.csv", "does not use --csv, which is for: audioset, csv"),
        ("--layout esc50 --ext wav", "--layout esc50 does not use --ext"),
        ("--layout speech_commands --valid 0.5", "speech_commands does not use --valid"),
        ("--layout speech_commands --split x", "speech_commands does not use --split"),
        ("--layout csv", "--layout csv needs --csv"),
        ("--layout audioset --csv t.csv", "--layout audioset needs --classes"),
        ("--layout pattern", "--layout pattern needs --pattern"),
        ("--layout esc50 --fold 1 --valid 0.1", "--valid and --fold both hold clips out"),
        (
            "--layout pattern --pattern . --valid-groups a --valid 0.1",
            "--valid and --valid-groups both hold",
        ),
        (
            "--layout csv --csv t.csv --split-column a --valid 0.1",
            "--valid and --split-column both hold",
        ),
        ("--layout csv --csv t.csv --split-column a --split b", "--split names one split"),
        ("--layout csv --csv t.csv --label-separator=", "must not be empty"),
        ("--layout folders --json-key a", "does not use --json-key, which is for: webdataset"),
        ("--layout webdataset", "no audio file under"),
        ("--layout pattern --pattern . --valid-groups ,", "must not be empty"),
        ("--layout folders --valid 0.1 --split eval", "--valid needs another --split than 'eval'"),
        ("--layout esc50 --fold 1 --split eval", "--fold needs another --split than 'eval'"),
        ("--layout folders --split missing", "--split 'missing' cannot be the name"),
        ("--layout esc50 --fold 1", "there is neither meta/esc50.csv nor esc50.csv in"),
        ("--layout csv --csv none.csv", "--csv: there is no file none.csv"),
        ("--layout csv --csv t.csv", "t.csv:1: no column 'label'; there are: filename, part"),
        ("--layout csv --csv t.csv --label-column part --split-column part", "split 'x/y' cannot"),
        ("--layout pattern --pattern (?P<label>", "is not a regular expression"),
        ("--layout pattern --pattern (?P<label>zzz)", "no audio file under"),
        ("--layout pattern --pattern (?P<label>wav)", "are of one class, 'wav'; two are needed"),
        (
            "--layout csv --csv absent.csv --label-column class",
            "data/rejected.tsv: 1 file rejected, with the reasons",
        ),
        ("--layout folders --valid 0.5", "--valid 0.5 holds out nothing: no class has two clips"),
        (
            "--layout pattern --pattern (?P<group>.)/(?P<label>.)[.] --valid-groups c",
            "the split 'eval' has no usable clip",
        ),
    ],
)
def test_layouts__a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: str,
    problem: str,
) -> None:
    add_clips(tmp_path, "a/1.wav", "b/2.wav")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "3.wav").touch()
    write(tmp_path / "t.csv", "filename,part", "a/1.wav,x/y")
    write(tmp_path / "absent.csv", "filename,class", "a/1.wav,k", "b/none.wav,other")
    monkeypatch.chdir(tmp_path)
    assert run(".", "--out", tmp_path / "data", *options.split()) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("eat manifest: error: ")
    assert problem in last
    assert not (tmp_path / "data" / "train.tsv").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("--layout pattern --pattern (?P<label>", "is not a regular expression"),
        ("--layout pattern --pattern (?P<group>.)", "needs a group (?P<label>...)"),
        ("--layout pattern --pattern (?P<label>.) --valid-groups a", "needs a group (?P<group>"),
        ("--layout csv --csv none.csv", "--csv: there is no file none.csv"),
        ("--layout audioset --csv t.csv --classes c.csv", "--classes: there is no file c.csv"),
    ],
)
def test_layouts__options_are_checked_before_the_search(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: str,
    problem: str,
) -> None:
    def search(*arguments: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(listing, "find_clips", search)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", "filename,part", "a/1.wav,x/y")
    assert run(".", "--out", "data", *options.split()) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "t.csv: is empty; expected a first row with filename, label"),
        (["filename,label"], "t.csv: no rows below the header"),
        (["path,label", "a,b"], "there are: path, label; choose one with --path-column"),
        (["filename,tag", "a,b"], "there are: filename, tag; choose one with --label-column"),
    ],
)
def test_csv__a_table_without_a_column_or_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list, problem: str
) -> None:
    (tmp_path / "t.csv").write_text("".join(f"{row}\n" for row in rows))
    arguments = ("--layout", "csv", "--csv", tmp_path / "t.csv")
    assert run(tmp_path, "--out", tmp_path / "data", *arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(problem)


def test_layouts__unknown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(tmp_path, "--out", tmp_path, "--layout", "urbansound") == 2
    assert "invalid choice: 'urbansound' (choose from" in capsys.readouterr().err


def test_help__has_an_example_of_each_layout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    shown = capsys.readouterr().out.replace("\\\n", " ")
    examples = [line for line in shown.splitlines() if line.startswith("    eat manifest ")]
    for layout in [layout for layout in LAYOUTS if layout != "plain"]:
        assert any(f"--layout {layout} " in f"{example} " for example in examples)
    assert any("--layout" not in example for example in examples)


def test_layouts__through_the_console(animals: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "eat_plugin", "manifest", str(animals)),
            *("--out", str(tmp_path / "data"), "--layout", "folders", "--valid", "0.2"),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "eval.tsv: 3 clips" in done.stdout
    assert len(read(tmp_path / "data", "eval")) == 3


def test_esc50__real_recordings(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "esc10"
    assert run(folder, "--out", tmp_path, "--layout", "esc50", "--fold", 1) == 0
    label_set = read_label_set(tmp_path / "label_descriptors.csv")
    assert len(label_set) == 10
    assert (label_set.ids[0], label_set.ids[9]) == ("dog", "chainsaw")
    for split, each in (("train", 32), ("eval", 8)):
        manifest = read_manifest(tmp_path / f"{split}.tsv")
        labels = read_labels(tmp_path / f"{split}.lbl", label_set, manifest, single_label=True)
        assert labels.counts().tolist() == [each] * 10
        folds = {Path(manifest.name(index)).name[0] for index in range(len(manifest))}
        assert folds == ({"1"} if split == "eval" else set("2345"))
        if split == "train":
            weights = read_weights(tmp_path / "train.weights.csv", len(manifest))
            np.testing.assert_array_equal(weights, clip_weights(labels))
    assert (tmp_path / "rejected.tsv").read_text() == ""
