"""`eat bench`: both forms give the same result; the output holds the figures."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import cases, command, plain, timing
from benchmarks.cases import ROWS
from benchmarks.front_end import CASES
from eat_plugin.cli import bench, main
from eat_plugin.masking import MaskSpec, draw_masks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def one_thread():
    """One thread, as in `eat bench`: several threads split long sums, which changes quiet bins."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_case__both_forms_agree(name, tmp_path, one_thread):
    case = CASES[name](timing.Place(tmp_path, torch.device("cpu")))
    first, second = case.plain(), case.ours()
    assert first.shape == second.shape
    if case.same:
        assert first.std() > 0
        torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


def test_plain_masks__hide_as_many_patches_as_ours():
    spec = MaskSpec((16, 8), 0.7, 0.05, 3)
    hidden = plain.draw_masks(spec.grid, 50, spec.mask_prob, spec.mask_prob_adjust, 3).sum(dim=1)
    assert hidden.tolist() == draw_masks(spec, 50).sum(dim=1).tolist()


def test_bench__table_and_json(capsys):
    assert main(["bench", "masks", "log_mel", "--rounds", "1"]) == 0
    machine, _, heading, masks, log_mel = capsys.readouterr().out.splitlines()
    assert machine.startswith("processor ")
    assert "threads 1 (models: " in machine
    columns = ["plain", "ours", "unit", "ratio", "at", "least", "aim", "clips/s", "difference"]
    assert heading.split() == [*columns, "what"]
    assert masks.split()[4:6] == ["6x", "8x"]
    assert masks.split()[7:9] == ["-", "masks:"]
    assert 0 < float(log_mel.split()[7]) < 1e-5
    assert main(["bench", "masks", "--rounds", "2", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["machine"]["torch"] == torch.__version__
    (result,) = got["results"]
    assert (result["name"], result["unit"], result["difference"]) == ("masks", "ms", None)
    assert result["plain"] > 0
    assert result["plain_mib"] is result["mfu"] is None
    (goal,) = result["goals"]
    assert goal["at_least"] == 6
    assert goal["reached"] == (result["ratio"] >= 6)


def test_bench__lists_cases_that_need_a_gpu(capsys, monkeypatch):
    rows = {name: ROWS[name] for name in ("masks", "train_base_12")}
    for module in (command, cases):
        monkeypatch.setattr(module, "ROWS", rows)
    assert main(["bench", "--rounds", "1"]) == 0
    *_, masks, train = capsys.readouterr().out.splitlines()
    assert "not measured" in train
    assert "not measured" not in masks
    assert train.endswith("train_base_12: train base: 12 x 16 clones of 10 s, bfloat16")
    assert main(["bench", "--rounds", "1", "--json"]) == 0
    train = json.loads(capsys.readouterr().out)["results"][1]
    assert train["name"] == "train_base_12"
    assert {train[name] for name in ("plain", "ours", "ratio", "clips_a_second", "mfu")} == {None}
    assert [goal["reached"] for goal in train["goals"]] == [None] * 3


@pytest.fixture
def threads(monkeypatch):
    """Number of threads per case."""
    seen = {}

    def look(name):
        def prepare(place):
            seen[name] = torch.get_num_threads()
            return timing.Count(name, "things", 2, 1)

        return prepare

    rows = {
        "worker": cases.Row(look("worker"), has_model=False), "model": cases.Row(look("model")),
    }  # fmt: skip
    monkeypatch.setattr(command, "ROWS", rows)
    monkeypatch.setattr(command, "MODEL_THREADS", 3)
    return seen


def test_bench__models_take_all_cores(threads, capsys):
    before = torch.get_num_threads()
    assert main(["bench"]) == 0
    assert threads == {"worker": 1, "model": 3}
    assert main(["bench", "--threads", "2"]) == 0
    assert threads == {"worker": 2, "model": 2}
    assert torch.get_num_threads() == before


def test_bench__restores_log_levels_and_threads(capsys):
    logger, threads = logging.getLogger("eat_plugin.tasks"), torch.get_num_threads()
    before = logger.level
    assert main(["bench", "masks", "--rounds", "1", "--threads", str(threads + 1)]) == 0
    assert (logger.level, torch.get_num_threads()) == (before, threads)


def test_bench__options_reach_the_case(capsys, monkeypatch):
    places = []

    def prepare(place):
        places.append(place)
        return timing.Count("it", "things", 2, 1)

    monkeypatch.setattr(command, "ROWS", {"it": cases.Row(prepare)})
    assert main(["bench", "--compile"]) == 0
    (place,) = places
    assert place.options == {"compile": True}
    assert (place.device.type, place.dtype) == ("cpu", torch.float32)
    on_gpu = timing.Place(place.folder, torch.device("cuda"))
    assert (on_gpu.precision, on_gpu.options) == ("bfloat16", {})


def test_bench__help_names_the_cases_of_each_device(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    text = capsys.readouterr().out.replace(",", " ").split("cases on the CPU:")[1]
    on_cpu, on_gpu = (part.split() for part in text.split("cases on a GPU (--device cuda):"))
    assert "log_mel" in on_cpu
    assert "train_base_12" not in on_cpu
    assert "train_base_12" in on_gpu
    assert "log_mel" not in on_gpu
    assert {*on_cpu, *on_gpu} == set(ROWS)


def test_bench__failed_case_does_not_stop_the_others(capsys, monkeypatch):
    def fail(place):
        raise torch.cuda.OutOfMemoryError("no memory left\nmore")

    monkeypatch.setitem(ROWS, "read_wav", cases.Row(fail, what="read"))
    names = ["read_wav", "masks"]
    assert main(["bench", *names, "--rounds", "1", "--json"]) == 1
    failed, measured = json.loads(capsys.readouterr().out)["results"]
    assert (failed["problem"], failed["ratio"]) == ("failed: no memory left", None)
    assert (measured["problem"], measured["rounds"], measured["device"]) == (None, 1, "cpu")
    assert main(["bench", *names, "--rounds", "1"]) == 1
    *_, failed, measured = capsys.readouterr().out.splitlines()
    assert failed.split()[0] == "failed"
    assert failed.endswith("read_wav: failed: no memory left")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda"], "--device is cuda, but PyTorch finds no GPU; choose cpu"),
        (["masks", "--device", "cuda"], "the case 'masks' runs on cpu only"),
        (["train_base_12"], "the case 'train_base_12' runs on cuda only"),
        (["nothing"], "there is no case 'nothing'; choose from resample,"),
        (["masks", "--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["masks", "--threads", "0"], "--threads must be at least 1"),
        (["--cuda-graph"], "--cuda-graph is for train_base_12, train_base_48,"),
        (["update_base", "--cuda-graph"], "--cuda-graph is for train_base_12, train_base_48,"),
    ],
)
def test_bench__errors_are_one_line(capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"eat bench: error: {message}")


def test_bench__missing_checkout_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    for arguments in ([], ["masks", "--device", "cuda"], ["--help"]):
        assert main(["bench", *arguments]) == 2
        error = capsys.readouterr().err
        assert error == "eat bench: error: benchmarks need a checkout of the repository\n"


def test_module__equals_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.startswith("eat bench: error: there is no case 'nothing'")
