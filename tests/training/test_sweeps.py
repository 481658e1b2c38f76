"""Several runs in one process are independent; what fairseq keeps in globals survives a restart."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from fairseq import checkpoint_utils
from fairseq.logging import progress_bar

from eat_plugin.tasks.best_checkpoints import BestCheckpoints
from eat_plugin.tasks.classification import EatClassificationTask
from tests.training.conftest import SMALL
from tests.training.in_process import load, train
from tests.versions import recent_hydra, saves_with_task

EACH_UPDATE = [
    "dataset.validate_interval_updates=1", "checkpoint.save_interval_updates=1",
    "checkpoint.keep_interval_updates=1", "checkpoint.best_checkpoint_metric=mAP",
]  # fmt: skip


def test_sweep__each_job_equals_the_same_run_alone(trainer, assert_same):
    options = ["common.tensorboard_logdir=tb", "optimization.max_update=4"]
    output = trainer.succeed(
        "model.clone_batch=2,4", f"hydra.sweep.dir={trainer.folder / 'sweep'}", *options,
        config=("pretrain", "-m", "size=tiny", *SMALL),
    )  # fmt: skip
    assert "Traceback" not in output
    for number, clones in enumerate((2, 4)):
        trainer.succeed(f"model.clone_batch={clones}", *options, name=f"alone_{clones}")
        job = trainer.folder / "sweep" / str(number)
        assert os.listdir(job / "tb" / "train_inner")
        alone, swept = trainer.checkpoint(f"alone_{clones}"), load(job / "checkpoints")
        assert_same(alone["model"], swept["model"])
        assert_same(alone["last_optimizer_state"], swept["last_optimizer_state"])


def test_runs_in_one_process__globals_and_logs_are_its_own(labelled, assert_same, caplog):
    caplog.set_level(logging.INFO, "fairseq_cli.train")
    for name, rate in (("other", 0.01), ("second", 1e-4)):
        train(
            "finetune", labelled, f"optimization.lr=[{rate}]", f"checkpoint.save_dir={name}",
            f"common.log_file={name}.log", f"common.tensorboard_logdir={labelled}/{name}_tb",
            "checkpoint.patience=5",
        )  # fmt: skip
        checkpoint_utils.save_checkpoint.best = 2.0  # as if that run had been better
    train("finetune", labelled, "optimization.lr=[1e-4]", "checkpoint.save_dir=alone")
    second, alone = load("second"), load("alone")
    assert_same(second["model"], alone["model"])
    assert second["extra_state"]["best"] == alone["extra_state"]["best"] <= 1
    assert second["task_state"]["early_stop"]["num_runs"] == 0
    for name in ("other", "second"):
        assert Path(f"{name}.log").read_text().count("done training") == 1
        assert os.listdir(f"{name}_tb/train")


def test_patience__counts_on_after_a_restart(labelled):
    options = [
        *EACH_UPDATE, "checkpoint.patience=4", "optimization.lr=[1e-12]", "lr_scheduler.min_lr=0",
        "dataset.batch_size=12",
    ]  # fmt: skip
    train("finetune", labelled, *options, "optimization.max_update=20", "checkpoint.save_dir=one")
    for updates in (3, 20):
        train(
            "finetune", labelled, *options, f"optimization.max_update={updates}",
            "checkpoint.save_dir=two",
        )  # fmt: skip
    (one, two) = (load(name)["optimizer_history"][-1]["num_updates"] for name in ("one", "two"))
    assert one == two == 5


@saves_with_task
@pytest.mark.parametrize("larger_is_better", ["true", "false"])
def test_keep_best_checkpoints__keeps_the_best(labelled, monkeypatch, larger_is_better):
    values = []
    monkeypatch.setattr(
        BestCheckpoints, "validated", lambda self, stats, original=BestCheckpoints.validated: (
            values.append(float(stats["mAP"])), original(self, stats)
        ),
    )  # fmt: skip
    train(
        "finetune", labelled, *EACH_UPDATE, "checkpoint.keep_best_checkpoints=3",
        "optimization.max_update=6", "optimization.lr=[0.05]", "checkpoint.save_dir=run",
        f"checkpoint.maximize_best_checkpoint_metric={larger_is_better}",
    )  # fmt: skip
    kept = [name for name in os.listdir("run") if name.startswith("checkpoint.best_mAP_")]
    found = sorted(load("run", name)["extra_state"]["val_loss"] for name in kept)
    # A file's name has the value: of two equal ones the newer stays.
    distinct = {round(value, 3) for value in values}
    best = sorted(distinct, reverse=larger_is_better == "true")[:3]
    assert len(values) == 6
    assert len(best) == 3
    assert found == pytest.approx(sorted(best), abs=1e-3)


def test_best__a_value_that_is_not_a_number_is_none(labelled, monkeypatch, caplog):
    validations = []

    def measure(self, scores, name, meters):
        if not any(scores is one for one in validations):
            validations.append(scores)
        return (float("nan"), 0.5, 0.25)[len(validations) - 1]

    monkeypatch.setattr(EatClassificationTask, "_metric", measure)
    train(
        "finetune", labelled, *EACH_UPDATE, "optimization.max_update=3", "checkpoint.save_dir=run"
    )
    assert load("run", "checkpoint_best.pt")["extra_state"]["val_loss"] == 0.5
    assert load("run")["extra_state"]["best"] == 0.5
    assert "mAP is not a number: no best checkpoint" in caplog.text


@recent_hydra
def test_report_metric__is_the_best_value_of_the_job(labelled):
    from hydra.core.utils import JobReturn, JobStatus

    from eat_plugin.launch.sweep import ReportMetric

    train("finetune", labelled, *EACH_UPDATE, "optimization.max_update=3", "checkpoint.save_dir=a")
    job = JobReturn()
    job.status, job.return_value = JobStatus.COMPLETED, None
    ReportMetric().on_job_end(None, job)
    assert job.return_value == load("a")["extra_state"]["best"] > 0


@pytest.mark.parametrize(
    ("name", "more"), [("pretrain", []), ("finetune", ["~lr_scheduler.min_lr"])]
)
def test_other_optimizer_and_schedule__need_no_change_of_the_yaml(labelled, name, more):
    cfg = train(
        name, labelled, "optimizer._name=adam", "lr_scheduler._name=polynomial_decay", *more
    )
    assert (cfg.optimizer._name, list(cfg.optimizer.adam_betas)) == ("adam", [0.9, 0.95])
    assert load("checkpoints")["optimizer_history"][-1]["optimizer_name"] == "FairseqAdam"


def test_runs_in_one_process__each_has_its_own_run_of_wandb(labelled, monkeypatch):
    finished = []
    run = SimpleNamespace(run=object(), finish=lambda: finished.append("one"))
    monkeypatch.setattr(progress_bar, "wandb", run)
    train("finetune", labelled)
    assert finished == ["one"]
