"""Windows of recordings: positions, valid columns, results in one array."""

import numpy as np
import pytest

from eat_plugin.inference.windows import ClipLayout, Window, Windowing

RATE = 16_000


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
def test_from_seconds__refuses_an_invalid_length(value):
    with pytest.raises(ValueError, match="the window is .* it must be more than 0"):
        Windowing.from_seconds(value, None, 16, 128)
    with pytest.raises(ValueError, match="the hop is .* it must be more than 0"):
        Windowing.from_seconds(None, value, 16, 128)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.01, [(0, 0, 1)]),  # the first column is always valid
        (0.32, [(0, 0, 2)]),
        (0.30, [(0, 0, 2)]),  # the centre of the second column, 0.24 s, lies within
        (0.24, [(0, 0, 1)]),  # here it is at the very end: not valid
        (0.40, [(0, 0, 2)]),  # a rest of 0.08 s: half a column
        (0.4001, [(0, 0, 2), (32, 0, 1)]),
        (0.96, [(0, 0, 2), (32, 0, 2), (64, 0, 2)]),
    ],
)
def test_plan__adjacent_windows(seconds, expected):
    plan = Windowing(frames=32, hop=32, patch=16).plan(round(seconds * RATE), RATE)
    assert [tuple(window) for window in plan] == expected


def test_plan__no_window_for_a_rest_without_a_frame():
    plan = Windowing(frames=8, hop=8, patch=2).plan(round(0.11 * RATE), RATE)
    assert len(plan) == 1
    assert len(Windowing(frames=8, hop=8, patch=2).plan(round(0.1101 * RATE), RATE)) == 2


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("patch", [1, 2, 4, 8, 16])
def test_plan__each_valid_column_has_a_frame(patch, rate):
    windowing = Windowing(frames=48, hop=48, patch=patch)
    for num_samples in range(rate // 10, rate, rate // 773):
        window = windowing.plan(num_samples, rate)[-1]
        left = num_samples - window.start * rate // 100
        num_frames = 1 + (left * 16_000 // rate - 400) // 160
        assert 1 <= window.last <= -(-num_frames // patch), num_samples


def test_plan__overlapping_windows_meet_in_the_middle():
    windowing = Windowing(frames=64, hop=32, patch=16)  # 4 columns, 2 of them shared
    plan = windowing.plan(round(1.28 * RATE), RATE)
    assert [tuple(window) for window in plan] == [(0, 0, 3), (32, 1, 3), (64, 1, 4)]
    np.testing.assert_allclose(windowing.times(plan), (np.arange(8) + 0.5) * 0.16)


@pytest.mark.parametrize("hop", [16, 48, 64, 112])
@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_plan__each_moment_is_valid_once(hop, rate):
    windowing = Windowing(frames=112, hop=hop, patch=16)
    times = windowing.times(windowing.plan(rate * 10, rate))
    np.testing.assert_allclose(times, (np.arange(62) + 0.5) * 0.16)


def test_plan__a_hop_longer_than_the_window_leaves_gaps():
    windowing = Windowing(frames=32, hop=64, patch=16)
    plan = windowing.plan(round(1.28 * RATE), RATE)
    assert [tuple(window) for window in plan] == [(0, 0, 2), (64, 0, 2)]
    np.testing.assert_allclose(windowing.times(plan), [0.08, 0.24, 0.72, 0.88])


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
def test_clip_layout__stacks_windows(stacked):
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


def test_clip_layout__pads_a_last_window_with_fewer_tokens():
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
        assert np.isnan(last[..., 4, :]).all()
