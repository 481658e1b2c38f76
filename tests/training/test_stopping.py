"""A run that is asked to end saves first; the same command then gives the result of one run."""

import os
import signal
import time

import pytest
import torch

from eat_plugin.choices import PREEMPTED_STATUS
from eat_plugin.models import eat
from eat_plugin.tasks import dataset
from eat_plugin.tasks.base import AudioTask
from eat_plugin.tasks.stopping import FAILED, INTERRUPTED, PREEMPTED, Stopping
from tests.training.in_process import load, train
from tests.training.test_processes import start_two

UPDATES = "optimization.max_update=60"
NEVER = ["checkpoint.save_interval_updates=0", "checkpoint.save_interval=1000"]


def wait_for_update(trainer, name, number, process):
    """Wait until a run has reported an update."""
    log = trainer.folder / name / "hydra_train.log"
    while not log.exists() or f'"num_updates": "{number}"' not in log.read_text():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def updates_of(checkpoint):
    return checkpoint["optimizer_history"][-1]["num_updates"]


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGUSR1, 0)])
def test_signal__saves_and_resumes_bit_for_bit(trainer, assert_same, number, workers):
    options = [UPDATES, f"dataset.num_workers={workers}", *NEVER]
    process = trainer.start(*options, name="stopped")
    wait_for_update(trainer, "stopped", 3, process)
    process.send_signal(number)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == PREEMPTED_STATUS, output
    assert f"{number.name}: the run ends after this update" in output
    assert "Traceback" not in output
    assert 3 <= updates_of(trainer.checkpoint("stopped")) < 60
    trainer.succeed(*options, name="stopped")
    trainer.succeed(*options, name="straight")
    one, two = trainer.checkpoint("straight"), trainer.checkpoint("stopped")
    assert updates_of(one) == updates_of(two) == 60
    for part in ("model", "last_optimizer_state"):
        assert_same(one[part], two[part])


def test_signal__to_one_of_two_processes_ends_both(trainer):
    processes = start_two(trainer, UPDATES, *NEVER, name="two")
    wait_for_update(trainer, "two", 3, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [PREEMPTED_STATUS] * 2, outputs
    assert 3 <= updates_of(trainer.checkpoint("two")) < 60


def before_call(monkeypatch, name, number, action):
    """Do something before the n-th call of a function of the task."""
    original, calls = getattr(AudioTask, name), []

    def called(*arguments, **options):
        calls.append(None)
        if len(calls) == number:
            action()
        return original(*arguments, **options)

    monkeypatch.setattr(AudioTask, name, called)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def finetune(folder, *options):
    """Fine-tune for two epochs of three updates with a validation after each."""
    saved = [f"checkpoint.save_dir={folder}", "checkpoint.save_interval=1"]
    more = ["dataset.validate_interval=1", "checkpoint.keep_best_checkpoints=2"]
    train("finetune", folder.parent, "optimization.max_update=6", *saved, *more, *options)


def test_signal__in_a_validation_repeats_it(labelled, monkeypatch, assert_same):
    finetune(labelled / "straight")
    with monkeypatch.context() as patch:
        before_call(patch, "valid_step", 1, terminate)
        with pytest.raises(SystemExit) as ended:
            finetune(labelled / "stopped")
    assert ended.value.code == PREEMPTED_STATUS
    state = load(labelled / "stopped")
    assert updates_of(state) == 3
    assert state["task_state"]["validation_due"] == {"epoch": 1, "ends_epoch": 1.0}
    assert "checkpoint_best.pt" not in os.listdir(labelled / "stopped")
    finetune(labelled / "stopped")
    one, two = (load(labelled / name) for name in ("straight", "stopped"))
    records = [state["task_state"].pop("record") for state in (one, two)]
    assert [[part["clips"] for part in record["parts"]] for record in records] == [[24], [24]]
    for part in ("model", "last_optimizer_state", "task_state"):
        assert_same(one[part], two[part])
    assert one["extra_state"]["best"] == two["extra_state"]["best"]
    files = [sorted(os.listdir(labelled / name)) for name in ("straight", "stopped")]
    assert files[0] == files[1]


def test_signal__in_the_last_validation_lets_the_run_finish(labelled, monkeypatch):
    before_call(monkeypatch, "valid_step", 3, terminate)
    finetune(labelled / "run")
    assert updates_of(load(labelled / "run")) == 6


def test_signal__handlers_are_given_back(labelled):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    finetune(labelled / "run")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_unreadable_data__saves_and_resumes(clips, assert_same):
    options = ["optimization.max_update=6", "checkpoint.save_interval_updates=0"]
    train("pretrain", clips, *options, f"checkpoint.save_dir={clips / 'straight'}")
    folder, audio = clips / "stopped", clips / "audio"
    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, "train_step", 2, lambda: audio.rename(clips / "away"))
        with pytest.raises(RuntimeError, match=r"clips in a row cannot be used"):
            train("pretrain", clips, *options, f"checkpoint.save_dir={folder}")
    assert 2 <= updates_of(load(folder)) < 6
    (clips / "away").rename(audio)
    train("pretrain", clips, *options, f"checkpoint.save_dir={folder}")
    one, two = load(clips / "straight"), load(folder)
    for part in ("model", "last_optimizer_state"):
        assert_same(one[part], two[part])


def test_unreadable_data__is_waited_for(clips, assert_same, monkeypatch):
    monkeypatch.setattr(dataset, "BETWEEN_ATTEMPTS", 0.01)
    monkeypatch.setattr(dataset, "MOST_ATTEMPTS", 5)
    options = ["optimization.max_update=6", "task.wait_for_data=5"]
    train("pretrain", clips, *options, f"checkpoint.save_dir={clips / 'straight'}")
    audio, away = clips / "audio", clips / "away"
    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, "train_step", 2, lambda: audio.rename(away))
        patch.setattr(dataset.time, "sleep", lambda _: away.rename(audio))
        train("pretrain", clips, *options, f"checkpoint.save_dir={clips / 'waited'}")
    one, two = load(clips / "straight"), load(clips / "waited")
    for part in ("model", "last_optimizer_state"):
        assert_same(one[part], two[part])


def test_collapse__saves(clips, monkeypatch):
    monkeypatch.setattr(eat, "UPDATES_BEFORE_VARIANCE_CHECK", 1)
    monkeypatch.setattr(eat, "UPDATES_BETWEEN_VARIANCE_CHECKS", 1)
    options = ["optimization.max_update=6", "model.min_target_var=10"]
    with pytest.raises(RuntimeError, match=r"target_var fell below .* the model has collapsed"):
        train("pretrain", clips, *options, f"checkpoint.save_dir={clips / 'run'}")
    assert updates_of(load(clips / "run")) == 3


def test_stopping__second_ctrl_c_ends_at_once():
    stopping = Stopping()
    stopping.begin(torch.device("cpu"))
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.agree() == INTERRUPTED
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.agree() == PREEMPTED
        stopping.fail("no data")
        assert stopping.agree() == FAILED
        with pytest.raises(RuntimeError, match="no data"):
            stopping.end(FAILED)
    finally:
        stopping.release()
    with pytest.raises(RuntimeError, match="no data"):  # nobody obeys
        stopping.fail("no data")
