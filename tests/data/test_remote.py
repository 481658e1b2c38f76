"""Clips in stores: the same bits as local files, failures, changes, read-ahead, forks."""

import os
import re
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from benchmarks.range_server import serving
from eat_plugin import cli
from eat_plugin.data import remote, stores, web
from eat_plugin.data.clip import ClipError
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.sources import read_audio
from eat_plugin.data.stores import UnreachableError
from tests.stores import clear_cache, restart

pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp: pip install '.[remote]'")


@pytest.fixture
def folder(tmp_path):
    """Two wav, one flac, and a tar of three wav, of noise."""
    folder = tmp_path / "clips of mine"
    (folder / "a dog").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a dog/1 é.wav", "a dog/2.wav", "b.flac"):
        soundfile.write(folder / name, rng.normal(0, 0.1, rng.integers(8000, 9000)), 16_000)
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for number in range(3):
            soundfile.write(tmp_path / "x.wav", rng.normal(0, 0.1, 7000 + number), 16_000)
            archive.add(tmp_path / "x.wav", f"{number}.wav")
    return folder


@pytest.fixture(autouse=True)
def options(tmp_path, monkeypatch):
    """A cache of its own, and short pauses."""
    monkeypatch.setenv("EAT_REMOTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EAT_REMOTE_RETRIES", "2")
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.01)
    restart()
    yield
    restart()


@pytest.fixture
def server(folder):
    with serving(folder) as server:
        yield server


def list_clips(source, out):
    assert cli.main(["manifest", str(source), "--out", str(out), "--workers", "1"]) == 0
    return read_manifest(out / "train.tsv")


@pytest.fixture
def manifests(folder, server, tmp_path):
    """The manifest of the server, and of the folder that it serves."""
    return list_clips(server.url, tmp_path / "data"), list_clips(folder, tmp_path / "local")


def samples(manifest):
    return [read_audio(manifest.entry(index))[0] for index in range(len(manifest))]


