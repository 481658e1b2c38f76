"""Simulated updates against cases that can be computed by hand."""

import pytest

from benchmarks.scaling import Format, Machine, parse_format, simulate, sizes

FAST = Machine(gpus=8, batch=12, rate=120.0, exposed=0.0, load=1e-4, workers=2)  # 0.1 s an update


def test_simulate__a_fast_loader_leaves_the_gpu_its_rate():
    assert simulate(FAST) == pytest.approx(120)


def test_simulate__the_all_reduce_adds_what_is_not_hidden():
    assert simulate(FAST._replace(exposed=0.02)) == pytest.approx(100)


def test_simulate__slow_workers_limit_the_rate():
    slow = FAST._replace(gpus=1, load=0.05)  # two workers: 40 clips/s
    assert simulate(slow) == pytest.approx(40, rel=0.03)
    assert simulate(slow._replace(workers=4)) == pytest.approx(80, rel=0.03)
    assert simulate(slow._replace(workers=8)) == pytest.approx(120, rel=0.01)


def test_simulate__late_batches_hold_up_all_gpus():
    late = FAST._replace(gpus=1, workers=1, stall=(0.01, 2.0))
    # One worker is two batches ahead: each 100th update waits 1.8 s of 2 s.
    assert simulate(late, 20000) == pytest.approx(1200 / (10 + 1.8), rel=0.1)
    many = late._replace(gpus=16)
    assert simulate(many) < 0.5 * simulate(late)


def test_sizes__hours_and_bytes_of_sets():
    rows = list(sizes([parse_format("wav=1.5,640")], [100.0]))
    assert parse_format("wav=1.5,640") == Format("wav", 1.5, 640.0)
    # 2,000,000 clips x 10 epochs / 100 clips/s; 360,000,000 clips of 640 kB.
    assert rows[1] == ("AS-2M", "56", "1.3")
    assert rows[2] == ("1 million hours", "10,000", "230.4")
    assert rows[3] == ("*a GPU reads, 100 clips/s*", "", "64.0 MB/s")
