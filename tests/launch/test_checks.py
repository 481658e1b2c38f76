"""What a task would log at start is collected, not shown."""

import logging

from eat_plugin.launch.checks import collecting_warnings, working_in


def test_collecting_warnings__of_the_plugin_alone(caplog):
    own, other = logging.getLogger("eat_plugin.tasks.some"), logging.getLogger("fairseq.trainer")
    with collecting_warnings() as messages:
        own.warning("%d clips", 3)
        own.info("no warning")
        other.warning("not ours")
    assert messages == ["3 clips"]
    assert not caplog.records
    own.warning("later")
    assert messages == ["3 clips"]
    assert [record.getMessage() for record in caplog.records] == ["later"]


def test_working_in__a_folder_that_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with working_in(tmp_path / "run"):
        assert (tmp_path / "run").samefile(".")
    with working_in(tmp_path / "nowhere"):
        assert tmp_path.samefile(".")
    assert tmp_path.samefile(".")
