"""Windows of recordings: where they lie, what counts, how they are read and put together."""

import threading

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data.clip import ClipError
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.inference import windows
from eat_plugin.inference.windows import (
    ClipLayout,
    Job,
    Window,
    Windowing,
    column_times,
    read_batches,
    read_window,
    spread_windows,
)

RATE = 16_000
FRONT_END = FrontEnd(target_length=32, mean=-4.0, std=4.5)


@pytest.mark.parametrize(
    ("window", "hop", "expected"),
    [
        (None, None, (112, 112)),  # 100 frames, rounded up to whole columns
        (0.32, None, (32, 32)),
        (0.33, None, (48, 48)),
        (0.001, None, (16, 16)),
        (0.64, 0.1, (64, 10)),
        (0.64, 0.001, (64, 1)),
        (2.24, 1.0, (224, 100)),  # 2.24 * 100 is 224.00000000000003
    ],
)
def test_from_seconds__whole_columns(window, hop, expected):
    chosen = Windowing.from_seconds(window, hop, patch=16, default=100)
    assert (chosen.frames, chosen.hop) == expected


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_from_seconds__what_is_no_length(value):
    with pytest.raises(ValueError, match="the window is .* it must be more than 0"):
        Windowing.from_seconds(value, None, 16, 128)
    with pytest.raises(ValueError, match="the hop is .* it must be more than 0"):
        Windowing.from_seconds(None, value, 16, 128)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.01, [(0, 0, 1)]),  # the first column counts, however short the clip
        (0.32, [(0, 0, 2)]),
        (0.30, [(0, 0, 2)]),  # the centre of the second column, 0.24 s, lies within
        (0.24, [(0, 0, 1)]),  # and here at the very end, no more
        (0.40, [(0, 0, 2)]),  # 0.08 s are left: half a column
        (0.4001, [(0, 0, 2), (32, 0, 1)]),
        (0.96, [(0, 0, 2), (32, 0, 2), (64, 0, 2)]),
    ],
)
def test_plan__one_window_after_the_other(seconds, expected):
    plan = Windowing(frames=32, hop=32, patch=16).plan(round(seconds * RATE), RATE)
    assert [tuple(window) for window in plan] == expected


def test_plan__a_rest_without_a_frame_makes_no_window():
    plan = Windowing(frames=8, hop=8, patch=2).plan(round(0.11 * RATE), RATE)
    assert len(plan) == 1
    assert len(Windowing(frames=8, hop=8, patch=2).plan(round(0.1101 * RATE), RATE)) == 2


def test_plan__overlapping_windows_meet_in_the_middle():
    windowing = Windowing(frames=64, hop=32, patch=16)  # 4 columns, 2 of them shared
    plan = windowing.plan(round(1.28 * RATE), RATE)
    assert [tuple(window) for window in plan] == [(0, 0, 3), (32, 1, 3), (64, 1, 4)]
    np.testing.assert_allclose(column_times(windowing, plan), (np.arange(8) + 0.5) * 0.16)


@pytest.mark.parametrize("hop", [16, 48, 64, 112])
@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_plan__each_moment_counts_once(hop, rate):
    windowing = Windowing(frames=112, hop=hop, patch=16)
    times = column_times(windowing, windowing.plan(rate * 10, rate))
    np.testing.assert_allclose(times, (np.arange(62) + 0.5) * 0.16)


def test_plan__a_hop_longer_than_the_window_leaves_gaps():
    windowing = Windowing(frames=32, hop=64, patch=16)
    plan = windowing.plan(round(1.28 * RATE), RATE)
    assert [tuple(window) for window in plan] == [(0, 0, 2), (64, 0, 2)]
    np.testing.assert_allclose(column_times(windowing, plan), [0.08, 0.24, 0.72, 0.88])


PLAN = [Window(0, 0, 2), Window(32, 1, 2)]


@pytest.mark.parametrize("stacked", [False, True])
def test_clip_layout__joins_columns_along_time(stacked):
    layout = ClipLayout(PLAN, along_time=True, stacked=stacked)
    results = [np.arange(4.0).reshape(2, 2) + 10 * number for number in range(2)]  # [columns, D]
    expected = np.array([[0, 1], [2, 3], [12, 13]])
    if stacked:
        results = [np.stack([result, -result]) for result in results]
        expected = np.stack([expected, -expected])
    array = np.full(layout.shape(results[0].shape), np.nan)
    for number, result in enumerate(results):
        layout.put(array, number, result)
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("stacked", [False, True])
def test_clip_layout__rows_of_windows(stacked):
    results = [np.arange(6.0).reshape(2, 3) + 10 * number for number in range(2)]
    layout = ClipLayout(PLAN, along_time=False, stacked=stacked)
    array = np.full(layout.shape((2, 3)), np.nan)
    for number, result in enumerate(results):
        layout.put(array, number, result)
    np.testing.assert_array_equal(array, np.stack(results, axis=int(stacked)))

    single = ClipLayout(PLAN[:1], along_time=False, stacked=stacked)
    array = np.full(single.shape((2, 3)), np.nan)
    single.put(array, 0, results[0])
    np.testing.assert_array_equal(array, results[0])


