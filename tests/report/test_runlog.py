import json
import logging

import pytest
from fairseq.logging import progress_bar

from eat_plugin.report.runlog import parse_line, read_curves


def log_line(update, tag="train_inner", **values):
    record = {"epoch": 1, "update": 0.5, "num_updates": str(update), **values}
    return f"[2026-01-01 00:00:00,000][{tag}][INFO] - {json.dumps(record)}\n"


@pytest.fixture
def run_dir(tmp_path):
    """A run that logged two updates."""
    (tmp_path / "hydra_train.log").write_text(
        log_line(10, target_var=0.25, loss_cls="1.5", loss="2.5")
        + log_line(20, target_var=0.5, loss_cls="1.0", loss="2.0")
    )
    return tmp_path


def test_read_curves__losses_first_then_variances(run_dir):
    curves = read_curves(run_dir)
    assert curves == {
        "loss": ([10, 20], [2.5, 2.0]),
        "loss_cls": ([10, 20], [1.5, 1.0]),
        "target_var": ([10, 20], [0.25, 0.5]),
    }
    assert list(curves) == ["loss", "loss_cls", "target_var"]


def test_read_curves__uses_the_last_value_of_an_update(run_dir):
    with (run_dir / "hydra_train.log").open("a") as log:
        log.write(log_line(20, loss="1.9") + log_line(30, loss="1.8"))
    assert read_curves(run_dir)["loss"] == ([10, 20, 30], [2.5, 1.9, 1.8])


def test_read_curves__a_run_that_started_again_from_an_earlier_update(run_dir):
    with (run_dir / "hydra_train.log").open("a") as log:
        log.write(log_line(30, target_var=0.5, loss="9") + log_line(40, loss="9"))
        log.write(log_line(25, target_var=0.4, loss="1.9") + log_line(35, loss="1.8"))
    curves = read_curves(run_dir)
    assert curves["loss"] == ([10, 20, 25, 35], [2.5, 2.0, 1.9, 1.8])
    assert curves["target_var"] == ([10, 20, 25], [0.25, 0.5, 0.4])


def test_read_curves__leaves_out_what_a_restart_has_emptied(run_dir):
    lines = [
        '{"loss": "4", "num_updates": "2"}',
        '{"eval_accuracy": "0.5", "eval_num_updates": "2"}',
    ]
    lines.append('{"loss": "5", "num_updates": "1"}')
    (run_dir / "z.log").write_text("\n".join(lines))
    curves = read_curves(run_dir)
    assert curves["loss"][0][0] == 1
    assert all(updates for updates, _ in curves.values())


def test_read_curves__a_restart_that_is_seen_by_its_validation_first(tmp_path):
    lines = [
        '{"loss": "4", "num_updates": "10"}',
        '{"eval_accuracy": "0.5", "eval_num_updates": "12"}',
        '{"eval_accuracy": "0.9", "eval_num_updates": "16"}',
        '{"loss": "3", "num_updates": "20"}',
        '{"eval_accuracy": "0.6", "eval_num_updates": "14"}',  # resumed from update 12
        '{"loss": "2", "num_updates": "20"}',
    ]
    (tmp_path / "hydra_train.log").write_text("\n".join(lines))
    curves = read_curves(tmp_path)
    assert curves["eval_accuracy"] == ([12, 14], [0.5, 0.6])
    assert curves["loss"] == ([10, 20], [4, 2])


@pytest.mark.parametrize("count", ["1e400", "inf", "nan"])
def test_read_curves__a_count_that_is_no_number_is_ignored(run_dir, count):
    with (run_dir / "hydra_train.log").open("a") as log:
        log.write(log_line(count, loss="9") + f"num_updates {'[' * 100_000}\n")
    assert read_curves(run_dir)["loss"][0] == [10, 20]


def test_read_curves__optimization_last_without_the_scale_among_losses(tmp_path):
    line = log_line(10, loss_scale="128", gnorm="3.5", lr="1e-4", loss="2.5", pred_var="1", ups="2")
    (tmp_path / "hydra_train.log").write_text(line)
    curves = read_curves(tmp_path)
    assert list(curves) == ["loss", "pred_var", "lr", "gnorm", "loss_scale"]
    assert curves["loss_scale"] == ([10], [128])


def test_read_curves__counts_an_update_in_two_files_once(run_dir):
    expected = read_curves(run_dir)
    log = (run_dir / "hydra_train.log").read_text()
    (run_dir / "console.txt").write_text(f"a warning\n{log}")
    assert read_curves(run_dir) == expected
    (run_dir / "hydra_train.log").unlink()
    assert read_curves(run_dir) == expected


