"""`eat features`, end to end."""

import builtins
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main
from eat_plugin.inference import load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint("pretraining")


@pytest.fixture
def run(checkpoint, tmp_path):
    def run(*arguments, out="out"):
        command = ["features", "--checkpoint", checkpoint, "--out", tmp_path / out, *arguments]
        return main([*map(str, command)])

    return run


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("granularity", "shapes"),
    [
        ("utterance", [(32,), (32,), (3, 32)]),
        ("frame", [(3, 32), (8, 32), (20, 32)]),
        ("all", [(65, 32), (65, 32), (3, 65, 32)]),
        ("grid", [(3, 8, 32), (8, 8, 32), (20, 8, 32)]),
    ],
)
def test_features__an_array_per_file_below_the_folder(
    run, checkpoint, sounds, tmp_path, capsys, granularity, shapes
):
    assert run(sounds, "--granularity", granularity, "--layer", 1) == 0
    names = ["a", "deep er/b", "c"]
    expected = {f"{name}.npy" for name in names}
    if granularity == "grid":
        expected |= {f"{name}.times.npy" for name in names}
    assert files_in(tmp_path / "out") == expected
    loaded = load_checkpoint(checkpoint)
    for name, shape in zip(names, shapes):
        x = np.load(tmp_path / "out" / f"{name}.npy")
        assert (x.shape, x.dtype) == (shape, np.float32)
        path = next((sounds / name).parent.glob(f"{name[-1]}.*"))
        by_hand, times = loaded.extract(path, granularity, 1, batch_size=1)
        np.testing.assert_allclose(x, by_hand, atol=1e-5)
        if granularity == "grid":
            np.testing.assert_array_equal(np.load(tmp_path / "out" / f"{name}.times.npy"), times)
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: features of 3 of 3 files\n"


def test_features__do_not_depend_on_batch_size_order_and_other_files(run, sounds, tmp_path):
    files = [sounds / "c.wav", sounds / "a.wav", sounds / "deep er" / "b.flac"]
    assert run(*files, "--batch-size", 2, "--granularity", "frame", out="one.npz") == 0
    assert run(*files[::-1], "--batch-size", 5, "--granularity", "frame", out="two.npz") == 0
    assert run(files[0], "--batch-size", 1, "--granularity", "frame", out="alone.npz") == 0
    one, two, alone = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two", "alone"))
    assert set(one) == set(two) == {"a.wav", "b.flac", "c.wav"}
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-5)
    np.testing.assert_allclose(one["c.wav"], alone["c.wav"], atol=1e-5)


def test_features__all_layers_in_one_npz(run, sounds, tmp_path):
    assert run(sounds, "--granularity", "grid", "--layer", "all", out="x.npz") == 0
    arrays = np.load(tmp_path / "x.npz")
    assert set(arrays) == {
        f"{name}{end}" for name in ("a.wav", "deep er/b.flac", "c.wav") for end in ("", ".times")
    }
    assert arrays["c.wav"].shape == (2, 20, 8, 32)
    np.testing.assert_allclose(arrays["c.wav.times"], (np.arange(20) + 0.5) * 0.16)
    assert files_in(tmp_path) - {f"sounds/{name}" for name in files_in(sounds)} == {"x.npz"}


def test_features__hdf5(run, sounds, tmp_path):
    h5py = pytest.importorskip("h5py")
    assert run(sounds, "--granularity", "grid", out="x.h5") == 0
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["c.wav"].shape == (20, 8, 32)
        assert file["deep er/b.flac"].dtype == np.float32
        assert file["deep er/b.flac.times"].shape == (8,)
    assert run(sounds, "--granularity", "grid", out="x.npz") == 0
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_array_equal(file["c.wav"], np.load(tmp_path / "x.npz")["c.wav"])


