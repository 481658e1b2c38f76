"""Checksums of checkpoints, and damaged checkpoints."""

import errno
import os
import random
import re
import tarfile
import zipfile

import pytest
import torch

from eat_plugin import checkpoint_files
from eat_plugin.checkpoint_files import DamagedError, find_damage, read_data
from eat_plugin.models.interop import read_checkpoint

NUMBERS = torch.arange(600, dtype=torch.float32)
STATE = {
    "cfg": {"model": {"_name": "eat", "depth": 2}, "task": {"data": "/data", "norm_mean": -4.5}},
    "model": {"weight": NUMBERS.reshape(20, 30), "bias": NUMBERS[:30].half().clone()},
    "last_optimizer_state": {"step": torch.tensor(3), "average": NUMBERS.double()},
    "optimizer_history": [{"num_updates": 3}],
}
VARIANTS = 300  # of damage


@pytest.fixture
def path(tmp_path):
    torch.save(STATE, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    if torch.is_tensor(first):
        return first.dtype == second.dtype and torch.equal(first, second)
    return type(first) is type(second) and first == second


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 16
    path.write_bytes(content)


def test_find_damage__names_the_record(path):
    assert find_damage(path) == ""
    with zipfile.ZipFile(path) as archive:
        record = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
    flip(path, record.header_offset + 200)
    assert torch.load(path, weights_only=True)  # PyTorch reads it
    assert find_damage(path) == "its record 'data/0' is not what was saved (CRC-32)"
    message = (
        r"^.*a.pt is damaged: its record 'data/0' is not .*; copy it again from its source, or"
    )
    with pytest.raises(DamagedError, match=message):
        read_data(path)
    with pytest.raises(DamagedError, match=message):
        read_checkpoint(path)
    assert read_data(path, check=False)["optimizer_history"] == [{"num_updates": 3}]


def test_find_damage__file_without_checksums(tmp_path, path):
    """As of ``set_crc32_options(False)``, which writes 0 for each."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            for place in range(len(content)):
                if content[place : place + 4] == record.CRC.to_bytes(4, "little"):
                    content[place : place + 4] = bytes(4)
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert {record.CRC for record in archive.infolist()} == {0}
    assert find_damage(path) == ""
    assert same(read_checkpoint(path), STATE)


@pytest.mark.skipif(
    not hasattr(torch.serialization, "set_crc32_options"), reason="PyTorch 2.6 and later"
)
def test_find_damage__saved_without_checksums(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert find_damage(path) == ""
    assert same(read_checkpoint(path), STATE)
    path.write_bytes(path.read_bytes()[:-100])
    assert find_damage(path) == "it is cut off, or damaged at its end"


def test_find_damage__file_of_an_old_pytorch(path):
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert find_damage(path) == ""
    assert same(read_checkpoint(path), STATE)
    assert same(read_data(path, only_data=True), STATE)


def test_read_data__what_an_old_pytorch_would_execute_is_refused(path, monkeypatch):
    script, tar = path.with_name("script.pt"), path.with_name("tar.pt")
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(script))
    with tarfile.open(tar, "w") as archive:
        archive.add(path, "storages")
    old = path.with_name("old.pt")
    torch.save(STATE, old, _use_new_zipfile_serialization=False)
    monkeypatch.setattr(checkpoint_files, "TORCH", (2, 5))
    for each in (script, tar):
        with pytest.raises(ValueError, match="is TorchScript or a tar archive, whose code"):
            read_data(each)
    for each in (path, old):
        assert same(read_data(each), STATE)


def test_find_damage__record_marked_as_a_folder(path):
    """PyTorch returns memory that it has not written to."""
    content = path.read_bytes()
    place = content.index(b"PK\x01\x02")  # the index has 46 bytes and the name for each record
    while b"data/0" not in content[place : place + 60]:
        place = content.index(b"PK\x01\x02", place + 4)
    flip(path, place + 38)
    assert find_damage(path) == "its record 'data/0' is not what was saved (CRC-32)"


def test_find_damage__compressed_again(path):
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    for method, intact in ((zipfile.ZIP_DEFLATED, True), (zipfile.ZIP_BZIP2, False)):
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in records.items():
                archive.writestr(name, content)
        assert (find_damage(path) == "") == intact


def test_find_damage__pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(OSError, match="is a device or pipe, not a file"):
        find_damage(tmp_path / "pipe.pt")


def test_find_damage__error_of_the_disk(path, monkeypatch):
    def read(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", read)
    assert find_damage(path) == "it cannot be read (Input/output error)"


def damage(content, rng):
    """Damage up to 64 bytes somewhere, or cut the end off."""
    if rng.random() < 0.25:
        return content[: rng.randrange(len(content))]
    damaged = bytearray(content)
    length = rng.choice((1, 1, 4, 64))
    # Half of them in the index, where the records' places are.
    start = rng.randrange(len(content) - 1500 if rng.random() < 0.5 else 0, len(content))
    for place in range(start, min(start + length, len(content))):
        damaged[place] = rng.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize("seed", range(3))
def test_read_checkpoint__damage_is_refused_or_harmless(path, seed):
    rng, content, refused = random.Random(seed), path.read_bytes(), 0
    for _ in range(VARIANTS):
        path.write_bytes(damage(content, rng))
        try:
            state, message = read_checkpoint(path), ""
        except ValueError as error:
            state, message = STATE, str(error)
            refused += 1
        assert same(state, STATE)
        assert message == "" or re.fullmatch(rf"{re.escape(str(path))}[^\n]+", message)
    assert VARIANTS / 2 < refused < VARIANTS
