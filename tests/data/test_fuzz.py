"""Damaged and strange inputs: read or refused by name, without a crash, a hang or foreign code."""

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from eat_plugin.cli import main
from tests.fuzzing import damage_bytes, damage_text

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RATE = 16_000
SOUNDS = {
    "wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "ima.wav": ("WAV", "IMA_ADPCM"),
    "rf64": ("RF64", "PCM_24"), "w64": ("W64", "PCM_16"), "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "ALAC_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
CASES = 30  # per format


def run(kind, inputs, seconds=600):
    """Open all inputs in a process of its own; return the names that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzzing", kind, str(inputs)], cwd=ROOT, timeout=seconds,
        capture_output=True, text=True, check=False, errors="replace",
    )  # fmt: skip
    names = done.stdout.splitlines()
    assert done.returncode == 0, (names[-1:], done.returncode, done.stderr[-3000:])
    assert not list(ROOT.glob("EXECUTED"))
    return names


def make_sound(path, form, coding, channels=1):
    wave = np.random.default_rng(channels).normal(0, 0.1, (RATE, channels)).clip(-1, 1)
    soundfile.write(path, wave, RATE, format=form, subtype=coding)
    return path.read_bytes()


@pytest.mark.parametrize("name", SOUNDS)
def test_fuzz__sound_files(tmp_path, name):
    rng = np.random.default_rng(list(SOUNDS).index(name))
    whole = [make_sound(tmp_path / name, *SOUNDS[name], channels) for channels in (1, 2)]
    (tmp_path / "inputs").mkdir()
    for number in range(CASES):
        path = tmp_path / "inputs" / f"{number:03d}.{name}"
        path.write_bytes(damage_bytes(whole[number % 2], rng))
    assert len(run("sounds", tmp_path / "inputs")) == CASES


def write_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a.wav", "b/c.wav", "b/c.cls"):
            archive.writestr(name, content)


def write_tar(path, content):
    with tarfile.open(path, "w") as archive:
        for name in ("a.wav", "b/c.wav", "b/c.cls"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            path.with_name("member").write_bytes(content)
            with open(path.with_name("member"), "rb") as file:
                archive.addfile(info, file)


def write_hdf5(path, content):
    samples = np.frombuffer(content[44:], "<i2")
    with h5py.File(path, "w") as file:
        file["a"], file["b/c"] = samples, samples.reshape(-1, 2)
        file.create_dataset("packed", data=samples, chunks=(1000,), compression="gzip")
        file.attrs["sample_rate"] = RATE


@pytest.mark.parametrize(
    ("ending", "write"), [("zip", write_zip), ("tar", write_tar), ("h5", write_hdf5)]
)
def test_fuzz__archives_and_hdf5(tmp_path, ending, write):
    write(tmp_path / f"whole.{ending}", make_sound(tmp_path / "a.wav", *SOUNDS["wav"]))
    whole = (tmp_path / f"whole.{ending}").read_bytes()
    rng = np.random.default_rng(len(ending))
    (tmp_path / "inputs").mkdir()
    for number in range(CASES):
        (tmp_path / "inputs" / f"{number:03d}.{ending}").write_bytes(damage_bytes(whole, rng))
    assert len(run("containers", tmp_path / "inputs")) == CASES


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_fuzz__images(tmp_path, ending):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(len(ending))
    pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / f"whole.{ending}")
    whole = (tmp_path / f"whole.{ending}").read_bytes()
    (tmp_path / "inputs").mkdir()
    for number in range(CASES):
        (tmp_path / "inputs" / f"{number:03d}.{ending}").write_bytes(damage_bytes(whole, rng))
    assert len(run("images", tmp_path / "inputs")) == CASES


@pytest.fixture
def data(tmp_path):
    """A data folder with labels, statistics and a table, and its cache."""
    audio = tmp_path / "audio"
    for number in range(4):
        (audio / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        make_sound(audio / "ab"[number % 2] / f"{number}.wav", *SOUNDS["wav"])
    folder = tmp_path / "data"
    assert main(["manifest", str(audio), "--out", str(folder), "--layout", "folders"]) == 0
    assert main(["stats", str(folder)]) == 0
    rows = [f"{'ab'[number % 2]}/{number}.wav,{'ab'[number % 2]}" for number in range(4)]
    (folder / "table.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
    assert main(["cache", str(folder), "--out", str(tmp_path / "cache")]) == 0
    return folder


def test_fuzz__data_folders(data, tmp_path):
    """Damage of one file each; the number of the case is its seed."""
    (tmp_path / "inputs").mkdir()
    for number in range(4 * CASES):
        rng = np.random.default_rng(number)
        source = data if number % 3 else tmp_path / "cache"
        copy = tmp_path / "inputs" / f"{number:03d}"
        shutil.copytree(source, copy)
        files = sorted(path for path in copy.iterdir() if path.suffix != ".mel")
        path = files[int(rng.integers(len(files)))]
        damage = damage_bytes if rng.random() < 0.3 else damage_text
        path.write_bytes(damage(path.read_bytes(), rng) if path.stat().st_size else b"\xff\n")
    assert len(run("folders", tmp_path / "inputs")) == 4 * CASES


def add_strange_files(folder):
    """FIFOs, sockets, devices, loops, names that are not UTF-8: names -> part of the reason."""
    os.mkfifo(folder / "fifo.wav")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(folder / "socket.wav"))
    listener.close()
    for name, target in (
        ("zero.wav", "/dev/zero"), ("full.wav", "/dev/full"), ("loop.wav", "loop.wav"),
        ("dangling.flac", "nowhere"), ("loops", "."), ("up", ".."), ("fifo.h5", "fifo.wav"),
        ("zero.zip", "/dev/zero"), ("self.tar", "self.tar"),
    ):  # fmt: skip
        os.symlink(target, folder / name)
    (folder / "folder.wav").mkdir()
    (folder / "empty.wav").touch()
    for name in (b"\xff\xfe.wav", b"tab\t.wav", b"line\n.wav"):
        shutil.copy(folder / "good.wav", os.fsencode(folder) + b"/" + name)
    secret = folder / "secret.bin"
    secret.write_bytes(bytes(2 * RATE))
    with h5py.File(folder / "out.h5", "w") as file:
        file.attrs["sample_rate"] = RATE
        file.create_dataset("raw", (RATE,), "i2", external=[(str(secret), 0, 2 * RATE)])
        file["link"] = h5py.ExternalLink(str(secret), "/x")
        file["loop"] = h5py.SoftLink("/loop")
        layout = h5py.VirtualLayout((RATE,), "i2")
        layout[:] = h5py.VirtualSource(str(secret), "x", (RATE,))
        file.create_virtual_dataset("virtual", layout)
        file["objects"] = h5py.Empty("i2")
    with tarfile.open(folder / "links.tar", "w") as archive:
        for name, kind in (
            ("sym.wav", tarfile.SYMTYPE), ("hard.wav", tarfile.LNKTYPE),
            ("chr.wav", tarfile.CHRTYPE), ("fifo.wav", tarfile.FIFOTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(f"../{name}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return {
        "fifo.wav": "not a regular file", "socket.wav": "cannot be opened", "zero.wav": "not a reg",
        "full.wav": "not a regular file", "loop.wav": "cannot be opened", "empty.wav": "is empty",
        "dangling.flac": "cannot be opened", "fifo.h5": "not a regular file",
        "zero.zip": "not a regular file", "self.tar": "cannot be read",
        "out.h5/raw": "other files", "out.h5/virtual": "other files",
        "links.tar:../sym.wav": "symbolic link", "links.tar:../hard.wav": "hard link",
        "links.tar:../chr.wav": "not a regular file", "tab\\t.wav": "a tab",
        "line\\n.wav": "a line break", "\\xff\\xfe.wav": "not UTF-8",
    }  # fmt: skip


def test_fuzz__strange_files(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    make_sound(folder / "good.wav", *SOUNDS["wav"])
    expected = add_strange_files(folder)
    for command in (
        ["manifest", folder, "--out", tmp_path / "out", "--check"],
        ["stats", tmp_path / "out"],
        ["cache", tmp_path / "out", "--out", tmp_path / "cache"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "eat_plugin", *map(str, command)], cwd=ROOT, timeout=120,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    lines = (tmp_path / "out" / "rejected.tsv").read_text().splitlines()
    rejected = dict(line.split("\t") for line in lines)
    for name, reason in expected.items():
        assert reason in rejected[name], name
    assert (tmp_path / "out" / "train.tsv").read_text().splitlines()[1:] == [f"good.wav\t{RATE}"]
    for name in ("fifo.wav", "zero.wav", "loop.wav", "socket.wav", "folder.wav"):
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from tests.fuzzing import open_sound; "
             "open_sound(sys.argv[1])", str(folder / name)],
            cwd=ROOT, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0
