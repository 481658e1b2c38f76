"""The choice between ways to compute the same."""

import time

import pytest
import torch

from eat_plugin.modules import fastest
from eat_plugin.modules.fastest import find_fastest

CPU = torch.device("cpu")


def ways(**seconds):
    """Functions that take these seconds, and their numbers of calls."""
    calls = dict.fromkeys(seconds, 0)

    def make(name):
        def run():
            calls[name] += 1
            time.sleep(seconds[name])

        return run

    return {name: make(name) for name in seconds}, calls


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"first": 0.1, "second": 0.01}, "second"),
        ({"first": 0.01, "second": 0.1}, "first"),
        ({"first": 0.1, "second": 0.07}, "first"),  # too little to tell on a busy machine
    ],
)
def test_find_fastest__keeps_the_first_unless_another_is_clearly_faster(seconds, expected):
    functions, _ = ways(**seconds)
    assert find_fastest(functions, CPU)[0] == expected


def test_find_fastest__gives_a_hopeless_way_up(monkeypatch):
    monkeypatch.setattr(fastest, "SECONDS", 60)
    functions, calls = ways(first=0.2, second=0.0, third=0.0)
    _, least = find_fastest(functions, CPU)
    assert calls["first"] == 2 < calls["second"]
    assert least["second"] < least["first"]


def test_find_fastest__leaves_out_a_way_that_fails():
    functions, _ = ways(first=0.0)

    def fail():
        raise RuntimeError("no compiler")

    chosen, least = find_fastest({**functions, "second": fail}, CPU)
    assert chosen == "first"
    assert list(least) == ["first"]
    with pytest.raises(RuntimeError, match="no compiler"):
        find_fastest({"broken": fail, **functions}, CPU)


def test_find_fastest__a_way_that_fails_later_keeps_its_times():
    left = [None, None]

    def run_out_of_memory():
        left.pop()  # at the third call IndexError

    _, least = find_fastest({"first": run_out_of_memory}, CPU)
    assert 0 < least["first"] < 1
    assert left == []