STATS = {"loss": 2.5, "loss_cls": 0.125, "target_var": 0.5, "lr": 1e-4, "ups": 3.0}


@pytest.fixture
def log_as(tmp_path):
    """Log an epoch with fairseq's progress bar of a format: two updates, mean, validation."""
    handler = logging.FileHandler(tmp_path / "hydra_train.log")
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    logger, level = progress_bar.logger, progress_bar.logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def log(make_bar):
        bar = make_bar(range(2), epoch=1)
        for number, _ in enumerate(bar, start=1):
            stats = {**STATS, "loss": 2.5 - number, "num_updates": 10 * number}
            bar.log(stats, tag="train_inner", step=10 * number)
            if hasattr(bar, "tqdm"):
                bar.tqdm.refresh()
        bar.print({**STATS, "loss": 1.0, "num_updates": 20}, tag="train", step=20)
        bar = make_bar(range(2), epoch=1, prefix="valid on 'eval' subset")
        bar.print({"loss": 0.5, "accuracy": 0.75, "num_updates": 20}, tag="eval", step=20)

    yield log
    logger.removeHandler(handler)
    logger.setLevel(level)


def make_simple(*args, **kwargs):
    return progress_bar.SimpleProgressBar(*args, log_interval=10, **kwargs)


def make_json(*args, **kwargs):
    return progress_bar.JsonProgressBar(*args, log_interval=10, **kwargs)


SINGLE_UPDATES = {
    "loss": ([10, 20], [1.5, 0.5]),
    "loss_cls": ([10, 20], [0.125, 0.125]),
    "eval_loss": ([20], [0.5]),
    "eval_accuracy": ([20], [0.75]),
    "target_var": ([10, 20], [0.5, 0.5]),
    "lr": ([10, 20], [1e-4, 1e-4]),
}


@pytest.mark.parametrize("make_bar", [make_json, make_simple])
def test_read_curves__reads_each_format(log_as, tmp_path, make_bar):
    log_as(make_bar)
    curves = read_curves(tmp_path)
    assert curves == SINGLE_UPDATES
    assert list(curves) == list(SINGLE_UPDATES)


def test_read_curves__tqdm_logs_means_and_shows_updates_on_the_console(log_as, tmp_path, capsys):
    log_as(progress_bar.TqdmProgressBar)
    assert read_curves(tmp_path) == {
        **SINGLE_UPDATES, "loss": ([20], [1.0]), "loss_cls": ([20], [0.125]),
        "target_var": ([20], [0.5]), "lr": ([20], [1e-4]),
    }  # fmt: skip
    (tmp_path / "console.txt").write_bytes(capsys.readouterr().err.encode())
    assert read_curves(tmp_path) == SINGLE_UPDATES


def test_parse_line__plain_json():
    line = '{"loss": "1e-3", "num_updates": "7", "wall": "0.1"}\n'
    assert list(parse_line(line)) == [("loss", 7, 0.001)]


def test_read_curves__shows_accuracy_rather_than_map(tmp_path):
    record = {"eval_loss": "0.5", "eval_mAP": "0.25", "eval_accuracy": "0.75", "eval_wps": "3"}
    line = json.dumps({**record, "eval_num_updates": "20"})
    (tmp_path / "x.log").write_text(log_line(10, loss="2.5") + f"[x][eval][INFO] - {line}\n")
    assert read_curves(tmp_path) == {
        "loss": ([10], [2.5]), "eval_loss": ([20], [0.5]), "eval_accuracy": ([20], [0.75]),
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "[2026][fairseq_cli.train][INFO] - num. model params: 3\n",
        "[2026][fairseq_cli.train][INFO] - Stopping as num_updates: 9 >= max_update: 9\n",
        '[2026][train_inner][INFO] - {"loss": "2", "num_updates": "9"',  # truncated
        "[2026][x][INFO] - {'loss': 1, \"num_updates\": 3}\n",
        '[2026][train_inner][INFO] - {"loss": null, "num_updates": "9"}\n',
        '[2026][train_inner][INFO] - {"wall": "2", "num_updates": "9"}\n',
        "[2026][train_inner][INFO] - epoch 001:  1 / 2 loss=x, num_updates=\n",
    ],
)
def test_parse_line__ignores_other_lines(line):
    assert list(parse_line(line)) == []


def test_read_curves__without_a_record_names_the_options(tmp_path):
    (tmp_path / "hydra_train.log").write_text("[2026][x][INFO] - begin training epoch 1\n")
    with pytest.raises(ValueError, match=r"no logged update.*common\.log_format=json"):
        read_curves(tmp_path)
    with pytest.raises(ValueError, match="is not a folder of a run"):
        read_curves(tmp_path / "none")
