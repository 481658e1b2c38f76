"""Clips in an object store that speaks the protocol of S3, run on this machine by moto."""

import tarfile
import urllib.request

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin import cli
from eat_plugin.data import stores
from eat_plugin.data.clip import ClipError
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.sources import read_audio
from eat_plugin.data.stores import UnreachableError
from tests.stores import restart as forget_stores

pytest.importorskip("s3fs", reason="s3:// needs s3fs: pip install '.[remote]'")
moto_server = pytest.importorskip("moto.server", reason="needs moto: pip install 'moto[server]'")


@pytest.fixture(scope="module")
def address():
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def options(address, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("EAT_REMOTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EAT_REMOTE_RETRIES", "1")
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.01)
    restart()
    yield
    urllib.request.urlopen(f"{address}/moto-api/reset", data=b"")
    restart()


def restart():
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    forget_stores()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "clips"
    (folder / "dog").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("dog/1.wav", "dog/2 b.flac"):
        soundfile.write(folder / name, rng.normal(0, 0.1, 8000), 16_000)
    with tarfile.open(folder / "shard.tar", "w") as archive:
        for name in ("1.wav", "2 b.flac"):
            archive.add(folder / "dog" / name, name)
    return folder


@pytest.fixture
def bucket(folder):
    system = stores.find_store("s3://").system
    system.mkdir("my-bucket")
    system.put(f"{folder}/", "my-bucket/deep/clips/", recursive=True)
    return system


def make_manifest(source, out):
    return cli.main(["manifest", str(source), "--out", str(out), "--workers", "1"])


def check_credentials_after(address, number):
    """Let moto check the credentials of all requests after a number of them."""
    headers = {"Content-Type": "text/plain"}
    url = f"{address}/moto-api/reset-auth"
    urllib.request.urlopen(urllib.request.Request(url, number.encode(), headers))


def problem(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_clips__have_the_bits_of_local_files(folder, bucket, tmp_path):
    assert make_manifest("s3://my-bucket/deep/clips/", tmp_path / "data") == 0
    assert make_manifest(folder, tmp_path / "local") == 0
    there, here = (read_manifest(tmp_path / name / "train.tsv") for name in ("data", "local"))
    assert there.root == "s3://my-bucket/deep/clips"
    lines = [(tmp_path / name / "train.tsv").read_text().splitlines() for name in ("data", "local")]
    assert lines[0][1:] == lines[1][1:]
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
    for index in range(len(there)):
        found = [read_audio(each.entry(index))[0] for each in (there, here)]
        assert torch.equal(*found)
    assert cli.main(["stats", str(tmp_path / "data"), "--workers", "1"]) == 0


def test_clips__of_a_changed_shard(bucket, tmp_path, capsys):
    assert make_manifest("s3://my-bucket/deep/clips", tmp_path / "data") == 0
    entry = read_manifest(tmp_path / "data" / "train.tsv").entry(2)
    assert entry.path.startswith("s3://my-bucket/deep/clips/shard.tar:")
    content = bucket.cat_file("my-bucket/deep/clips/shard.tar")
    bucket.pipe_file(
        "my-bucket/deep/clips/shard.tar", content[:2000] + bytes(content[2000:]) + b"x"
    )
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(ClipError, match="changed in its store"):
        read_audio(entry)
    assert cli.main(["stats", str(tmp_path / "data")]) == 2
    assert "shard.tar has changed in its store (another size, ETag" in problem(capsys)


def test_manifest__names_a_missing_bucket_and_an_empty_prefix(bucket, tmp_path, capsys):
    assert make_manifest("s3://no-bucket/clips", tmp_path) == 2
    assert "s3://no-bucket/clips: its bucket does not exist; check the address" in problem(capsys)
    assert make_manifest("s3://my-bucket/other", tmp_path) == 2
    assert "no audio (flac, mp3, ogg, wav) found under s3://my-bucket/other" in problem(capsys)


def test_manifest__names_wrong_credentials(bucket, address, tmp_path, capsys, monkeypatch):
    assert make_manifest("s3://my-bucket/deep/clips", tmp_path / "data") == 0
    entry = read_manifest(tmp_path / "data" / "train.tsv").entry(0)
    check_credentials_after(address, "0")
    try:
        restart()
        assert make_manifest("s3://my-bucket/deep/clips", tmp_path / "data") == 2
        shown = problem(capsys)
        assert "its store refuses access" in shown
        assert "check the credentials" in shown
        assert "hidden" not in shown
        assert cli.main(["stats", str(tmp_path / "data")]) == 2
        assert "its store refuses access" in problem(capsys)
        monkeypatch.setenv("EAT_REMOTE_CACHE", str(tmp_path / "empty"))
        restart()
        with pytest.raises(UnreachableError, match="refuses access"):
            read_audio(entry)
    finally:
        check_credentials_after(address, "inf")


def test_manifest__without_credentials(bucket, tmp_path, capsys, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    restart()
    assert make_manifest("s3://my-bucket/deep/clips", tmp_path / "data") == 2
    assert "its store refuses access: NoCredentialsError" in problem(capsys)