def is_equal(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


def lines_of(path):
    return path.read_text().splitlines()


def test_manifest__of_a_server_equals_that_of_its_folder(manifests, server, tmp_path):
    here, there = (tmp_path / name / "train.tsv" for name in ("data", "local"))
    assert lines_of(here)[1:] == lines_of(there)[1:]
    assert lines_of(here)[0] == server.url
    names = [line.split("\t")[0] for line in lines_of(tmp_path / "data" / "train.archives")]
    assert names == ["a dog/1 é.wav", "a dog/2.wav", "b.flac", "shard.tar"]


def test_clips__have_the_bits_of_local_files(manifests, tmp_path, server):
    there, here = manifests
    server.requests.clear()
    assert is_equal(samples(there), samples(here))
    assert server.requests == []  # in the cache since they were listed
    clear_cache(tmp_path)
    assert is_equal(samples(there), samples(here))
    ranges = [asked for _, path, asked in server.requests if path == "/shard.tar" and asked]
    assert len(ranges) == 3  # the clips alone
    assert sum(1 for method, *_ in server.requests if method == "GET") == 6


def test_manifest__names_an_archive_without_audio(folder, server, tmp_path):
    with tarfile.open(folder / "texts.tar", "w") as archive:
        archive.add(folder / "b.flac", "notes.txt")
    list_clips(server.url, tmp_path / "data")
    (line,) = lines_of(tmp_path / "data" / "rejected.tsv")
    assert line.startswith("texts.tar\tholds no clip")


def test_manifest__names_an_hdf5_file(folder, server, tmp_path):
    (folder / "a.h5").write_bytes(b"\x89HDF")
    list_clips(server.url, tmp_path / "data")
    (line,) = lines_of(tmp_path / "data" / "rejected.tsv")
    assert line.startswith("a.h5\tis an HDF5 file in a store, whose chunks")


@pytest.mark.parametrize(
    "failures", [[500, 503], ["cut", "cut"], ["slow"], ["short", "cut"]], ids=str
)
def test_failures__are_tried_again(manifests, tmp_path, server, failures, monkeypatch):
    there, here = manifests
    clear_cache(tmp_path)
    monkeypatch.setenv("EAT_REMOTE_TIMEOUT", "0.3")
    restart()
    server.failures[:] = failures
    assert torch.equal(read_audio(there.entry(3))[0], read_audio(here.entry(3))[0])
    assert not server.failures


@pytest.mark.parametrize(
    ("failure", "attempts", "problem"),
    [
        (500, 3, "its store failed 3 times, at last with HTTPError: HTTP Error 500"),
        ("cut", 3, "its store failed 3 times"),
        (403, 1, "its store refuses access: .*403.*; check the credentials"),
        ("whole", 1, "sends whole files where ranges"),
    ],
)
def test_failures__that_stay_are_of_the_store(
    manifests, tmp_path, server, failure, attempts, problem
):
    clear_cache(tmp_path)
    server.always = failure
    server.requests.clear()
    with pytest.raises(UnreachableError, match=problem) as caught:
        read_audio(manifests[0].entry(3))
    assert caught.value.filename == f"{server.url}/shard.tar"
    assert len(server.requests) == attempts
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_failures__a_server_that_is_gone(manifests, tmp_path, server):
    path = tmp_path / "data" / "train.tsv"
    path.write_text(path.read_text().replace(server.url, "http://127.0.0.1:1"))
    entry = read_manifest(path).entry(0)
    with pytest.raises(UnreachableError, match="its store failed 3 times"):
        read_audio(entry)
    with pytest.raises(UnreachableError, match="its store failed 3 times"):
        read_audio(entry.path)  # asks for its version first


def test_clips__missing(manifests, folder, tmp_path):
    clear_cache(tmp_path)
    (folder / "b.flac").unlink()
    with pytest.raises(ClipError, match="does not exist in its store; run eat manifest again"):
        read_audio(manifests[0].entry(2))


def test_clips__of_a_server_that_redirects(manifests, tmp_path, server, monkeypatch):
    there, here = manifests
    clear_cache(tmp_path)
    server.redirects = True
    monkeypatch.setattr(web, "_redirecting", set())
    assert is_equal(samples(there), samples(here))
    assert len(web._redirecting) == 1


def test_web__asks_for_the_query_and_leaves_passwords_to_fsspec(monkeypatch):
    class AskedError(Exception):
        pass

    def ask(scheme, host, target, *more):
        raise AskedError(scheme, host, target)

    monkeypatch.setattr(web, "_ask", ask)
    system = pytest.importorskip("fsspec").filesystem("https")
    with pytest.raises(AskedError) as asked:
        web.read_directly(system, "https://one.org:8/a%20b.wav?id=5", 0, 4, None)
    assert asked.value.args == ("https", "one.org:8", "/a%20b.wav?id=5")
    assert web.read_directly(system, "https://me:word@one.org/a.wav", 0, 4, None) is None


def test_clips__connections_are_kept_and_renewed(manifests, tmp_path, server, monkeypatch):
    there, here = manifests
    made, connect = [], web.http.client.HTTPConnection
    monkeypatch.setattr(
        web.http.client, "HTTPConnection", lambda *a, **b: made.append(a) or connect(*a, **b)
    )
    monkeypatch.setenv("EAT_REMOTE_RETRIES", "0")
    web._connections().clear()
    clear_cache(tmp_path)
    read_audio(there.entry(3)), read_audio(there.entry(4))
    assert len(made) == 1
    for kept, _ in web._connections().values():
        kept.sock.shutdown(2)  # as by a server that has waited long
    assert torch.equal(read_audio(there.entry(5))[0], read_audio(here.entry(5))[0])
    assert len(made) == 2


def test_clips__with_options_of_the_library(manifests, tmp_path, server):
    clear_cache(tmp_path)
    stores.find_store(server.url).system.kwargs["headers"] = {"X-Key": "mine"}
    server.headers.clear()
    read_audio(manifests[0].entry(3))
    assert "mine" in server.headers


@pytest.mark.parametrize("is_cached", [True, False])
def test_clips__of_a_changed_shard(manifests, folder, tmp_path, is_cached, capsys):
    there, _ = manifests
    before = samples(there)
    content = (folder / "shard.tar").read_bytes()
    (folder / "shard.tar").write_bytes(content[:3000] + bytes(100) + content[3100:])
    restart()
    if is_cached:  # what was listed is still here
        assert is_equal(samples(there), before)
    else:
        clear_cache(tmp_path)
        with pytest.raises(ClipError, match="changed in its store after it was listed"):
            read_audio(there.entry(3))
    assert cli.main(["stats", str(tmp_path / "data")]) == 2
    problem = capsys.readouterr().err.splitlines()[-1]
    assert "train.archives:4: " in problem
    assert "shard.tar has changed in its store (another size, ETag or time); run eat " in problem


def test_manifest__without_its_archives_is_refused(manifests, tmp_path, capsys):
    (tmp_path / "data" / "train.archives").unlink()
    assert cli.main(["stats", str(tmp_path / "data")]) == 2
    assert "train.tsv:2: train.archives next to it has no line for" in capsys.readouterr().err


class Clips:
    """A data set of the samples of a manifest."""

    def __init__(self, manifest):
        self.manifest = manifest

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, index):
        remote.fetch_ahead([self.manifest.entry(index)])
        return read_audio(self.manifest.entry(index))[0]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_clips__in_data_workers(manifests, tmp_path, method):
    there, here = manifests
    clear_cache(tmp_path)
    read_audio(there.entry(0))  # this process has a store,
    list(remote.read_ahead([there.entry(index) for index in range(3)]))  # and threads
    loader = DataLoader(
        Clips(there), batch_size=None, num_workers=2, timeout=100, multiprocessing_context=method
    )
    assert is_equal(list(loader), samples(here))


