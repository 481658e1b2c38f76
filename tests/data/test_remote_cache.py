"""The cache of parts of remote files: complete or absent, bounded, safe between processes."""

import errno
import multiprocessing
import os
import time

import pytest

from eat_plugin.data import remote_cache
from eat_plugin.data.remote_cache import Cache, find_cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of 1000 bytes, which removes parts when it is told to."""
    monkeypatch.setattr(remote_cache, "SCANS", 0)
    return Cache(tmp_path / "cache", most=1000)


def add(cache, key, size, age=0.0):
    os.close(cache.add(key, lambda: iter([bytes(size // 2), bytes(size - size // 2)])))
    os.utime(cache._path(key), (time.time() - age,) * 2)


def holds(cache, key, size):
    descriptor = cache.open(key, size)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None


def files_of(cache):
    return sorted(path for path in cache.folder.rglob("*") if path.is_file())


def test_cache__keeps_a_part(cache):
    descriptor = cache.add("a key", lambda: iter([b"first ", b"second"]))
    assert os.read(descriptor, 100) == b"first second"
    os.close(descriptor)
    descriptor = cache.open("a key", 12)
    assert os.read(descriptor, 100) == b"first second"
    os.close(descriptor)
    assert cache.open("another key", 12) is None
    assert cache.open("a key", 13) is None  # cut off by a crash of the machine


def test_cache__a_failed_part_leaves_nothing(cache):
    def blocks():
        yield b"first"
        raise KeyError

    with pytest.raises(KeyError):
        cache.add("key", blocks)
    assert files_of(cache) == []


def test_cache__removes_what_was_used_longest_ago(cache):
    for number in range(9):
        add(cache, f"{number}", 100, age=10_000 - 1000 * number)
    add(cache, "large", 200)
    assert holds(cache, "0", 100)  # used now
    cache.remove_oldest()
    kept = [number for number in range(9) if holds(cache, f"{number}", 100)]
    assert kept == [0, 3, 4, 5, 6, 7, 8]
    assert holds(cache, "large", 200)


def test_cache__stays_below_its_limit_while_it_is_written(tmp_path):
    cache = Cache(tmp_path / "cache", most=100_000)
    held = []
    for number in range(200):
        add(cache, f"{number}", 4000)
        if number % 10 == 0:
            held.append(sum(path.stat().st_size for path in files_of(cache)))
    assert 80_000 < max(held) < 120_000


def test_cache__removes_drafts_of_killed_processes(cache):
    add(cache, "key", 10)
    for name, age in (("old.tmp", 7200), ("new.tmp", 60)):
        path = files_of(cache)[0].with_name(name)
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    cache.remove_oldest()
    assert [path.name for path in files_of(cache) if path.suffix == ".tmp"] == ["new.tmp"]


def test_cache__makes_room_on_a_full_disk(cache, monkeypatch):
    for number in range(8):
        add(cache, f"{number}", 100, age=1000 - number)
    write, failures = os.write, [errno.ENOSPC]

    def fail_once(descriptor, data):
        if failures:
            raise OSError(failures.pop(), "full")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", fail_once)
    add(cache, "new", 100)
    assert holds(cache, "new", 100)
    assert [number for number in range(8) if holds(cache, f"{number}", 100)] == [4, 5, 6, 7]


def fill(folder, worker):
    cache = Cache(folder, most=3000)
    for number in range(200):
        key = f"{(number * 7 + worker) % 50}"
        descriptor = cache.open(key, 100)
        if descriptor is None:
            descriptor = cache.add(key, lambda key=key: iter([key.ljust(100).encode()]))
        assert os.pread(descriptor, 100, 0) == key.ljust(100).encode()
        os.close(descriptor)


def test_cache__serves_several_processes(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill, args=(tmp_path / "cache", one)) for one in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4


def test_find_cache__reads_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EAT_REMOTE_CACHE", str(tmp_path / "new" / "folder"))
    monkeypatch.setenv("EAT_REMOTE_CACHE_GB", "1.5")
    cache = find_cache()
    assert (cache.folder, cache.limit()) == (tmp_path / "new" / "folder", 1_500_000_000)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("EAT_REMOTE_CACHE_GB", "-1")
    with pytest.raises(ValueError, match="EAT_REMOTE_CACHE_GB is '-1', expected a number"):
        find_cache()
    monkeypatch.delenv("EAT_REMOTE_CACHE_GB")
    space = os.statvfs(tmp_path)
    half = space.f_bavail * space.f_frsize // 2
    assert find_cache().limit() == pytest.approx(min(50e9, half), rel=0.1)


def test_cache__of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_cache.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(OSError, match="belongs to another user; set EAT_REMOTE_CACHE"):
        Cache(tmp_path)
