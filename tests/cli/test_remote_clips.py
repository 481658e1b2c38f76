"""The subcommands that run a model, on clips in a store: in the memory of this process."""

import json

import numpy as np
import pytest

from eat_plugin.cli import main
from eat_plugin.data.manifest import read_manifest

fsspec = pytest.importorskip("fsspec", reason="stores need fsspec: pip install '.[remote]'")


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint("classification", task_single_label=True, model_loss="ce")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The file system of memory://, empty; and a cache of its own."""
    monkeypatch.setenv("EAT_REMOTE_CACHE", str(tmp_path / "remote-cache"))
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def remote(labelled, store):
    """The split of ``labelled``, with its clips in the store."""
    data = labelled.with_name("remote")
    store.put(f"{labelled / 'audio'}/", "/sounds/", recursive=True)
    assert main(["manifest", "memory://sounds/", "--out", str(data), "--split", "eval"]) == 0
    for name in ("eval.lbl", "label_descriptors.csv"):
        (data / name).write_bytes((labelled / name).read_bytes())
    return data


def test_evaluate_and_predict__equal_local_files(checkpoint, labelled, remote, capsys):
    found = []
    for data in (labelled, remote):
        capsys.readouterr()
        arguments = ["--checkpoint", str(checkpoint)]
        assert main(["evaluate", *arguments, "--data", str(data), "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert main(["predict", *arguments, str(data / "eval.tsv")]) == 0
        rows = [line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()]
        found.append(([figures[name] for name in ("accuracy", "mAP", "n_clips")], rows))
    assert found[0] == found[1]
    assert len(found[0][1]) >= 11


def test_features__of_an_address(checkpoint, labelled, remote, tmp_path):
    for source, out in (
        (labelled / "audio" / "03.wav", "a.npz"),
        ("memory://sounds/03.wav", "b.npz"),
    ):
        arguments = ["--checkpoint", str(checkpoint), str(source), "--out", str(tmp_path / out)]
        assert main(["features", *arguments]) == 0
    one, two = (np.load(tmp_path / name) for name in ("a.npz", "b.npz"))
    np.testing.assert_array_equal(one["03.wav"], two["03.wav"])


def test_features__refuses_a_folder_of_a_store(checkpoint, remote, tmp_path, capsys):
    arguments = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "x.npz")]
    assert main(["features", *arguments, "memory://sounds"]) == 2
    assert "for a folder, run eat manifest" in capsys.readouterr().err
    assert main(["features", *arguments, "https://user:secret@host/a.wav"]) == 2
    shown = capsys.readouterr().err
    assert "must not hold credentials" in shown
    assert "secret" not in shown


def test_doctor__names_a_changed_file(remote, store, tmp_path, capsys):
    assert main(["manifest", "memory://sounds", "--out", str(tmp_path / "train")]) == 0
    store.pipe_file("/sounds/00.wav", b"other")
    capsys.readouterr()
    assert main(["doctor", "--data", str(tmp_path / "train")]) == 2
    assert "memory://sounds/00.wav has changed in its store" in capsys.readouterr().out


def test_options__of_the_environment_are_checked(remote, capsys, monkeypatch):
    for name in ("EAT_REMOTE_CACHE_GB", "EAT_REMOTE_RETRIES"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "many")
            assert main(["stats", str(remote), "--split", "eval"]) == 2
            assert f"{name} is 'many', expected a number" in capsys.readouterr().err


def test_images__have_the_pixels_of_local_files(store, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    from eat_plugin.images.decode import read_image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    store.put(str(tmp_path / "a.png"), "/pictures/a.png")
    out = tmp_path / "data"
    assert main(["manifest", "memory://pictures", "--images", "--out", str(out)]) == 0
    entry = read_manifest(out / "train.tsv").entry(0)
    np.testing.assert_array_equal(np.asarray(read_image(entry)), pixels)
