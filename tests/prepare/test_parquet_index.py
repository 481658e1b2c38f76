"""Sounds in parquet files, as Hugging Face's datasets writes them; on disk and in a store."""

import errno
import json
import os

import pytest

from eat_plugin.cli import main
from eat_plugin.data import parquet, remote, remote_cache, stores
from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import Storage
from eat_plugin.data.label_set import split_labels
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.sources import read_audio
from tests.prepare.imported import make_sound, problem, read_clips, read_labels, run, run_parts
from tests.stores import clear_cache, restart

pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow: pip install '.[parquet]'")
pytest.importorskip("fsspec", reason="stores need fsspec: pip install '.[remote]'")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["rain", "dog", "a, b"]
SOUNDS = {f"{number}.wav": make_sound(number) for number in range(7)}
# Earlier versions of datasets wrote compressed pages, with dictionaries; later ones plain pages.
FORMS = {
    "plain": {"compression": {"label": "snappy"}, "use_dictionary": False},
    "compressed": {"compression": "gzip"},
    "dictionary": {"compression": "none"},
}


@pytest.fixture(autouse=True)
def options(tmp_path, monkeypatch):
    monkeypatch.setenv("EAT_REMOTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EAT_REMOTE_RETRIES", "0")
    restart()
    yield
    restart()


def features(**kinds):
    return {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}


AUDIO, LABEL = {"_type": "Audio", "sampling_rate": 16_000}, {"_type": "ClassLabel", "names": NAMES}


def make_table(sounds=SOUNDS, labels=None, metadata=None, **more):
    """Sounds as structures, and numbers of classes."""
    audio = [{"bytes": content, "path": name} for name, content in sounds.items()]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = {"label": labels or [number % 3 for number in range(len(sounds))]}
    columns["audio"] = pyarrow.array(audio, kind)
    table = pyarrow.table(columns | more)
    return table.replace_schema_metadata(
        features(audio=AUDIO, label=LABEL) if metadata is None else metadata
    )


def write(path, table, form="plain", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3, **{**FORMS[form], **options})


@pytest.mark.parametrize("form", FORMS)
def test_rows__have_the_bytes_of_their_files(tmp_path, place, form):
    write(tmp_path / "set" / "train-00000-of-00001.parquet", make_table(), form)
    out = tmp_path / "out"
    source = place(tmp_path / "set")
    assert run(source, out, "--layout", "parquet", "--label-column", "label") == 0
    assert (out / "rejected.tsv").read_bytes() == b""
    arguments = source, tmp_path / "parts", "--layout", "parquet", "--label-column", "label"
    assert run_parts(*arguments) == {path.name: path.read_bytes() for path in out.iterdir()}
    clear_cache(tmp_path)
    assert read_clips(out) == SOUNDS
    labels = [*NAMES[:2], '"a, b"']
    assert read_labels(out) == {name: labels[at % 3] for at, name in enumerate(SOUNDS)}
    lines = (out / "label_descriptors.csv").read_text().splitlines()
    assert lines[0] == "0,rain,rain"  # in the order of the classes
    manifest = read_manifest(out / "train.tsv")
    expected = Storage.PARQUET if form == "compressed" else Storage.ARCHIVE
    assert set(manifest.storages) == {expected}
    assert len(read_audio(manifest.entry(5))[0]) == 4005


@pytest.mark.parametrize("form", FORMS)
def test_rows__with_the_same_bytes_are_clips_of_their_own(tmp_path, form):
    sounds = {"a.wav": make_sound(1), "b.wav": make_sound(1), "c.wav": make_sound(1)}
    write(tmp_path / "set" / "a.parquet", make_table(sounds), form)
    assert run(tmp_path / "set", tmp_path / "out", "--layout", "parquet") == 0
    assert read_clips(tmp_path / "out") == sounds


def test_rows__of_a_store_are_fetched_a_group_at_a_time(tmp_path, monkeypatch):
    write(tmp_path / "set" / "a.parquet", make_table(), "compressed")
    system = stores.find_store("memory://x").system
    system.put(f"{tmp_path / 'set'}/", "/sets/", recursive=True)
    try:
        assert run("memory://sets", tmp_path / "out", "--layout", "parquet") == 0
        manifest = read_manifest(tmp_path / "out" / "train.tsv")
        clear_cache(tmp_path)
        decoded, decode = [], parquet._decode
        monkeypatch.setattr(
            parquet, "_decode", lambda *args: decoded.append(args[1].group) or decode(*args)
        )
        entries = list(remote.read_ahead([manifest.entry(index) for index in (6, 3, 4, 5)]))
        assert [len(read_audio(entry)[0]) for entry in entries] == [4006, 4003, 4004, 4005]
        assert sorted(decoded) == [1, 2]
        clear_cache(tmp_path)
        content = system.cat_file("/sets/a.parquet")
        system.pipe_file("/sets/a.parquet", content[:-9] + b"x" + content[-8:])
        with pytest.raises(ClipError, match="changed in its store"):
            read_audio(manifest.entry(0))
        restart()
        system.rm("/sets/a.parquet")
        with pytest.raises(ClipError, match="does not exist"):
            read_audio(manifest.entry(0))
    finally:
        system.store.clear()


