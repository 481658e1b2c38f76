"""`eat cache`: written, interrupted, verified, refused, and used for evaluation."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.cli import main
from eat_plugin.data.events import read_event_labels, read_events
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.kaldi import Kaldi
from eat_plugin.data.label_set import read_label_set
from eat_plugin.data.labels import read_labels
from eat_plugin.data.manifest import digest_clips, read_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.prepare import cache_shards
from eat_plugin.report.example import read_example

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("dog", "rain", "clock")


@pytest.fixture
def data(tmp_path):
    """Splits ``train`` of nine clips and ``eval`` of four, labelled by ``eat manifest``."""
    audio = tmp_path / "audio"
    for number in range(13):
        samples = np.random.default_rng(number).normal(0, 0.1, 4_000 + 800 * number)
        path = audio / LABELS[number % 3] / f"{number:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.clip(-1, 1), 16_000)
    folder = tmp_path / "data"
    assert main([
        "manifest", str(audio), "--out", str(folder), "--layout", "folders", "--valid", "0.34",
    ]) == 0  # fmt: skip
    (folder / "stats.json").write_text(
        '{"mean": -5, "std": 4, "frames": 9, "clips": 9, "split": "train", "skipped": 0}'
    )
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of about two clips."""
    monkeypatch.setattr(cache_shards, "LEAST_SAMPLES", 1 << 13)
    monkeypatch.setattr(cache_shards, "SHARDS", 4)


def make(data, out, *options):
    return main(["cache", str(data), "--out", str(out), *map(str, options)])


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def names_of(folder, split):
    manifest = read_manifest(folder / f"{split}.tsv")
    return [manifest.name(index).partition("/")[2] for index in range(len(manifest))]


def last_error(capsys):
    *_, line = capsys.readouterr().err.splitlines()
    return line


def test_cache__is_a_data_folder(data, tmp_path, capsys, small_shards):
    out = tmp_path / "cache"
    assert make(data, out, "--workers", 1) == 0
    said = capsys.readouterr().out
    for split in ("train", "eval"):
        original = read_manifest(data / f"{split}.tsv")
        assert names_of(out, split) == [original.name(n) for n in range(len(original))]
        assert read_manifest(out / f"{split}.tsv").sizes.tolist() == original.sizes.tolist()
        seconds = sum(map(Kaldi().count_frames, original.sizes.tolist())) / 100
        assert f"{out}/{split}.tsv: {len(original)} clips, {seconds:.2f} seconds\n" in said
        labels = [
            [line.split("\t")[1] for line in (folder / f"{split}.lbl").read_text().splitlines()]
            for folder in (data, out)
        ]
        assert labels[0] == labels[1]
    for name in ("label_descriptors.csv", "class_counts.csv", "train.weights.csv"):
        assert (out / name).read_bytes() == (data / name).read_bytes(), name
    statistics = json.loads((out / "stats.json").read_text())
    assert statistics.pop("manifest") == digest_clips(out / "train.tsv")
    assert statistics == json.loads((data / "stats.json").read_text())
    assert (out / "rejected.tsv").read_bytes() == b""
    shards = sorted(path.name for path in out.glob("train-*.mel"))
    assert len(shards) > 2
    assert {path.suffix for path in out.iterdir()} == {".csv", ".json", ".lbl", ".mel", ".tsv"}
    assert said.endswith(f"from earlier runs\n{out}/rejected.tsv: 0 rejected\n")
    assert re.search(r"total: \d+\.\d\d kB in \d+ shards, 0 from earlier runs", said)


def test_cache__has_the_strong_labels_of_its_clips(data, tmp_path, small_shards):
    manifest = read_manifest(data / "train.tsv")
    names = [manifest.name(clip) for clip in range(len(manifest))]
    soundfile.write(manifest.root / names[0], np.zeros(10), 16_000)  # too short: left out
    rows = [f"{name}\t0\t0.1\tbell" for name in names]
    head = "filename\tonset\toffset\tevent_label"
    (data / "train.events").write_text("\n".join([head, *rows]) + "\n")
    assert make(data, tmp_path / "cache") == 0
    path = tmp_path / "cache" / "train.events"
    assert path.read_text().splitlines() == [head, *rows[1:]]
    cached = read_manifest(tmp_path / "cache" / "train.tsv")
    events = read_events(path, cached, read_event_labels(path))
    assert [len(found) for found in events] == [1] * (len(names) - 1)


