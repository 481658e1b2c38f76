"""Shards with an index: WebDataset, Lhotse Shar, Energon; on disk and in a store."""

import gzip
import io
import json
import os
import tarfile

import numpy as np
import pytest
import soundfile

from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.sources import read_audio
from tests.prepare.imported import (
    make_sound,
    problem,
    read_clips,
    read_ids,
    read_labels,
    run,
    run_parts,
)

SOUNDS = {f"{number:03d}": make_sound(number) for number in range(5)}
KINDS = ("cat", "dog")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EAT_REMOTE_CACHE", str(tmp_path / "cache"))


def write_tar(path, members):
    """Write members and return their first bytes and sizes by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as archive:
        return {info.name: (info.offset_data, info.size) for info in archive}


def kind_of(key):
    return KINDS[int(key) % 2]


def sample(key):
    return {f"{key}.wav": SOUNDS[key], f"{key}.json": json.dumps({"kind": kind_of(key)}).encode()}


def write_shards(folder, *shards):
    return [
        write_tar(folder / f"{number}.tar", {k: v for key in keys for k, v in sample(key).items()})
        for number, keys in enumerate(shards)
    ]


def index_lines(places):
    """An index as of DALI: a line of a sample, ending, first byte, size and name of each member."""
    rows = {}
    for name, (start, size) in places.items():
        key, _, ending = name.partition(".")
        rows.setdefault(key, []).append(f"{ending} {start} {size} {name}")
    return "".join([f"v1.2 {len(rows)}\n", *(f"{' '.join(row)}\n" for row in rows.values())])


@pytest.mark.parametrize("has_index", [True, False])
def test_webdataset__has_the_bytes_of_its_members(tmp_path, place, has_index):
    folder = tmp_path / "shards"
    for number, places in enumerate(write_shards(folder, ["000", "001", "002"], ["003", "004"])):
        if has_index:
            (folder / f"{number}.idx").write_text(index_lines(places))
    out = tmp_path / "out"
    assert run(place(folder), out, "--layout", "webdataset", "--json-key", "kind") == 0
    assert read_clips(out) == SOUNDS
    assert read_labels(out) == {key: kind_of(key) for key in SOUNDS}
    assert (out / "rejected.tsv").read_bytes() == b""


def test_webdataset__refuses_an_index_of_another_shard(tmp_path, place, capsys):
    folder = tmp_path / "shards"
    (places,) = write_shards(folder, ["000", "001", "002"])
    (folder / "0.idx").write_text(index_lines(places))
    write_shards(folder, ["000", "002", "001"])
    arguments = tmp_path / "out", "--layout", "webdataset", "--json-key", "kind"
    assert run(place(folder), *arguments) == 2
    shown = problem(capsys)
    assert "0.tar does not fit its index" in shown
    assert f"a member of {places['001.wav'][1]} bytes at byte {places['001.wav'][0]}" in shown
    assert "make the index again" in shown
    (folder / "0.idx").write_text("binary\n")
    assert run(place(folder), *arguments) == 2
    assert "0.idx: its first line is no version, as 'v1.2 100'" in problem(capsys)
    assert not (tmp_path / "out" / "train.tsv").exists()


def write_shar(folder, keys, number="000000", **changes):
    """A shard of Lhotse Shar; ``changes`` of the cut of a key."""
    members, cuts = {}, []
    for key in keys:
        duration = (4000 + int(key)) / 16_000
        members |= {f"{key}.original": SOUNDS[key], f"{key}.json": b"{}\n"}
        supervision = {"id": key, "text": "words", "custom": {"kind": kind_of(key)}}
        recording = {"id": key, "sampling_rate": 16_000, "duration": duration}
        cut = {"id": key, "start": 0, "duration": duration, "type": "MonoCut"}
        cut |= {"supervisions": [supervision], "recording": recording, "custom": {"place": "sea"}}
        cuts.append(cut | changes.get(f"cut_{key}", {}))
    write_tar(folder / f"recording.{number}.tar", members)
    text = "".join(f"{json.dumps(cut)}\n" for cut in cuts)
    (folder / f"cuts.{number}.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def test_lhotse__has_the_bytes_of_its_members(tmp_path, place, capsys):
    folder = tmp_path / "shar"
    write_shar(folder, ["000", "001", "002"])
    write_shar(folder, ["003", "004"], "000001")
    write_tar(folder / "features.000000.tar", {"000.wav": b"no sound"})
    source = place(folder)
    assert run(source, tmp_path / "out") == 0
    assert "layout: lhotse" in capsys.readouterr().out
    assert read_clips(tmp_path / "out") == SOUNDS
    assert not (tmp_path / "out" / "train.lbl").exists()
    out = tmp_path / "out"
    assert run(source, out, "--json-key", "kind") == 0
    assert read_labels(out) == {key: kind_of(key) for key in SOUNDS}
    merged = run_parts(source, tmp_path / "parts", "--json-key", "kind")
    assert merged == {path.name: path.read_bytes() for path in out.iterdir()}


def test_lhotse__rejects_what_is_not_a_whole_recording(tmp_path):
    folder, part = tmp_path / "shar", {"start": 0.1, "duration": 0.1}
    sped = {"recording": {"duration": 0.25, "transforms": [{"name": "Speed"}]}}
    write_shar(folder, SOUNDS, cut_001=part, cut_002=sped, cut_003={"recording": None})
    assert run(folder, tmp_path / "out", "--json-key", "place", "--layout", "lhotse") == 2
    lines = (tmp_path / "out" / "rejected.tsv").read_text().splitlines()
    assert len(lines) == 3
    assert "a part of its recording of 0.25" in lines[0]
    assert "changes its recording (transforms)" in lines[1]
    assert "without a recording" in lines[2]
    assert run(folder, tmp_path / "out", "--json-key", "other") == 2
    assert "its cut has no 'other'" in (tmp_path / "out" / "rejected.tsv").read_text()


@pytest.mark.parametrize("case", ["more cuts", "fewer cuts", "no cuts", "cut off"])
def test_lhotse__refuses_cuts_of_another_shard(tmp_path, capsys, case):
    folder, other = tmp_path / "shar", tmp_path / "other"
    write_shar(folder, ["000", "001"])
    write_shar(other, {"more cuts": ["000", "001", "002"]}.get(case, ["000"]))
    cuts = folder / "cuts.000000.jsonl.gz"
    os.replace(other / cuts.name, cuts)
    if case == "cut off":
        cuts.write_bytes(cuts.read_bytes()[:60])
    elif case == "no cuts":
        cuts.unlink()
    assert run(folder, tmp_path / "out", "--layout", "lhotse") == 2
    assert {
        "more cuts": "does not fit its cuts: '002' is not in the shard, but in cuts.000000",
        "fewer cuts": "does not fit its cuts: '001' has no cut in cuts.000000.jsonl.gz",
        "no cuts": "there is no",
        "cut off": "is cut off or no gzip file",
    }[case] in problem(capsys)


def test_lhotse__a_shard_that_was_not_copied(tmp_path, capsys):
    folder = tmp_path / "shar"
    write_shar(folder, ["000", "001"])
    write_shar(folder, ["002"], "000001")
    (folder / "recording.000001.tar").unlink()
    assert run(folder, tmp_path / "out", "--layout", "lhotse") == 2
    assert f"there is no {folder}/recording.000001.tar for {folder}/cuts" in problem(capsys)


def test_lhotse__a_cut_without_a_sound_is_no_error(tmp_path):
    write_shar(tmp_path / "shar", ["000", "001"])
    members = {"000.original": SOUNDS["000"], "000.json": b"{}"}
    members |= {"001.nodata": b"", "001.nometa": b""}
    write_tar(tmp_path / "shar" / "recording.000000.tar", members)
    assert run(tmp_path / "shar", tmp_path / "out") == 0
    assert read_clips(tmp_path / "out") == {"000": SOUNDS["000"]}


@pytest.mark.slow  # an import of lhotse takes seconds
def test_lhotse__written_by_lhotse(tmp_path):
    lhotse = pytest.importorskip("lhotse", reason="needs lhotse: pip install lhotse")
    cuts = []
    for key, content in SOUNDS.items():
        (tmp_path / f"{key}.wav").write_bytes(content)
        cut = lhotse.Recording.from_file(tmp_path / f"{key}.wav").to_cut()
        cut.supervisions.append(
            lhotse.SupervisionSegment(key, cut.recording.id, 0, cut.duration, language=kind_of(key))
        )
        cuts.append(cut)
    (tmp_path / "shar").mkdir()
    lhotse.CutSet.from_cuts(cuts).to_shar(tmp_path / "shar", {"recording": "flac"}, shard_size=2)
    out = tmp_path / "out"
    assert run(tmp_path / "shar", out, "--json-key", "language") == 0
    assert read_labels(out) == {key: kind_of(key) for key in SOUNDS}
    manifest, ids = read_manifest(out / "train.tsv"), read_ids(out)
    for index in range(len(manifest)):
        expected, _ = soundfile.read(io.BytesIO(SOUNDS[ids[manifest.name(index)]]))
        np.testing.assert_allclose(read_audio(manifest.entry(index))[0], expected, atol=1e-4)


def write_energon(folder, splits, counts, exclude=()):
    meta = folder / ".nv-meta"
    meta.mkdir(parents=True, exist_ok=True)
    content = {"split_parts": splits, "exclude": [*exclude]}
    (meta / "split.yaml").write_text(json.dumps(content))  # which is YAML too
    (meta / ".info.json").write_text(json.dumps({"shard_counts": counts}))


def test_energon__has_its_splits_without_what_is_excluded(tmp_path, place, capsys):
    pytest.importorskip("yaml", reason="needs PyYAML: pip install '.[energon]'")
    folder = tmp_path / "set"
    write_shards(folder, ["000", "001"], ["002", "003"], ["004"])
    counts = {"0.tar": 2, "1.tar": 2, "2.tar": 1}
    write_energon(folder, {"train": ["{0..1}.tar"], "val": ["2.tar"]}, counts, ["1.tar/003"])
    out = tmp_path / "out"
    assert run(place(folder), out) == 0
    assert "layout: energon" in capsys.readouterr().out
    assert read_clips(out) == {key: SOUNDS[key] for key in ("000", "001", "002")}
    assert read_clips(out, "val") == {"004": SOUNDS["004"]}
    assert run(place(folder), out, "--json-key", "kind") == 0
    assert read_labels(out, "val") == {"004": "cat"}
    assert run(place(folder), tmp_path / "other", "--valid", "0.5") == 2
    assert "--valid: the data set has the splits train, val already" in problem(capsys)


def test_energon__refuses_what_does_not_fit(tmp_path, capsys):
    pytest.importorskip("yaml", reason="needs PyYAML: pip install '.[energon]'")
    folder, out = tmp_path / "set", tmp_path / "out"
    write_shards(folder, ["000", "001"])
    write_energon(folder, {"train": ["0.tar"]}, {"0.tar": 3})
    assert run(folder, out) == 2
    assert "has 2 samples, listed are 3; the shard has changed" in problem(capsys)
    write_energon(folder, {"train": ["0.tar", "9.tar"]}, {"0.tar": 2})
    assert run(folder, out) == 2
    assert "split.yaml: there is no shard" in problem(capsys)
    write_energon(folder, {"train": ["0.tar"], "val": ["0.tar"]}, {"0.tar": 2})
    assert run(folder, out) == 2
    assert "0.tar is in the splits train and val" in problem(capsys)
    (folder / ".nv-meta" / "split.yaml").write_text("split_parts: [")
    assert run(folder, out) == 2
    assert "split.yaml: is no YAML" in problem(capsys)
    assert run(tmp_path, out, "--layout", "energon") == 2
    assert "there is neither split.yaml nor split.json" in problem(capsys)


@pytest.mark.slow  # it starts processes
def test_energon__prepared_by_energon(tmp_path):
    pytest.importorskip("megatron.energon", reason="needs megatron-energon")
    from megatron.energon.epathlib import EPath
    from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

    folder = tmp_path / "set"
    write_shards(folder, ["000", "001"], ["002", "003"], ["004"])
    WebdatasetPreparator.prepare_dataset(
        EPath(folder), ["0.tar", "1.tar", "2.tar"], split_parts_patterns=[("train", "[01].*"),
        ("val", "2.*")], workers=1,
    )  # fmt: skip
    assert run(folder, tmp_path / "out") == 0
    found = read_clips(tmp_path / "out") | read_clips(tmp_path / "out", "val")
    assert found == SOUNDS
    assert set(read_clips(tmp_path / "out", "val")) == {"004"}