def test_splits__are_those_of_the_names(tmp_path):
    folder, sounds = tmp_path / "set", list(SOUNDS.items())
    names = ("data/train-00000-of-00002-0ab1.parquet", "data/train-00001-of-00002-9c.parquet",
             "test/0000.parquet")  # fmt: skip
    for number, name in enumerate(names):
        write(folder / name, make_table(dict(sounds[2 * number : 2 * number + 2])))
    out = tmp_path / "out"
    assert run(folder, out, "--layout", "parquet") == 0
    assert set(read_clips(out)) == {"0.wav", "1.wav", "2.wav", "3.wav"}
    assert set(read_clips(out, "test")) == {"4.wav", "5.wav"}
    assert not (out / "train.lbl").exists()
    assert run(folder / "data", tmp_path / "other", "--layout", "parquet", "--valid", "0.5") == 0
    assert len(read_clips(tmp_path / "other", "valid")) == 2


def test_labels__lists_of_classes(tmp_path, capsys):
    folder, out = tmp_path / "set", tmp_path / "out"
    arguments = folder, out, "--layout", "parquet", "--label-column", "label"
    kind = {"_type": "Sequence", "feature": LABEL}
    for value, status in (([0, None, -1, 2], 0), ([7], 2)):
        labels = pyarrow.array([value] * len(SOUNDS), pyarrow.list_(pyarrow.int64()))
        metadata = features(audio=AUDIO, label=kind)
        write(folder / "a.parquet", make_table(labels=labels, metadata=metadata))
        assert run(*arguments) == status
    assert "found [7], expected a text, an integer, a class or a list" in problem(capsys)
    (found,) = {line.partition("\t")[2] for line in (out / "train.lbl").read_text().splitlines()}
    assert split_labels(found) == [NAMES[0], NAMES[2]]


def test_labels__texts_lists_and_none(tmp_path, capsys):
    folder, out = tmp_path / "set", tmp_path / "out"
    arguments = folder, out, "--layout", "parquet", "--label-column"
    tags = [["b", "a"], ["a"], ["b"], None, [], ["a", "a"], ["c"]]
    write(folder / "a.parquet", make_table(labels=[-1, 1, 0, 2, 1, 0, 2], tags=tags))
    assert run(*arguments, "tags") == 0
    assert read_labels(out) == {
        "0.wav": "b,a", "1.wav": "a", "2.wav": "b", "5.wav": "a", "6.wav": "c",
    }  # fmt: skip
    assert run(*arguments, "label") == 0
    assert len(read_labels(out)) == 6
    assert (out / "rejected.tsv").read_text().startswith("a.parquet:audio:0:0\thas no label")
    assert run(*arguments, "other") == 2
    assert "--label-column other: no such column; it has: label, audio, tags" in problem(capsys)
    assert run(*arguments, "audio") == 2
    assert "expected a text, an integer, a class or a list" in problem(capsys)
    other = features(audio=AUDIO, label={"_type": "ClassLabel", "names": NAMES[::-1]})
    write(folder / "b.parquet", make_table(metadata=other))
    assert run(*arguments, "label") == 2
    assert "b.parquet has other classes than the files before it" in problem(capsys)


def test_columns__none_or_several(tmp_path, capsys):
    folder, out = tmp_path / "set", tmp_path / "out"
    two = make_table(metadata={})
    two = two.append_column("clean", two["audio"])
    write(folder / "a.parquet", two)
    assert run(folder, out, "--layout", "parquet") == 2
    assert "several columns of sound; choose --audio-column audio or clean" in problem(capsys)
    assert run(folder, out, "--layout", "parquet", "--audio-column", "clean") == 0
    assert read_clips(out) == SOUNDS
    assert run(folder, out, "--layout", "parquet", "--audio-column", "label") == 2
    assert "--audio-column label: no such column of sound; it has: label" in problem(capsys)
    image = {"_type": "Image"}
    write(folder / "a.parquet", make_table(metadata=features(audio=image, label=LABEL)))
    assert run(folder, out, "--layout", "parquet") == 2
    shown = problem(capsys)
    assert "a.parquet: has no column of sound" in shown
    assert "label (int64), audio (struct<bytes: binary, path: string>)" in shown
    assert run(folder, out) == 2
    assert "there are 1 parquet; for sounds in parquet files add --layout" in problem(capsys)


