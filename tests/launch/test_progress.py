"""Lines of fairseq's log become progress."""

import io

import pytest

from eat_plugin.launch.progress import Progress, describe_duration, describe_update
from eat_plugin.records import Record, parse_record

UPDATE = (
    '[2026-01-01 00:00:00,000][train_inner][INFO] - {"epoch": 1, "update": 0.5, "loss": "2.5", '
    '"lr": "0.002", "ups": "4", "bsz": "12", "num_updates": "%d", "wall": "9"}\n'
)
EVAL = (
    '[2026-01-01 00:00:00,000][eval][INFO] - {"epoch": 1, "eval_loss": "1.5", "eval_accuracy": '
    '"0.75", "eval_num_updates": "20"}\n'
)
EPOCH = '[2026-01-01 00:00:00,000][train][INFO] - {"train_loss": "1", "train_num_updates": "9"}\n'
WARNING = "[2026-01-01 00:00:00,000][eat_plugin.tasks.base][WARNING] - clip 'a.wav' is damaged\n"


class Terminal(io.StringIO):
    def __init__(self, live):
        super().__init__()
        self.live = live

    def isatty(self):
        return self.live


def follow(tmp_path, *lines, live=False):
    log = tmp_path / "console.txt"
    log.write_text("of an earlier run\n" + UPDATE % 5)
    terminal = Terminal(live)
    with Progress(log, terminal, 400) as progress, log.open("a") as file:
        file.writelines(lines)
        file.flush()
    return progress, terminal.getvalue()


def test_progress__last_update_and_validations(tmp_path):
    progress, shown = follow(tmp_path, UPDATE % 10, EVAL, EPOCH, UPDATE % 20, "no record\n")
    assert progress.update == 20
    assert "eval at update 20: accuracy 0.75, loss 1.5\n" in shown
    assert "  update 20 of 400  loss 2.5  lr 0.002  48 clips/s  2 min left\n" in shown
    assert "train_loss" not in shown
    assert shown.count("update 20 of 400") == 1
    assert "update 5 " not in shown


def test_progress__a_validation_says_on_how_many_clips_it_is(tmp_path):
    record = EVAL.replace('"eval_num', '"eval_skipped_clips": "2", "eval_clips": "9", "eval_num')
    _, shown = follow(tmp_path, record)
    assert "accuracy 0.75, loss 1.5 on 9 of 11 clips\n" in shown


def test_progress__run_shorter_than_the_interval_of_the_log(tmp_path):
    record = '{"train_loss": "1.23456", "train_lr": "0.1", "train_num_updates": "400"}'
    progress, shown = follow(tmp_path, f"[x][train][INFO] - {record}\n")
    assert progress.update == 400
    assert shown == "  update 400 of 400  loss 1.235\n"


def test_progress__one_line_in_place_on_a_terminal(tmp_path):
    _, shown = follow(tmp_path, UPDATE % 10, UPDATE % 20, live=True)
    assert shown.count("\n") == 1
    assert shown.endswith("2 min left\n")


def test_progress__resumed_run(tmp_path):
    loaded = "[x][fairseq.trainer][INFO] - Loaded checkpoint /r/c.pt (epoch 9 @ 400 updates)\n"
    progress, shown = follow(tmp_path, loaded)
    assert (progress.started_at, progress.update) == (400, 400)
    assert "resuming at update 400" in shown


@pytest.mark.parametrize(
    "line", [WARNING, "2026 | WARNING | eat_plugin.tasks.base | clip 'a.wav' is damaged\n"]
)
def test_progress__shows_the_first_warnings(tmp_path, line):
    _, shown = follow(tmp_path, *[line] * 9, WARNING.replace("eat_plugin.tasks", "fairseq"))
    assert shown.count("warning: clip 'a.wav' is damaged\n") == 5


def test_describe_update__without_speed():
    record = Record("", 3, {"loss": 1, "ups": 0, "bsz": 12})
    assert describe_update(record, 10) == "update 3 of 10  loss 1"


@pytest.mark.parametrize(
    "line",
    [
        "num_updates {", '{"num_updates": ', "[1] {1}", "{}", '{"a": "num_updates"}',
        '{"num_updates": null}', "num_updates=many",
    ],
)  # fmt: skip
def test_parse_record__other_lines(line, tmp_path):
    assert parse_record(line) is None
    assert follow(tmp_path, f"{line}\n")[1] == ""


@pytest.mark.parametrize(
    "line",
    [
        "epoch 001:  20 / 60 loss=2.5, lr=0.002, ups=4, bsz=12, num_updates=20, wall=9",
        "epoch 001 | loss 2.5 | lr 0.002 | ups 4 | bsz 12 | num_updates 20 | wall 9",
    ],
)
def test_progress__other_formats_of_the_log(tmp_path, line):
    _, shown = follow(tmp_path, f"{line}\n")
    assert shown == "  update 20 of 400  loss 2.5  lr 0.002  48 clips/s  2 min left\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.4, "5 s"), (90, "2 min"), (7260, "2 h 1 min"), (270_000, "3 d 3 h")],
)
def test_describe_duration(seconds, text):
    assert describe_duration(seconds) == text