def test_cache__a_name_of_several_clips_in_strong_labels_is_refused(data, tmp_path, capsys):
    manifest = read_manifest(data / "train.tsv")
    source = manifest.root / manifest.name(0)
    for folder in ("x", "y"):
        (manifest.root / folder).mkdir()
        shutil.copy(source, manifest.root / folder / "twice.wav")
    with (data / "train.tsv").open("a") as file:
        size = manifest.sizes[0]
        file.write(f"x/twice.wav\t{size}\ny/twice.wav\t{size}\n")
    soundfile.write(manifest.root / "x" / "twice.wav", np.zeros(10), 16_000)  # left out
    for name in ("stats.json", "train.lbl", "train.weights.csv"):
        (data / name).unlink(missing_ok=True)
    head = "filename\tonset\toffset\tevent_label"
    (data / "train.events").write_text(f"{head}\ntwice.wav\t0\t0.1\tbell\n")
    assert make(data, tmp_path / "cache") == 2
    assert "train.events:2: several clips have the name 'twice.wav'" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "train.tsv").exists()


def test_cache__does_not_depend_on_workers(data, tmp_path, small_shards):
    for workers in (1, 3):
        assert make(data, tmp_path / f"cache{workers}", "--workers", workers) == 0
    one, three = (contents(tmp_path / f"cache{workers}") for workers in (1, 3))
    assert one.keys() == three.keys()
    for name, content in one.items():
        if name.endswith(".tsv"):
            content = content.replace(b"cache1", b"cache3")
        assert content == three[name], name


def test_cache__excludes_damaged_clips_and_their_lines(data, tmp_path, capsys, small_shards):
    manifest = read_manifest(data / "train.tsv")
    bad = {1: "text", 4: None}
    manifest.path(1).write_text("no audio")
    whole = manifest.path(4).read_bytes()
    manifest.path(4).write_bytes(whole[: len(whole) // 2])
    weights = [f"{number}.5" for number in range(1, len(manifest) + 1)]
    (data / "train.weights.csv").write_text("\n".join(weights) + "\n")
    out = tmp_path / "cache"
    make(data, out)
    names = [manifest.name(index) for index in range(len(manifest))]
    kept = [index for index in range(len(manifest)) if index not in bad]
    assert names_of(out, "train") == [names[index] for index in kept]
    rejected = dict(line.split("\t") for line in (out / "rejected.tsv").read_text().splitlines())
    assert rejected.keys() == {names[index] for index in bad}
    assert "truncated" in rejected[names[4]]
    assert (out / "train.weights.csv").read_text().split() == [weights[index] for index in kept]
    labels = (data / "train.lbl").read_text().splitlines()
    lines = (out / "train.lbl").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines] == [labels[n].split("\t")[1] for n in kept]
    report = f"{out}/rejected.tsv: 2 files rejected, with the reasons"
    assert capsys.readouterr().out.splitlines()[-1] == report
    counts = [line.split(",") for line in (out / "class_counts.csv").read_text().splitlines()]
    column = counts[0].index("train")
    assert sum(int(row[column]) for row in counts[1:]) == len(kept)

    # A second run changes nothing; after a repair it writes one shard.
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.mel")}
    make(data, out)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.mel")} == times
    before = contents(out)
    manifest.path(4).write_bytes(whole)
    make(data, out)
    assert names_of(out, "train") == [name for n, name in enumerate(names) if n != 1]
    changed = [name for name, content in contents(out).items() if before.get(name) != content]
    assert len([name for name in changed if name.endswith(".mel")]) == 1


def test_cache__a_split_without_a_usable_clip(data, tmp_path, capsys):
    manifest = read_manifest(data / "eval.tsv")
    for index in range(len(manifest)):
        manifest.path(index).write_text("no audio")
    out = tmp_path / "cache"
    assert make(data, out) == 2
    error = last_error(capsys)
    assert f"no clip of {data}/eval.tsv can be used; {out}/rejected.tsv: " in error
    assert not (out / "eval.tsv").exists()
    assert len((out / "rejected.tsv").read_text().splitlines()) == len(manifest)


def test_cache__resumes(data, tmp_path, capsys, small_shards, monkeypatch):
    out, whole = tmp_path / "cache", tmp_path / "whole"
    make(data, whole, "--workers", 1)
    read, seen = cache_shards.read_blocks, []

    def interrupted(path, *args):
        seen.append(path)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return read(path, *args)

    monkeypatch.setattr(cache_shards, "read_blocks", interrupted)
    assert make(data, out, "--workers", 1) == 130
    assert not (out / "train.tsv").exists()
    assert not list(out.glob(".*"))
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mel")}
    assert 0 < len(finished) < len(list(whole.glob("*.mel")))
    capsys.readouterr()
    assert make(data, out, "--workers", 1) == 0
    assert f"{len(finished)} from earlier runs" in capsys.readouterr().out
    for name, time_ns in finished.items():
        assert (out / name).stat().st_mtime_ns == time_ns
    one, other = contents(whole), contents(out)
    assert one.keys() == other.keys()
    for name in one:
        if not name.endswith(".tsv"):
            assert one[name] == other[name], name


def test_cache__a_shard_being_replaced_has_no_record(data, tmp_path, monkeypatch):
    out = tmp_path / "cache"
    make(data, out)
    with open(out / "train-00000.mel", "ab") as file:
        file.write(bytes(256))

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_shards, "asdict", interrupted)
    assert make(data, out) == 130
    assert not (out / "train-00000.json").exists()


