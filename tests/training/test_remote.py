"""Training on clips in a store: the same bits as from local files; a store that is away."""

import pytest

from benchmarks.range_server import serving
from eat_plugin import cli
from eat_plugin.tasks import dataset
from tests.stores import clear_cache, restart
from tests.training.in_process import load, train
from tests.training.test_stopping import before_call, updates_of

pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp: pip install '.[remote]'")

OPTIONS = ["optimization.max_update=6", "checkpoint.save_interval_updates=0"]


@pytest.fixture
def server(clips, monkeypatch):
    """The clips behind a server, their manifest in ``data``; no cache is kept."""
    monkeypatch.setenv("EAT_REMOTE_CACHE", str(clips / "cache"))
    monkeypatch.setenv("EAT_REMOTE_RETRIES", "0")
    with serving(clips / "audio") as server:
        assert cli.main(["manifest", server.url, "--out", "data", "--workers", "1"]) == 0
        monkeypatch.setenv("EAT_REMOTE_CACHE_GB", "0")
        forget(clips)
        yield server
    forget(clips)


def forget(clips):
    """Empty the cache, and start as in a new process."""
    clear_cache(clips)
    restart()


def check_weights(clips, name, assert_same):
    one, two = load(clips / "straight"), load(clips / name)
    for part in ("model", "last_optimizer_state"):
        assert_same(one[part], two[part])


def test_training__ends_in_order_without_the_store_and_resumes(clips, server, assert_same):
    train("pretrain", clips, *OPTIONS, f"checkpoint.save_dir={clips / 'straight'}")
    folder, options = clips / "stopped", [*OPTIONS, f"checkpoint.save_dir={clips / 'stopped'}"]
    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, "train_step", 2, lambda: setattr(server, "always", 500))
        with pytest.raises(RuntimeError, match="its store failed 1 times"):
            train("pretrain", clips / "data", *options)
    assert 2 <= updates_of(load(folder)) < 6
    server.always = None
    server.requests.clear()
    train("pretrain", clips / "data", *options, "dataset.num_workers=2")
    assert len({path for _, path, asked in server.requests if asked}) == 12
    check_weights(clips, "stopped", assert_same)


def test_training__waits_for_the_store(clips, server, assert_same, monkeypatch):
    monkeypatch.setattr(dataset, "BETWEEN_ATTEMPTS", 0.01)
    train("pretrain", clips, *OPTIONS, f"checkpoint.save_dir={clips / 'straight'}")
    options = [*OPTIONS, "task.wait_for_data=5", f"checkpoint.save_dir={clips / 'waited'}"]
    slept = []

    def come_back(seconds):
        slept.append(seconds)
        server.always = None

    before_call(monkeypatch, "train_step", 2, lambda: setattr(server, "always", 500))
    monkeypatch.setattr(dataset.time, "sleep", come_back)
    train("pretrain", clips / "data", *options)
    assert slept
    check_weights(clips, "waited", assert_same)
