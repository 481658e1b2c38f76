"""A run begins: its checkpoints keep its record, which continues when the run is resumed."""

import pytest

from eat_plugin.cli import main
from eat_plugin.heap import SMALL
from eat_plugin.reproduction import find_revision, fingerprint_splits
from tests.training.in_process import load, train


def record_of(folder):
    return load(folder)["task_state"]["record"]


def test_record__adds_up_over_resumed_runs(labelled, capsys, monkeypatch):
    def run(*options):
        train("pretrain", labelled, f"checkpoint.save_dir={labelled / 'run'}", *options)
        return record_of(labelled / "run")

    first = run("optimization.max_update=2", "common.seed=5")
    (one,) = first["parts"]
    assert (first["seed"], one["clips"], one["processes"], one["device"]) == (5, 8, 1, "CPU")
    assert one["git"] == find_revision()
    assert one["data"] == fingerprint_splits(labelled, ["train"])
    assert 0 < one["hours"] < 0.1
    (two,) = run("optimization.max_update=4", "common.seed=5")["parts"]
    assert (two["clips"], two["from_update"]) == (16, 0)  # an epoch of 12, and a batch of 4
    assert two["hours"] > one["hours"]
    (labelled / "train.lbl").write_text("other labels")  # other surroundings: another part
    last = run("optimization.max_update=5", "common.seed=5")["parts"]
    assert [part["clips"] for part in last] == [16, 4]
    assert [part["from_update"] for part in last] == [0, 4]
    # A run that takes weights alone starts its own record.
    again = run("optimization.max_update=2", "checkpoint.reset_optimizer=true",
                "checkpoint.reset_meters=true", "checkpoint.reset_dataloader=true",
                "checkpoint.reset_lr_scheduler=true")  # fmt: skip
    assert [part["clips"] for part in again["parts"]] == [8]
    capsys.readouterr()
    assert main(["config", "--checkpoint", str(labelled / "run" / "checkpoint_last.pt")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("seed 1, 8 clips seen, ")
    assert "\ntask.target_length=64\n" in shown
    assert "clips_sha256" in shown


@pytest.mark.parametrize(
    ("recompute", "keeps"), [("none", True), ("gelu", True), ("blocks", False)]
)
def test_begin__training_on_a_cpu_keeps_freed_memory(labelled, monkeypatch, recompute, keeps):
    calls = []
    monkeypatch.setattr("eat_plugin.tasks.saving.keep_freed_memory", lambda *how: calls.append(how))
    run = f"checkpoint.save_dir={labelled / 'run'}"
    train("pretrain", labelled, run, f"model.recompute={recompute}")
    assert calls == [(keeps, SMALL)]


def test_config__of_a_checkpoint_without_record(make_checkpoint, capsys, tmp_path):
    assert main(["config", "--checkpoint", str(make_checkpoint("pretraining"))]) == 0
    assert capsys.readouterr().out.startswith("no record: of an older version\n")
    (tmp_path / "no.pt").write_text("no checkpoint")
    assert main(["config", "--checkpoint", str(tmp_path / "no.pt")]) == 2
    assert "is not a readable checkpoint" in capsys.readouterr().err
