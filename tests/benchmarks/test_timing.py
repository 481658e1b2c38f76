"""Measurements of two forms, goals, and the table."""

import pytest
import torch

from benchmarks import timing
from benchmarks.table import GOALS, Goal, format_table, goals_of
from benchmarks.timing import Case, Comparison, Count, Form, compare

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Forms:
    """Two forms that take given times on a fake clock."""

    def __init__(self, monkeypatch, plain, ours):
        self.calls, self.clock = [], 0.0
        self.plain, self.ours = self.make("plain", plain), self.make("ours", ours)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.clock)

    def make(self, name, seconds):
        seconds = iter(seconds)

        def call():
            self.calls.append(name)
            self.clock += next(seconds)
            return torch.tensor([4.0, -2.0 - len(self.calls)])

        return call


def test_compare__returns_medians_of_alternating_calls(monkeypatch):
    forms = Forms(monkeypatch, [9, 4, 6, 2], [9, 1, 3, 2])
    case = Case("what", forms.plain, forms.ours, clips=6, most_rounds=3, flops=8.0)
    got = compare("x", case, 9, CPU)
    assert forms.calls == ["plain", "ours"] * 4  # the first round does not count
    assert (got.plain, got.ours, got.unit, got.ratio) == (4000, 2000, "ms", 2)
    assert (got.difference, got.clips_a_second) == (1 / 4, 3)
    assert (got.name, got.what) == ("x", "what")
    assert (got.plain_mib, got.ours_mib, got.mfu) == (None, None, None)


def test_compare__returns_the_mean_of_a_burst(monkeypatch):
    forms = Forms(monkeypatch, [9, 5, 1, 6], [9, 1, 2, 3])
    got = compare("x", Case("what", forms.plain, forms.ours, burst=3), 1, CPU)
    assert forms.calls == ["plain", "ours", *["plain"] * 3, *["ours"] * 3]
    assert (got.plain, got.ours, got.ratio) == (4000, 2000, 2)


def test_compare__long_case_includes_the_first_call(monkeypatch):
    forms = Forms(monkeypatch, [4, 6], [1, 3])
    got = compare("x", Case("what", forms.plain, forms.ours, most_rounds=2), 2, CPU)
    assert forms.calls == ["plain", "ours"] * 2
    assert (got.plain, got.ours, got.ratio) == (5000, 2000, 3)
    assert got.difference == 1 / 4


def test_compare__does_not_time_set_up(monkeypatch):
    forms = Forms(monkeypatch, [4], [1])

    def make(form):
        def make_form():
            forms.clock += 100
            return form

        return Form(make_form)

    case = Case("what", make(forms.plain), make(forms.ours), same=False, most_rounds=2)
    got = compare("x", case, 1, CPU)
    assert (got.plain, got.ours, got.difference) == (4000, 1000, None)


def test_compare__synchronises_a_gpu_and_measures_its_memory(monkeypatch):
    log, memory = [], {"now": 3 * 2**20, "peak": 0}
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "init", lambda: None)
    monkeypatch.setattr(cuda, "synchronize", lambda device: log.append("wait"))
    monkeypatch.setattr(cuda, "memory_allocated", lambda device: memory["now"])
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda device: memory["peak"])
    monkeypatch.setattr(cuda, "reset_peak_memory_stats", lambda device: memory.update(peak=0))
    monkeypatch.setattr(cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    forms = Forms(monkeypatch, [1] * 6, [0.5] * 6)

    def make(form, mib):
        def make_form():
            memory["now"] += mib * 2**20

            def call():
                log.append("call")
                memory["peak"] = max(memory["peak"], memory["now"] + 2**20)
                return form()

            return call

        return Form(make_form)

    case = Case("what", make(forms.plain, 10), make(forms.ours, 5), most_rounds=1, flops=989e12 / 5)
    got = compare("x", case, 2, CUDA)
    assert (got.plain_mib, got.ours_mib) == (11, 6)
    assert got.mfu == pytest.approx(2 / 5)
    assert log == ["call"] * 2 * timing.WARM_UPS + ["wait", "call", "wait"] * 4


def test_compare__returns_counts():
    got = compare("x", Count("what", "MiB", 6, 4), 9, CPU)
    assert got == Comparison("x", "what", "MiB", 6, 4, 1.5, device="cpu")


def test_peak__of_each_device(monkeypatch):
    peaks = {
        "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12, "NVIDIA H100 PCIe": 756e12,
        "NVIDIA A100-SXM4-80GB": 312e12, "Another": None,
    }  # fmt: skip
    for name, peak in peaks.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert timing.peak_of(CUDA) == peak
    assert timing.peak_of(CPU) is None


@pytest.mark.parametrize(
    ("goal", "figure", "reached"),
    [
        (Goal("ratio", 2, 3), {"ratio": 2.0}, True),
        (Goal("ratio", 2, 3), {"ratio": 1.9}, False),
        (Goal("ours", 50, 15), {"ours": 50}, True),
        (Goal("ours", 50, 15), {"ours": 51}, False),
        (Goal("clips_a_second", 280, 355), {"clips_a_second": 281}, True),
        (Goal("ratio", 2, 3), {}, None),
    ],
)
def test_goal__lower_or_upper_limit(goal, figure, reached):
    assert goal.is_reached(Comparison("x", "what", **figure)) is reached


def test_goals__of_each_device():
    def figures(name, device):
        return [goal.figure for goal in goals_of(Comparison(name, "what", device=device))]

    assert figures("update_base", "cpu") == ["ratio"]
    assert figures("update_base", "NVIDIA H200") == []
    expected = ["clips_a_second", "ratio", "ours_mib"]
    for device in ("NVIDIA H100 80GB HBM3", "NVIDIA H200"):
        assert figures("train_base_48", device) == expected
    assert figures("train_base_48", "NVIDIA A100-SXM4-80GB") == []
    assert figures("train_base_48", "") == expected  # not measured
    assert figures("operations", "cpu") == figures("operations", "NVIDIA H100") == ["ours"]


def test_hide_gpus__restores_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with timing.hide_gpus():
        assert not torch.cuda.is_available()
    assert torch.cuda.is_available()


def test_table__leaves_out_empty_columns():
    rows = [
        Comparison("masks", "some masks", "ms", 8.0, 1.0, 8.0, clips_a_second=1000.0),
        Comparison("train_base_12", "an update"),
        Comparison("x", "memory", "MiB", 1024.4, 512.0, 2.0008),
    ]
    assert [line.split() for line in format_table(rows)] == [
        ["plain", "ours", "unit", "ratio", "at", "least", "aim", "clips/s", "what"],
        ["8.000", "1.000", "ms", "8.00", "6x", "8x", "1000", "masks:", "some", "masks"],
        [
            "not", "measured", "-", "ms", "-", "230/s,", "1x,", "9216", "MiB", "280/s,", "2x,",
            "9216", "MiB", "-", "train_base_12:", "an", "update",
        ],
        ["1024", "512", "MiB", "2.00", "-", "-", "-", "x:", "memory"],
    ]  # fmt: skip
    gpu = format_table([Comparison("x", "y", plain_mib=70.4, ours_mib=30.0, mfu=0.482)])
    assert gpu[0].split() == ["plain", "unit", "MFU", "plain", "MiB", "MiB", "what"]
    assert gpu[1].split() == ["not", "measured", "ms", "48%", "70", "30", "x:", "y"]


def test_goals__belong_to_existing_cases():
    from benchmarks.cases import ROWS

    assert set(GOALS) <= set(ROWS)