@pytest.mark.parametrize(
    ("samples", "most", "expected"),
    [
        (16_000, 3, [0]),  # 98 frames
        (16_239, 3, [0]),
        (48_000, 3, [0, 99, 198]),  # of 298 frames
        (48_000, 1, [99]),
        (48_000, 2, [0, 198]),
        (16_560, 3, [0, 1, 2]),  # of 102 frames
        (16_400, 3, [0, 1]),  # of 101 frames
    ],
)
def test_spread_windows__from_start_to_end(samples, most, expected):
    assert spread_windows(samples, RATE, 100, most) == expected
    doubled = spread_windows(2 * samples, 2 * RATE, 100, most)
    assert doubled == spread_windows(samples, RATE, 100, most)


def test_layout__a_last_window_with_fewer_tokens_is_filled_up():
    for stacked in (False, True):
        layout = ClipLayout(PLAN[:2], along_time=False, stacked=stacked)
        whole, short = np.ones((2, 5, 3)), np.ones((2, 4, 3))
        if not stacked:
            whole, short = whole[0], short[0]
        array = np.full(layout.shape(whole.shape), np.nan)
        layout.put(array, 0, whole)
        layout.put(array, 1, short)
        last = array[:, 1] if stacked else array[1]
        assert last[..., :4, :].all()
        assert not last[..., 4, :].any()


@pytest.fixture
def recording(tmp_path):
    """Three seconds of noise at 22,050 Hz, and its file."""
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * 22_050).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", samples, 22_050, "FLOAT")
    return samples, tmp_path / "noise.wav"


def test_read_window__is_the_front_end_on_that_part(recording, monkeypatch):
    samples, path = recording
    asked = []
    read_opened = windows.read_opened
    monkeypatch.setattr(
        windows, "read_opened", lambda *args: asked.append(args[2:]) or read_opened(*args)
    )
    start = round(0.5 * 22_050)
    expected = FRONT_END(torch.from_numpy(samples[start:]), 22_050)
    assert torch.equal(read_window(path, FRONT_END, start=50), expected)
    assert asked == [(start, FRONT_END.needed_samples(22_050))]
    assert asked[0][1] < 0.36 * 22_050  # of the three seconds: a window and its last frame's end


def test_read_window__less_than_a_frame(tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(3), RATE)
    with pytest.raises(ClipError, match="has 3 samples at 16000 Hz; one frame takes 25 ms"):
        read_window(path, FRONT_END)
    soundfile.write(path, np.zeros(399), RATE)
    with pytest.raises(ClipError, match="has 399 samples"):
        read_window(path, FRONT_END)
    soundfile.write(path, np.zeros(400), RATE)
    assert read_window(path, FRONT_END).shape == (1, 32, 128)


def test_read_window__another_length_than_the_manifest_has(recording):
    with pytest.raises(ClipError, match="has 66150 samples, but 66151 were expected"):
        read_window(recording[1], FRONT_END, expected_samples=66_151)


def test_read_batches__in_order_with_what_is_wrong(recording, tmp_path):
    jobs = [Job(0, number, recording[1], 10 * number) for number in range(5)]
    jobs.insert(2, Job(1, 0, tmp_path / "missing.wav"))
    batches = list(read_batches(iter(jobs), FRONT_END, 4))
    assert [[job for job, _ in batch] for batch in batches] == [jobs[:4], jobs[4:]]
    results = [found for batch in batches for _, found in batch]
    assert isinstance(results.pop(2), ClipError)
    for number, found in enumerate(results):
        assert torch.equal(found, read_window(recording[1], FRONT_END, 10 * number))


def test_read_batches__reads_one_batch_ahead(recording):
    taken, threads = [], threading.active_count()
    jobs = (taken.append(number) or Job(0, number, recording[1]) for number in range(100))
    batches = read_batches(jobs, FRONT_END, 3)
    next(batches)
    assert len(taken) == 6
    next(batches)
    assert len(taken) == 9
    assert threading.active_count() > threads
    batches.close()
    assert len(taken) == 9
    assert threading.active_count() == threads