def test_files__that_are_cut_off(tmp_path, place, capsys):
    path = tmp_path / "set" / "a.parquet"
    write(path, make_table())
    path.write_bytes(path.read_bytes()[:-1000])
    assert run(place(tmp_path / "set"), tmp_path / "out", "--layout", "parquet") == 2
    assert "a.parquet: is damaged, cut off or no parquet file" in problem(capsys)
    assert not (tmp_path / "out" / "train.tsv").exists()


def test_rows__that_cannot_be_read(tmp_path, capsys):
    path, out = tmp_path / "set" / "a.parquet", tmp_path / "out"
    write(path, make_table({**SOUNDS, "away.wav": None}), "compressed")
    assert run(tmp_path / "set", out, "--layout", "parquet") == 0
    assert "a.parquet:audio:2:1\thas no bytes" in (out / "rejected.tsv").read_text()
    for row, text in (
        ("audio:0:3", "is row 3 of a row group of 3 rows; run eat manifest again"),
        ("audio:3:0", "is in row group 3, but its file has 3"),
        ("sound:0:0", "has no column 'sound' of sound"),
        ("audio:2:1", "has no bytes in its row"),
    ):
        with pytest.raises(ClipError, match=text):
            read_audio(f"{path}/{row}")
    with pytest.raises(ClipError, match="cannot be opened: No such file"):
        read_audio(f"{path.with_name('b.parquet')}/audio:0:0")


def test_files__that_have_changed(tmp_path, capsys):
    path, out = tmp_path / "set" / "a.parquet", tmp_path / "out"
    for form in ("plain", "compressed"):
        write(path, make_table(), form)
        assert run(tmp_path / "set", out, "--layout", "parquet") == 0
        os.utime(path, ns=(1, 1))
        assert main(["stats", str(out)]) == 2
        assert "a.parquet' changed after it was indexed" in problem(capsys)


def test_rows__that_the_cache_cannot_hold(tmp_path, monkeypatch):
    path = tmp_path / "set" / "a.parquet"
    write(path, make_table(), "compressed")

    def fail(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(remote_cache.Cache, "add", fail)
    with pytest.raises(stores.UnreachableError, match="the cache: Read-only"):
        read_audio(f"{path}/audio:0:0")


def test_rows__of_the_cache_are_whole(tmp_path):
    path = tmp_path / "set" / "a.parquet"
    write(path, make_table(), "compressed")
    before = read_audio(f"{path}/audio:1:1")[0]
    for part in (tmp_path / "cache").rglob("*"):
        if part.is_file():
            part.write_bytes(part.read_bytes()[:100])  # as after a crash of the machine
    assert read_audio(f"{path}/audio:1:1")[0].equal(before)


def test_manifest__without_pyarrow(tmp_path, capsys, monkeypatch):
    write(tmp_path / "set" / "a.parquet", make_table(), "compressed")
    assert run(tmp_path / "set", tmp_path / "out", "--layout", "parquet") == 0
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    monkeypatch.delattr(pyarrow, "parquet")
    assert run(tmp_path / "set", tmp_path / "out", "--layout", "parquet") == 2
    assert "a.parquet: needs pyarrow, which is not installed" in problem(capsys)
    with pytest.raises(ValueError, match="needs pyarrow"):
        read_manifest(tmp_path / "out" / "train.tsv")


@pytest.mark.slow  # an import of datasets takes seconds
def test_rows__written_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face's datasets")
    rows = {"audio": [{"bytes": c, "path": n} for n, c in SOUNDS.items()]}
    rows["label"] = [number % 3 for number in range(len(SOUNDS))]
    plain = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    label = datasets.ClassLabel(names=NAMES)
    written = datasets.Dataset.from_dict(
        rows, features=datasets.Features({"audio": plain, "label": label})
    ).cast(datasets.Features({"audio": datasets.Audio(), "label": label}))
    (tmp_path / "set").mkdir()
    written.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    arguments = tmp_path / "set", tmp_path / "out", "--layout", "parquet"
    assert run(*arguments, "--label-column", "label") == 0
    assert read_clips(tmp_path / "out") == SOUNDS
    assert read_labels(tmp_path / "out")["1.wav"] == "dog"
