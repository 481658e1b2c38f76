"""Batches of windows: listed, read ahead, computed, joined per recording."""

import threading

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import locate
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.reader import read_window
from eat_plugin.inference.batches import (
    Job,
    compute_batches,
    group_results,
    list_jobs,
    read_ahead,
)
from eat_plugin.inference.windows import Window

FRONT_END = FrontEnd(target_length=32, mean=-4.0, std=4.5)


@pytest.fixture
def entry(tmp_path):
    """Three seconds of noise."""
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * 22_050)
    soundfile.write(tmp_path / "noise.wav", samples, 22_050, "FLOAT")
    return locate(tmp_path / "noise.wav")


def read(job):
    return read_window(job.entry, FRONT_END, job.start)


def test_list_jobs__marks_the_last_window_of_a_recording():
    entries, windows = [locate("a.wav"), locate("b.wav")], [Window(0, 0, 2), Window(32, 0, 2)]
    assert list(list_jobs(zip(entries, (windows, windows[:1])))) == [
        Job(0, 0, entries[0], 0, False), Job(0, 1, entries[0], 32, True), Job(1, 0, entries[1]),
    ]  # fmt: skip


def test_compute_batches__a_failed_recording_has_no_further_windows(entry):
    read_jobs = []

    def read_or_fail(job):
        read_jobs.append(job[:2])
        if job.clip == 1 and job.number > 0:
            raise ClipError("is damaged")
        return read(job)

    plan = [Window(10 * number, 0, 2) for number in range(8)]
    jobs = list_jobs([(entry, plan[:2]), (entry, plan), (entry, plan[:1])])
    results = list(compute_batches(jobs, read_or_fail, lambda x: x.mean((1, 2, 3)), 2))
    assert [job[:2] for job, _ in results] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert (1, 7) not in read_jobs
    groups = dict(group_results(results))
    assert (len(groups[0]), len(groups[2])) == (2, 1)
    assert str(groups[1]) == "is damaged"


def test_read_ahead__in_order_with_errors(entry, tmp_path):
    jobs = [Job(0, number, entry, 10 * number) for number in range(5)]
    jobs.insert(2, Job(1, 0, locate(tmp_path / "missing.wav")))
    batches = list(read_ahead(iter(jobs), read, 4))
    assert [[job for job, _ in batch] for batch in batches] == [jobs[:4], jobs[4:]]
    results = [found for batch in batches for _, found in batch]
    assert isinstance(results.pop(2), ClipError)
    for number, found in enumerate(results):
        assert torch.equal(found, read(Job(0, number, entry, 10 * number)))


def test_read_ahead__reads_one_batch_ahead(entry):
    taken, threads = [], threading.active_count()
    jobs = (taken.append(number) or Job(0, number, entry) for number in range(100))
    batches = read_ahead(jobs, read, 3)
    next(batches)
    assert len(taken) == 6
    next(batches)
    assert len(taken) == 9
    assert threading.active_count() > threads
    batches.close()
    assert len(taken) == 9
    assert threading.active_count() == threads