def test_read_ahead__fetches_before_the_turn(manifests, tmp_path, server):
    there, here = manifests
    clear_cache(tmp_path)
    server.requests.clear()
    entries = remote.read_ahead([there.entry(index) for index in range(len(there))])
    first = next(entries)
    for fetch in list(remote._process.fetches.values()):
        fetch.result()
    asked = [request for request in server.requests if request[0] == "GET"]
    assert len(asked) == len(there)
    found = [read_audio(entry)[0] for entry in (first, *entries)]
    assert is_equal(found, samples(here))
    assert [request for request in server.requests if request[0] == "GET"] == asked


def test_read_ahead__keeps_errors_for_the_turn(manifests, folder, tmp_path):
    there, _ = manifests
    clear_cache(tmp_path)
    (folder / "b.flac").unlink()
    entries = list(remote.read_ahead([there.entry(1), there.entry(2)]))
    assert len(read_audio(entries[0])[0])
    with pytest.raises(ClipError, match="does not exist"):
        read_audio(entries[1])


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("https://user:secret@host/clips", "must not hold credentials"),
        ("https://host/clips?X-Amz-Signature=secret", "must not hold credentials"),
        ("s3://key:secret@bucket", "must not hold credentials"),
        ("s3://", "names no bucket"),
        ("nonsense://bucket/clips", "not a protocol that fsspec knows"),
        ("memory://nowhere", "no audio .* found under memory://nowhere"),
    ],
)
def test_manifest__refuses_an_address(address, problem, tmp_path, capsys):
    assert cli.main(["manifest", address, "--out", str(tmp_path / "data")]) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert re.search(problem, shown)
    assert "secret" not in shown


def test_errors__do_not_show_a_signature():
    error = OSError("403 of https://user:secret@host/a.tar?X-Amz-Signature=secret denied")
    assert stores._describe(error) == "OSError: 403 of https://host/a.tar denied"


@pytest.fixture
def tables(folder, tmp_path):
    """Files of three layouts next to the clips, and a table of a fourth."""
    header = "filename,fold,target,category\n"
    (folder / "esc50.csv").write_text(f"{header}1.wav,1,0,dog\n2.wav,2,1,cat\n3.wav,2,1,cat\n")
    (folder / "audio").mkdir()
    for number in (1, 2):
        os.link(folder / "a dog" / "2.wav", folder / "audio" / f"{number}.wav")
    (folder / "validation_list.txt").write_text("a dog/2.wav\n")
    (folder / "testing_list.txt").write_text("audio/1.wav\n")
    table = tmp_path / "table.csv"
    table.write_text("filename,label\na dog/2,dog\nb,cat\nB,cat\n")
    return table


@pytest.mark.parametrize("layout", ["esc50", "speech_commands", "csv"])
def test_layouts__of_a_server_equal_those_of_its_folder(
    folder, server, tables, tmp_path, layout, capsys
):
    arguments = ["--layout", layout, *(["--csv", str(tables)] if layout == "csv" else [])]
    for source, out in ((server.url, "data"), (folder, "local")):
        options = ["--out", str(tmp_path / out), "--workers", "1"]
        assert cli.main(["manifest", str(source), *options, *arguments]) == 0
    written = {path.name for path in (tmp_path / "local").iterdir()}
    assert {"train.tsv", "train.lbl", "class_counts.csv"} <= written
    for name in written - {"rejected.tsv"}:
        first, second = (tmp_path / out / name for out in ("data", "local"))
        assert lines_of(first)[1:] == lines_of(second)[1:]
    rejected = [lines_of(tmp_path / out / "rejected.tsv") for out in ("data", "local")]
    assert [line.split("\t")[0] for line in rejected[0]] == [
        line.split("\t")[0] for line in rejected[1]
    ]
    if layout == "csv":
        assert "B\tdoes not exist in its store" in rejected[0][0]
        assert "there is 'b.flac'" in rejected[0][0]


def test_layouts__that_lack_their_files(server, tmp_path, capsys):
    arguments = ["manifest", server.url, "--out", str(tmp_path / "data")]
    assert cli.main([*arguments, "--layout", "speech_commands"]) == 2
    assert "validation_list.txt: does not exist in its store\n" in capsys.readouterr().err
    assert cli.main([*arguments, "--layout", "esc50"]) == 2
    assert "there is neither meta/esc50.csv nor esc50.csv in http" in capsys.readouterr().err
    assert cli.main([*arguments, "--checksum"]) == 2
    assert "--checksum is for archives of this machine" in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "data")