def test_features__hdf5_without_h5py(run, sounds, capsys, monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert run(sounds, out="x.h5") == 2
    assert "x.h5 needs h5py, which is not installed" in capsys.readouterr().err


def test_features__windows_by_options(run, checkpoint, sounds, tmp_path):
    assert run(sounds / "c.wav", "--window", "0.6", "--hop", "0.32") == 0
    x = np.load(tmp_path / "out" / "c.npy")
    # 64 frames every 32: from 0, 0.32, ... until 0.64 s from one on reach the end, 3.2 s.
    assert x.shape == (9, 32)
    by_hand, _ = load_checkpoint(checkpoint).extract(sounds / "c.wav", window=0.64, hop=0.32)
    np.testing.assert_allclose(x, by_hand, atol=1e-5)


def test_features__a_manifest(run, sounds, tmp_path):
    (tmp_path / "train.tsv").write_text(f"{sounds}\ndeep er/b.flac\t20480\nc.wav\t51200\n")
    assert run(tmp_path / "train.tsv") == 0
    assert files_in(tmp_path / "out") == {"deep er/b.npy", "c.npy"}


def test_features__lists_unusable_files_and_computes_the_others(
    run, sounds, tmp_path, capsys, add_bad_files
):
    bad = add_bad_files()
    assert run(sounds, "--granularity", "frame", "--batch-size", 2) == 1
    assert files_in(tmp_path / "out") == {"a.npy", "deep er/b.npy", "c.npy"}
    written = capsys.readouterr()
    assert "features of 3 of 6 files" in written.out
    assert "eat features: 3 of 6 files cannot be used:\n" in written.err
    for name in bad:
        assert f"\n  {sounds / name}: " in written.err


@pytest.fixture
def damaged(sounds):
    """A file with a valid header of which only the first window can be decoded."""
    whole = (sounds / "c.wav").read_bytes()
    samples = np.frombuffer(whole[44:], dtype=np.int16).copy()
    soundfile.write(sounds / "c.flac", samples, 16_000)
    content = bytearray((sounds / "c.flac").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (sounds / "c.flac").write_bytes(content)
    return sounds / "c.flac"


def test_features__damage_after_the_first_window_leaves_no_file(
    run, sounds, damaged, tmp_path, capsys
):
    assert run(damaged, sounds / "a.wav", "--batch-size", 1) == 1
    assert files_in(tmp_path / "out") == {"a.npy"}
    assert f"{damaged}: " in capsys.readouterr().err
    assert run(damaged, sounds / "a.wav", "--batch-size", 1, out="x.npz") == 1
    assert set(np.load(tmp_path / "x.npz")) == {"a.wav"}


def test_features__damage_after_the_first_window_leaves_nothing_in_hdf5(
    run, sounds, damaged, tmp_path
):
    h5py = pytest.importorskip("h5py")
    assert run(damaged, sounds / "a.wav", "--batch-size", 1, out="x.h5") == 1
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(file) == {"a.wav"}


def test_features__a_manifest_that_does_not_match_its_files(run, sounds, tmp_path, capsys):
    (tmp_path / "x.tsv").write_text(f"{sounds}\na.wav\t1\ndeep er\t9\nc.wav\t51200\n")
    assert run(tmp_path / "x.tsv") == 1
    errors = capsys.readouterr().err
    assert f"{sounds / 'a.wav'}: has 8000 samples, but 1 were expected" in errors
    assert f"{sounds / 'deep er'}: is a directory, not a file" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing does not exist"),
        (["empty"], "no audio (wav, flac, ogg, mp3) found under"),
        (["text.txt"], "text.txt: cannot be decoded"),
        (["text.txt", "other.txt"], "none of the 2 files can be used"),
        (["bad.tsv"], "bad.tsv:1: the root"),
        (["up.tsv"], "up.tsv:2: expected a path below the root, without '..', got '../up/a.wav'"),
        (["sounds", "--layer", "3"], "the layer is 3; choose 1 to 2"),
        (["sounds", "--layer", "last"], "the layer is 'last'; choose 1 to 2"),
        (["sounds", "--window", "0"], "the window is 0.0 s; it must be more than 0"),
        (["sounds", "--hop", "-1"], "the hop is -1.0 s; it must be more than 0"),
        (["sounds", "--window", "60"], "the position table of this model ends at 2.56 s"),
        (["sounds", "--batch-size", "0"], "--batch-size: must be 1 or more, got 0"),
        (["sounds", "--device", "tpu"], "the device is 'tpu'; choose cpu, cuda or cuda:N"),
        (["sounds", "--out", "x.npy"], "x.npy; give a folder, or a file that ends in .npz, .h5"),
        (["sounds", "--out", "f.pt"], "f.pt; give a folder, or a file that ends in .npz, .h5"),
        (["sounds", "--out", "text.txt/a"], "text.txt/a, but text.txt is not a folder"),
        (["sounds", "--out", "text.txt/a.npz"], "text.txt/a.npz, but text.txt is not a folder"),
        (["sounds", "--out", "folder.h5"], "folder.h5, which is a folder; give the name of a file"),
        (["packed"], "found under packed; there are 1 h5, 1 zip; for archives and data folders, g"),
        (["packed/a.zip"], "packed/a.zip: is an archive; list its clips by eat manifest"),
        (["packed/a.h5"], "packed/a.h5: is an archive; list its clips by eat manifest"),
        (["sounds", "--out", "text.txt"], "text.txt; give a folder"),
        (["sounds", "--checkpoint", "text.txt"], "text.txt is not a PyTorch checkpoint"),
        (["sounds", "--checkpoint", "sounds"], "sounds is a folder; give the checkpoint file"),
        (["sounds", "--checkpoint", "none.pt"], "none.pt: No such file"),
        (["sounds/a.wav", "other/a.wav"], "'a.wav' and 'a.wav' would have the same name 'a.npy'"),
    ],
)
def test_features__an_error_is_one_line(
    run, sounds, tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.wav").write_bytes((sounds / "a.wav").read_bytes())
    for name in ("text.txt", "other.txt"):
        (tmp_path / name).write_text("no audio")
    for name in ("packed", "folder.h5"):
        (tmp_path / name).mkdir()
    for name in ("a.zip", "a.h5"):
        (tmp_path / "packed" / name).write_bytes(b"PK and so on" * 9)
    (tmp_path / "bad.tsv").write_text("no folder\n")
    (tmp_path / "up.tsv").write_text(f"{sounds}\n../up/a.wav\t8000\n")
    before = files_in(tmp_path)
    assert run(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("eat features: error: ")
    assert message in error
    assert files_in(tmp_path) == before
    assert not {"f.pt", "out"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("out", ["x.npz", "x.NPZ", "x.h5", "new/x.hdf5", "new/features.v1"])
def test_features__names_the_output_that_was_written(run, sounds, tmp_path, capsys, out):
    pytest.importorskip("h5py")
    assert run(sounds / "a.wav", out=out) == 0
    assert capsys.readouterr().out == f"{tmp_path / out}: features of 1 of 1 file\n"
    assert (tmp_path / out).is_dir() == out.endswith("v1")
    assert (tmp_path / out).exists()
    if (tmp_path / out).is_file():
        assert run(sounds / "a.wav", out=out) == 0  # replaced


def test_features__an_npz_keeps_endings(run, sounds, tmp_path, capsys):
    soundfile.write(sounds / "a.flac", np.zeros(16_000), 16_000)
    assert run(sounds) == 2
    assert "would have the same name 'a.npy'; give the folder that has" in capsys.readouterr().err
    assert run(sounds, out="x.npz") == 0
    assert {"a.wav", "a.flac"} < set(np.load(tmp_path / "x.npz"))


def test_features__an_interrupted_npz_keeps_the_old_one(run, sounds, tmp_path, monkeypatch):
    assert run(sounds / "a.wav", out="x.npz") == 0
    before = (tmp_path / "x.npz").read_bytes()

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("eat_plugin.inference.windows.ClipLayout.put", interrupt)
    assert run(sounds, out="x.npz") == 130
    assert run(sounds) == 130
    assert (tmp_path / "x.npz").read_bytes() == before
    assert files_in(tmp_path) == {f"sounds/{name}" for name in files_in(sounds)} | {"x.npz"}


def test_features__by_an_interpreter_that_has_imported_nothing(checkpoint, sounds, tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-m", "eat_plugin", "features", "--checkpoint", checkpoint, sounds,
            "--out", tmp_path / "out", "--granularity", "grid", "--layer", "-1",
        ],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out'}: features of 3 of 3 files\n"
    assert "computing features: 100%" in done.stderr
    assert np.load(tmp_path / "out" / "c.npy").shape == (20, 8, 32)
