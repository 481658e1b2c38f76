"""Reading is measured, and compared with the speed of the model."""

import itertools

import pytest
import torch

from eat_plugin.doctor.loader import Speed, check_reading, measure_reading


class Clips:
    def __init__(self):
        self.read, self.threads = [], set()

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        self.read.append(index)
        self.threads.add(torch.get_num_threads())


def test_measure_reading__counts_clips_in_one_thread():
    torch.set_num_threads(2)
    clips, ticks = Clips(), itertools.count()
    # The clock ticks once before each clip, at the beginning and at the end.
    speed = measure_reading(clips, 20, clock=lambda: 0.5 * next(ticks))
    assert torch.get_num_threads() == 2
    assert clips.threads == {1}
    assert len(clips.read) == 1 + speed.measured
    assert speed.measured == 39
    assert speed.clips == pytest.approx(39 / 20.5)
    assert max(clips.read) > 900  # from the whole data set
    assert len(set(clips.read)) > 35
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("needed", "workers", "processes", "level", "fix"),
    [
        (39, 4, 1, "ok", ""),
        (41, 4, 1, "warning", "dataset.num_workers=5"),
        (41, 2, 2, "warning", "dataset.num_workers=3"),
        (81, 100, 1, "warning", "eat cache, or task.fbank.device=model; 9 cores would do"),
        (9, 0, 1, "ok", ""),
    ],
)
def test_check_reading(needed, workers, processes, level, fix):
    found = check_reading(Speed(10.0, 20), needed, workers, processes, cores=8)
    assert (found.level, found.fix) == (level, fix)
    assert f"the model takes about {needed}" in found.seen