def test_cache__never_uses_shards_of_another_manifest(data, tmp_path):
    out, whole = tmp_path / "cache", tmp_path / "whole"
    make(data, out)
    for path in (out / "cache.json", *out.glob("*.tsv")):  # so that the run is not refused
        path.unlink()
    path = data / "train.tsv"
    root, *lines = path.read_text().splitlines()
    path.write_text("\n".join([root, *lines[::-1]]) + "\n")
    for name in ("train.lbl", "train.weights.csv"):
        (data / name).unlink()
    make(data, out)
    make(data, whole)
    for name in ("train-00000.mel", "train-00000.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
from eat_plugin.prepare import cache_shards as shards
from eat_plugin.cli import main
read = shards.read_blocks
def slowly(*args):
    time.sleep(0.3)
    return read(*args)
shards.read_blocks, shards.LEAST_SAMPLES, shards.SHARDS = slowly, 1 << 13, 4
sys.exit(main())
"""


def start_slowly(data, out, **options):
    command = [sys.executable, "-c", SLOW, "cache", str(data), "--out", str(out), "--workers", "2"]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def running(group):
    """Whether a process of a group is running."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_cache__resumes_after_a_signal(data, tmp_path, small_shards, how):
    out, whole = tmp_path / "cache", tmp_path / "whole"
    process = start_slowly(data, out, start_new_session=True)
    wait_for(lambda: list(out.glob("*.json")) and list(out.glob("*-*.json")))
    if how == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "eat cache: interrupted"
        assert "Traceback" not in errors
        assert not list(out.glob(".*.tmp"))
    else:
        process.kill()
        process.wait()
        wait_for(lambda: not running(process.pid))  # workers end by themselves
    assert not (out / "train.tsv").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*-*.json")}
    assert make(data, out, "--workers", 2) == 0
    make(data, whole, "--workers", 1)
    for name, time_ns in kept.items():
        assert (out / name).stat().st_mtime_ns == time_ns
    one, other = contents(whole), contents(out)
    assert one.keys() == other.keys()
    for name in one:
        if not name.endswith(".tsv"):
            assert one[name] == other[name], name


def test_cache__full_disk_is_one_line_and_can_be_resumed(data, tmp_path, capsys):
    out = tmp_path / "cache"
    limit = 60_000  # bytes of a file
    done = subprocess.run(
        [sys.executable, "-m", "eat_plugin", "cache", str(data), "--out", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 2
    *_, line = done.stderr.splitlines()
    assert line == f"eat cache: error: {out}/train-00000.mel: File too large"
    assert "Traceback" not in done.stderr
    assert not (out / "train.tsv").exists()
    assert make(data, out) == 0
    assert len(read_manifest(out / "train.tsv")) == 9


@pytest.mark.parametrize("name", ["file", "file/cache", "cache.h5"])
def test_cache__refuses_a_file_in_place_of_the_folder(data, tmp_path, capsys, name):
    (tmp_path / "file").touch()
    assert make(data, tmp_path / name) == 2
    assert last_error(capsys).startswith(f"eat cache: error: --out is {tmp_path / name}")
    assert not (tmp_path / "cache.h5").exists()


def test_cache__of_one_clip_in_one_shard(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 480), 16_000)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\na.wav\t480\n")
    out = tmp_path / "cache"
    assert make(tmp_path, out) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}/train.tsv: 1 clip, 0.01 seconds",
        "total: 0.26 kB in 1 shard, 0 from earlier runs",
        f"{out}/rejected.tsv: 0 rejected",
    ]
    assert main(["cache", "--verify", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 1 shard, intact\n"


def test_verify__names_damaged_files(data, tmp_path, capsys, small_shards):
    out = tmp_path / "cache"
    make(data, out)
    number = len(list(out.glob("*.mel")))
    capsys.readouterr()
    assert main(["cache", "--verify", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: {number} shards, all intact\n"

    def damage(name, change):
        path = out / name
        content = path.read_bytes()
        path.write_bytes(change(content))

    damage("train-00000.mel", lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    damage("train-00001.mel", lambda content: content[:-256])
    (out / "eval-00000.mel").unlink()
    (out / "train-00002.json").unlink()
    (out / "eval.tsv").unlink()
    assert main(["cache", "--verify", str(out), "--workers", "2"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "%" not in line]
    first, *lines = lines
    assert first == f"eat cache: 5 files of {out} cannot be used:"
    expected = {
        "eval-00000.mel": "No such file or directory", "eval.tsv": "does not exist",
        "train-00000.mel": "has another SHA-256", "train-00001.mel": "bytes instead of",
        "train-00002.mel": "has no record",
    }  # fmt: skip
    found = dict(line.strip().split(": ", 1) for line in lines)
    assert found.keys() == {f"{out}/{name}" for name in expected}
    for name, part in expected.items():
        assert part in found[f"{out}/{name}"]

    (out / "train-00000.mel").unlink()  # as the message says
    assert make(data, out) == 0
    assert main(["cache", "--verify", str(out)]) == 0


def refused(capsys, *arguments):
    assert main(["cache", *map(str, arguments)]) == 2
    return last_error(capsys)


def test_cache__refuses_invalid_options(data, tmp_path, capsys):
    out = tmp_path / "cache"
    assert "eat cache DATA --out CACHE" in refused(capsys)
    assert "eat cache DATA --out CACHE" in refused(capsys, data)
    assert "--verify takes neither DATA nor --out" in refused(capsys, data, "--verify", out)
    assert "--workers: must be 1 or more, got 0" in refused(
        capsys, data, "--out", out, "--workers", 0
    )
    assert f"{tmp_path}/none does not exist" in refused(capsys, tmp_path / "none", "--out", out)
    assert f"{data}/train.tsv is not a folder" in refused(capsys, data / "train.tsv", "--out", out)
    assert f"{tmp_path}/audio is not a data folder" in refused(
        capsys, tmp_path / "audio", "--out", out
    )
    assert f"{tmp_path}/none is not a cache" in refused(capsys, "--verify", tmp_path / "none")
    assert f"{data} is not a cache: it has no cache.json" in refused(capsys, "--verify", data)
    assert not out.exists()


def test_cache__refuses_its_own_data_folder(data, capsys, tmp_path):
    (tmp_path / "link").symlink_to(data)
    before = contents(data)
    for out in (data, data / ".", tmp_path / "link"):
        assert "own data folder" in refused(capsys, data, "--out", out)
    assert contents(data) == before


def test_cache__refuses_folders_and_caches_of_other_data(data, tmp_path, capsys):
    out, other = tmp_path / "cache", tmp_path / "other"
    shutil.copytree(data, other)
    lines = (other / "train.tsv").read_text().splitlines()
    (other / "train.tsv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    line = refused(capsys, data, "--out", other)
    assert f"{other}/eval.tsv exists, and is not part of a cache" in line
    make(data, out)
    before = contents(out)
    for name in ("train.lbl", "train.weights.csv"):
        (other / name).unlink()
    line = refused(capsys, other, "--out", out)
    assert f"{out}/cache.json: the cache was made from another manifest train.tsv" in line
    assert f"{other}/train.tsv" in line
    shutil.copytree(data, tmp_path / "part")
    (tmp_path / "part" / "eval.tsv").unlink()
    line = refused(capsys, tmp_path / "part", "--out", out)
    assert f"other data, with a manifest eval.tsv that {tmp_path}/part does not have" in line
    assert "is already in a cache" in refused(capsys, out, "--out", tmp_path / "again")
    head = json.loads((out / "cache.json").read_bytes())
    head["settings"]["mel_bins"] = 64
    (out / "cache.json").write_text(json.dumps(head))
    line = refused(capsys, data, "--out", out)
    assert f"{out}/cache.json: the cache was made with mel_bins=64, but this" in line
    assert "mel_bins=128" in line
    assert "mel_bins=64" in refused(capsys, "--verify", out)
    for text in ("{}", "[" * 100_000, "x"):
        (out / "cache.json").write_text(text)
        assert "was not written by eat cache" in refused(capsys, data, "--out", out)
    (out / "cache.json").write_bytes(before["cache.json"])
    assert contents(out) == before


def test_cache__refuses_labels_and_weights_that_do_not_fit(data, tmp_path, capsys):
    out = tmp_path / "cache"
    with open(data / "train.weights.csv", "a", encoding="utf-8") as file:
        file.write("1\n")
    assert f"{data}/train.weights.csv has 10 lines, but" in refused(capsys, data, "--out", out)
    assert not out.exists()


def test_cache__refuses_an_archive_that_has_changed(data, tmp_path, capsys):
    (data / "train.archives").write_text("gone.zip\t1\t1\n")
    assert f"{data}/train.archives:1:" in refused(capsys, data, "--out", tmp_path / "cache")


def test_verify__a_copy_that_names_the_shards_of_the_original(data, tmp_path, capsys):
    out, copy = tmp_path / "cache", tmp_path / "copy"
    make(data, out)
    shutil.copytree(out, copy)
    (tmp_path / "link").symlink_to(out)
    assert main(["cache", "--verify", str(tmp_path / "link")]) == 0
    assert main(["cache", "--verify", str(copy)]) == 1
    written = capsys.readouterr()
    assert f"{copy}/train.tsv" in written.out + written.err
    assert f"names the shards of {out}" in written.out + written.err
    assert make(data, copy) == 0
    assert main(["cache", "--verify", str(copy)]) == 0


def test_cache__refuses_to_resume_on_other_sounds_in_an_archive(tmp_path, capsys):
    sets, data, out = tmp_path / "sets", tmp_path / "data", tmp_path / "cache"
    sets.mkdir()

    def list_sounds(sample):
        with ZipFile(sets / "all.zip", "w") as archive:
            for number in range(4):
                archive.writestr(f"{number}.wav", wav_of([sample] * 8000))
        assert main(["manifest", str(sets), "--out", str(data), "--checksum"]) == 0
        return (data / "train.tsv").read_bytes()

    manifest = list_sounds(0.1)
    assert make(data, out) == 0
    assert list_sounds(0.1) == manifest  # other times, the same bytes
    assert make(data, out) == 0
    assert list_sounds(0.2) == manifest
    assert "archives that have changed since" in refused(capsys, data, "--out", out)


def wav_of(samples):
    file = BytesIO()
    soundfile.write(file, np.array(samples), 16_000, format="WAV")
    return file.getvalue()


def test_cache__refuses_images(data, tmp_path, capsys):
    lines = (data / "train.tsv").read_text().replace(".wav", ".png")
    (data / "train.tsv").write_text(lines)
    out = tmp_path / "cache"
    line = refused(capsys, data, "--out", out)
    assert f"{data}/train.tsv:2:" in line
    assert "is an image; eat cache is for sound" in line
    assert not out.exists()


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint("classification", task_single_label=True, model_loss="ce")


def figures_of(checkpoint, data, capsys, *options):
    capsys.readouterr()
    command = ["evaluate", "--checkpoint", checkpoint, "--data", data, "--json", *options]
    assert main([*map(str, command)]) == 0
    output = capsys.readouterr()
    assert "otherwise" not in output.err
    return json.loads(output.out)


@pytest.mark.parametrize("length", ["pad", "crop", "mask"])
def test_evaluate__equals_the_data_folder(make_checkpoint, data, tmp_path, capsys, length):
    out = tmp_path / "cache"
    make(data, out)
    options = {"task_length": length, "task_target_length": 32, "task_patch_size": 16}
    checkpoint = make_checkpoint(
        "classification", task_single_label=True, model_loss="ce", **options
    )
    one, other = (figures_of(checkpoint, folder, capsys) for folder in (data, out))
    for name in ("accuracy", "n_clips", "n_missing", "clips_sha256"):
        assert one[name] == other[name], name
    assert one["mAP"] == pytest.approx(other["mAP"], abs=0.05)


def test_predict__equals_the_data_folder(checkpoint, data, tmp_path, capsys):
    out = tmp_path / "cache"
    make(data, out)
    tables = []
    for folder in (data, out):
        capsys.readouterr()
        assert main(["predict", "--checkpoint", str(checkpoint), str(folder / "eval.tsv")]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
        tables.append([(row[0].rpartition("/")[2], row[1]) for row in rows])
        assert all(row[0].startswith(str(tmp_path)) for row in rows)
    assert tables[0] == tables[1]


@pytest.mark.parametrize("form", ["{name}\t", "{name} ", "{file}\t", "{stem}\t", "clip-{number}\t"])
def test_labels__with_other_names_still_fit(data, tmp_path, form):
    for split in ("train", "eval"):
        path = data / f"{split}.lbl"
        lines = []
        for number, line in enumerate(path.read_text().splitlines()):
            name, label = line.split("\t")
            file = Path(name)
            called = form.format(name=name, file=file.name, stem=file.stem, number=number)
            lines.append(f"{called}{label}\n")
        path.write_text("".join(lines))
    out = tmp_path / "cache"
    make(data, out)
    label_set = read_label_set(out / "label_descriptors.csv")
    for split in ("train", "eval"):
        labels = [
            read_labels(
                folder / f"{split}.lbl", label_set, read_manifest(folder / f"{split}.tsv"), True
            )
            for folder in (data, out)
        ]
        clips = np.arange(len(labels[0]))
        np.testing.assert_array_equal(*(each.multi_hot(clips) for each in labels))
        assert labels[1].names_match == (form != "clip-{number}\t")


def test_plot__shows_a_cached_clip(make_checkpoint, data, tmp_path):
    out = tmp_path / "cache"
    make(data, out)
    examples = []
    for folder in (data, out):
        checkpoint = make_checkpoint("pretraining", task_data=str(folder), task_target_length=64)
        examples.append(read_example(checkpoint))
    assert examples[1].name.endswith(f"/{examples[0].name}")
    spectrograms = [torch.from_numpy(example.spectrogram) for example in examples]
    torch.testing.assert_close(*spectrograms, rtol=0, atol=5e-4, equal_nan=True)


def test_reader__cached_clips_equal_audio(data, tmp_path, small_shards):
    out = tmp_path / "cache"
    make(data, out)
    front_end = FrontEnd(32, -4.268, 4.569)
    for split in ("train", "eval"):
        one, other = (
            SpectrogramReader(read_manifest(folder / f"{split}.tsv"), front_end)
            for folder in (data, out)
        )
        for index in range(len(one.manifest)):
            pair = [reader.read(index, torch.Generator()) for reader in (one, other)]
            torch.testing.assert_close(*pair, rtol=0, atol=5e-4)


def test_cache__in_parts_gives_the_files_of_one_process(data, small_shards, tmp_path, capsys):
    (tmp_path / "audio" / "dog" / "03.wav").write_text("damaged")
    assert make(data, tmp_path / "cache", "--workers", "1") == 0
    one = contents((tmp_path / "cache").rename(tmp_path / "one"))  # the manifests hold the path
    seen = []
    for number in (2, 1, 3):
        capsys.readouterr()
        assert make(data, tmp_path / "cache", "--part", f"{number}/3", "--workers", "1") == 0
        made, earlier = re.search(
            r"part \d of 3: (\d) shards?, (\d)", capsys.readouterr().out
        ).groups()
        assert earlier == "0"
        seen.append(int(made))
    shards = [name for name in one if name.endswith(".mel")]
    assert sum(seen) == len(shards) > 4
    assert max(seen) <= 1 + len(shards) // 2
    assert not list((tmp_path / "cache").glob("*.tsv"))
    assert make(data, tmp_path / "cache", "--workers", "1") == 0
    assert f"{len(shards)} shards, {len(shards)} from earlier runs" in capsys.readouterr().out
    assert contents(tmp_path / "cache") == one
