"""`eat stats`: output, file and errors."""

import json
import zipfile

import numpy as np
import pytest
import soundfile

from eat_plugin import cli
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.sources import read_audio


@pytest.fixture
def data(sounds, tmp_path):
    """A data set of three clips."""
    assert cli.main(["manifest", str(sounds), "--out", str(tmp_path / "data")]) == 0
    return tmp_path / "data"


def found_in(data):
    """The statistics, without the digest of the manifest."""
    found = json.loads((data / "stats.json").read_text())
    assert len(found.pop("manifest")) == 64
    return found


def assert_near(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


def test_stats__writes_and_prints_the_values_for_training(data, sounds, capsys):
    capsys.readouterr()
    assert cli.main(["stats", str(data)]) == 0
    front_end = FrontEnd(100_000, 0.0, 1.0)
    names = ("a.wav", "c.wav", "deep er/b.flac")
    values = [front_end.energies(*read_audio(sounds / name)).double().numpy() for name in names]
    values = np.concatenate(values)
    found = found_in(data)
    assert found == {
        "mean": pytest.approx(values.mean(), rel=1e-12),
        "std": pytest.approx(values.std(), rel=1e-12),
        "frames": len(values), "clips": 3, "split": "train", "skipped": 0,
        "bin_means": pytest.approx(values.mean(axis=0), rel=1e-12),
        "bin_stds": pytest.approx(values.std(axis=0), rel=1e-12, abs=1e-12),
    }  # fmt: skip
    output = capsys.readouterr()
    ranges = [f"{min(found[n]):.4f} to {max(found[n]):.4f}" for n in ("bin_means", "bin_stds")]
    assert f"of each mel bin (task.norm=bins): {ranges[0]} and {ranges[1]}\n" in output.out
    assert f"  task.norm_mean={found['mean']:.4f} task.norm_std={found['std']:.4f}\n" in output.out
    assert f"of {len(values)} frames of 3 clips" in output.out
    assert "3/3" in output.err  # the bar


def test_stats__does_not_depend_on_the_order_of_clips(data):
    lines = (data / "train.tsv").read_text().splitlines()
    (data / "turned.tsv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    assert cli.main(["stats", str(data), "--workers", "2"]) == 0
    first = found_in(data)
    assert cli.main(["stats", str(data), "--split", "turned", "--workers", "1"]) == 0
    second = found_in(data)
    assert (first.pop("split"), second.pop("split")) == ("train", "turned")
    assert_near(second, first)


def test_stats__of_an_archive_equal_those_of_its_files(data, sounds, tmp_path):
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed" / "all.zip", "w") as archive:
        for path in sorted(sounds.rglob("*.*")):
            archive.write(path, path.relative_to(sounds))
    packed = tmp_path / "from archive"
    assert cli.main(["manifest", str(tmp_path / "packed"), "--out", str(packed)]) == 0
    assert cli.main(["stats", str(packed)]) == cli.main(["stats", str(data)]) == 0
    found, expected = found_in(packed), found_in(data)
    assert found.pop("split") == expected.pop("split")
    assert_near(found, expected)
    with open(tmp_path / "packed" / "all.zip", "ab") as file:
        file.write(b"more")
    assert cli.main(["stats", str(packed)]) == 2


def test_stats__names_damaged_clips_and_measures_the_others(data, sounds, capsys):
    assert cli.main(["stats", str(data)]) == 0
    good = found_in(data)
    (sounds / "bad.wav").write_text("no audio")
    with open(data / "train.tsv", "a") as file:
        file.write("bad.wav\t100\ngone.wav\t100\n")
    capsys.readouterr()
    assert cli.main(["stats", str(data)]) == 1
    assert found_in(data) == {**good, "skipped": 2}
    errors = capsys.readouterr().err
    assert "2 of 5 files cannot be used" in errors
    assert f"{sounds / 'bad.wav'}: " in errors
    assert f"{sounds / 'gone.wav'}: cannot be opened" in errors


def test_stats__nothing_usable_writes_nothing(data, sounds, capsys):
    for path in sounds.rglob("*.*"):
        path.write_text("no audio")
    assert cli.main(["stats", str(data)]) == 2
    assert "none of the 3 files can be used" in capsys.readouterr().err
    assert not (data / "stats.json").exists()


def test_stats__silence_is_refused(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na.wav\t16000\n")
    assert cli.main(["stats", str(tmp_path)]) == 2
    assert "nothing to normalise by" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers: must be 1 or more"),
        (["--split", "eval"], "eval.tsv: no such manifest; there are: train.tsv; run eat manifest"),
    ],
)
def test_stats__mistakes_are_one_line(data, arguments, message, capsys):
    capsys.readouterr()
    assert cli.main(["stats", str(data), *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_stats__a_manifest_in_place_of_its_folder(data, capsys):
    capsys.readouterr()
    assert cli.main(["stats", str(data / "train.tsv")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"eat stats: error: {data}/train.tsv/train.tsv: ")
    assert f": {data}/train.tsv is not a folder\n" in shown


def test_stats__a_folder_in_place_of_the_file(data, capsys):
    (data / "stats.json").mkdir()
    capsys.readouterr()
    assert cli.main(["stats", str(data)]) == 2
    problem = f"eat stats: error: {data}/stats.json: is a folder, not a file\n"
    assert capsys.readouterr().err.endswith(problem)
    assert list((data / "stats.json").iterdir()) == []


def test_stats__images_are_refused(tmp_path, capsys):
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na.png\t64\n")
    assert cli.main(["stats", str(tmp_path)]) == 2
    assert "train.tsv:2: 'a.png' is an image" in capsys.readouterr().err
