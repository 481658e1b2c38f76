"""`eat bench`: both forms give the same, and the times are those of the calls."""

import json

import pytest
import torch

from eat_plugin.bench import plain, timing
from eat_plugin.bench.front_end import CASES
from eat_plugin.cli import main
from eat_plugin.masking import MaskSpec, draw_masks


@pytest.fixture
def one_thread():
    """As in `eat bench`: with several, PyTorch parts a long sum, and soft bins show it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CASES)
def test_case__both_forms_agree(name, tmp_path, one_thread):
    case = CASES[name](tmp_path)
    first, second = case.plain(), case.ours()
    assert first.shape == second.shape
    if case.same:
        assert first.std() > 0
        torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


def test_plain_masks__hide_as_many_as_ours():
    spec = MaskSpec((16, 8), 0.7, 0.05, 3)
    hidden = plain.draw_masks(spec.grid, 50, spec.mask_prob, spec.mask_prob_adjust, 3).sum(dim=1)
    assert hidden.tolist() == draw_masks(spec, 50).sum(dim=1).tolist()


def test_compare__takes_medians_of_calls_in_turn(monkeypatch):
    calls, clock = [], [0.0]
    seconds = {"plain": iter([9, 4, 6, 2]), "ours": iter([9, 1, 3, 2])}

    def form(name):
        def call():
            calls.append(name)
            clock[0] += next(seconds[name])
            return torch.tensor([1.0, 2.0 + len(calls)])

        return call

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    case = timing.Case("what", form("plain"), form("ours"), clips=6, most_rounds=3)
    got = timing.compare("x", case, rounds=9)
    assert calls == ["plain", "ours"] * 4  # the first round does not count
    assert (got.plain_ms, got.ours_ms, got.ratio) == (4000, 2000, 2)
    assert (got.difference, got.clips_a_second) == (1, 3)
    assert (got.name, got.what) == ("x", "what")


def test_bench__table_and_json(capsys):
    assert main(["bench", "masks", "log_mel", "--rounds", "1"]) == 0
    machine, _, heading, masks, log_mel = capsys.readouterr().out.splitlines()
    assert machine.startswith("processor ")
    assert heading.split() == ["plain", "ms", "ours", "ms", "ratio", "difference"]
    assert masks.split()[3:5] == ["random", "16"]
    assert float(log_mel.split()[3]) < 1e-5
    assert main(["bench", "masks", "--rounds", "2", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["machine"]["torch"] == torch.__version__
    (result,) = got["results"]
    assert result["name"] == "masks"
    assert result["difference"] is None
    assert result["ratio"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no case 'nothing'; choose from resample,"),
        (["masks", "--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["masks", "--threads", "0"], "--threads must be at least 1"),
    ],
)
def test_bench__mistakes_in_one_line(capsys, arguments, message):
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"eat bench: error: {message}")


def test_bench__leaves_the_number_of_threads(capsys):
    before = torch.get_num_threads()
    main(["bench", "masks", "--rounds", "1", "--threads", str(before + 1)])
    assert torch.get_num_threads() == before
