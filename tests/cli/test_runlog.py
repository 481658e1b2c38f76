import json

import pytest

from eat_plugin.cli.runlog import parse_line, read_curves


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


def test_parse_line__plain_json():
    line = '{"loss": "1e-3", "num_updates": "7", "lr": "0.1"}\n'
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
        '[2026][train][INFO] - {"epoch": 1, "train_loss": "2", "train_num_updates": "9"}\n',
        '[2026][train_inner][INFO] - {"loss": "2", "num_updates": "9"',  # truncated
        "[2026][x][INFO] - {'loss': 1, \"num_updates\": 3}\n",
        '[2026][train_inner][INFO] - {"loss": null, "num_updates": "9"}\n',
        '[2026][train_inner][INFO] - {"lr": "2", "num_updates": "9"}\n',
    ],
)
def test_parse_line__ignores_other_lines(line):
    assert list(parse_line(line)) == []


def test_read_curves__without_a_record_names_the_options(tmp_path):
    with pytest.raises(ValueError, match=r"has a logged update.*common\.log_format=json"):
        read_curves(tmp_path)
    with pytest.raises(ValueError, match="is not a folder of a run"):
        read_curves(tmp_path / "none")
