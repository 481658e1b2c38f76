"""The subcommands that run a model, on clips in archives and HDF5 files."""

import json
import zipfile

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint("classification", task_single_label=True, model_loss="ce")


@pytest.fixture
def archived(labelled):
    """The split of ``labelled``, with its clips alternately in a zip and an HDF5 file."""
    data, audio = labelled.with_name("archived"), labelled / "audio"
    data.mkdir()
    files = sorted(audio.glob("*.wav"))
    with zipfile.ZipFile(data / "x.zip", "w") as archive, h5py.File(data / "x.h5", "w") as tree:
        tree.attrs["sample_rate"] = 16_000
        for file in files[::2]:
            archive.write(file, file.name)
        for file in files[1::2]:
            tree[file.stem] = soundfile.read(file, dtype="int16")[0]
    assert main(["manifest", str(data), "--out", str(data), "--split", "listed"]) == 0
    root, *lines = (data / "listed.tsv").read_text().splitlines()
    hdf5, packed = lines[:5], lines[5:]
    mixed = [(packed if number % 2 == 0 else hdf5)[number // 2] for number in range(len(files))]
    (data / "eval.tsv").write_text("\n".join([root, *mixed]) + "\n")
    (data / "listed.archives").rename(data / "eval.archives")
    for name in ("eval.lbl", "label_descriptors.csv"):
        (data / name).write_bytes((labelled / name).read_bytes())
    return data


def test_evaluate__equals_plain_files(checkpoint, labelled, archived, capsys):
    figures = []
    for data in (labelled, archived):
        capsys.readouterr()
        assert main([
            "evaluate", "--checkpoint", str(checkpoint), "--data", str(data), "--json",
        ]) == 0  # fmt: skip
        figures.append(json.loads(capsys.readouterr().out))
    for name in ("accuracy", "mAP", "mAUC", "n_clips", "interval"):
        assert figures[0][name] == figures[1][name]


def test_predict__equals_plain_files(checkpoint, labelled, archived, capsys):
    tables = []
    for data in (labelled, archived):
        capsys.readouterr()
        assert main(["predict", "--checkpoint", str(checkpoint), str(data / "eval.tsv")]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        tables.append([row[1:] for row in rows])
    assert tables[0] == tables[1]
    assert len(tables[0]) > 11


def test_features__equal_plain_files(checkpoint, labelled, archived, tmp_path):
    features = []
    for data in (labelled, archived):
        out = tmp_path / f"{data.name}.npz"
        command = ["features", "--checkpoint", checkpoint, data / "eval.tsv", "--out", out]
        assert main([*map(str, command)]) == 0
        with np.load(out) as arrays:
            features.append([arrays[name] for name in arrays.files])
    assert len(features[0]) == 11
    np.testing.assert_array_equal(np.stack(features[0]), np.stack(features[1]))


def test_predict__names_a_missing_clip(checkpoint, archived, capsys):
    with h5py.File(archived / "y.h5", "w") as tree:
        tree["unused"] = np.zeros(9, np.float32)
    lines = (archived / "eval.tsv").read_text()
    (archived / "eval.tsv").write_text(f"{lines}y.h5/gone\t4800\nx.zip:0:99\t4800\n")
    assert main(["predict", "--checkpoint", str(checkpoint), str(archived / "eval.tsv")]) == 1
    shown = capsys.readouterr().err
    assert "eat predict: 2 of 13 files cannot be used:" in shown
    assert f"{archived}/y.h5/gone: the file has no key 'gone'" in shown
    assert f"{archived}/x.zip:0:99: cannot be decoded: " in shown


def test_predict__refuses_an_archive_that_has_changed(checkpoint, archived, capsys):
    with open(archived / "x.zip", "ab") as file:
        file.write(b"more")
    assert main(["predict", "--checkpoint", str(checkpoint), str(archived / "eval.tsv")]) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert f"eat predict: error: {archived}/eval.archives:2: the archive" in shown
    assert "run eat manifest again" in shown
