"""Pooling of tokens and frames to one vector per clip, by hand."""

import numpy as np
import pytest

from eat_plugin.inference.pooling import POOLINGS, FramePool, PatchPool, segment_weights
from eat_plugin.inference.windows import Window


@pytest.mark.parametrize(
    ("steps", "segments", "expected"),
    [
        (4, 2, [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
        (3, 2, [[0.5, 0.5, 0], [0, 0.5, 0.5]]),
        (1, 3, [[1], [1], [1]]),
        (2, 4, [[1, 0], [1, 0], [0, 1], [0, 1]]),
    ],
)
def test_segment_weights__cover_all_steps(steps, segments, expected):
    assert segment_weights(steps, segments).tolist() == expected


def test_patches__by_hand():
    # One layer, two mel bands, width 1; the last column of the second window is padding.
    pool = PatchPool([Window(0, 0, 2), Window(32, 0, 1)])
    pool.add(Window(0, 0, 2), np.array([[2.0]]), np.array([[[[0.0], [1]], [[2], [3]]]]))
    pool.add(Window(32, 0, 1), np.array([[4.0]]), np.array([[[[10.0], [5]], [[99], [99]]]]))
    found = pool.finish()
    assert list(found) == list(POOLINGS)
    assert found["mean"] == pytest.approx(np.array([[21 / 6]]))
    assert found["cls"].tolist() == [[3.0]]
    assert found["mean+max"] == pytest.approx(np.array([[21 / 6, 10.0]]))
    assert found["frames"] == pytest.approx(np.array([[12 / 3, 9 / 3]]))
    # 8 segments of the columns 0.5, 2.5 and 7.5; the third and the sixth lie in two.
    expected = [0.5, 0.5, 1.5, 2.5, 2.5, 5.0, 7.5, 7.5]
    assert found["time"] == pytest.approx(np.array([expected]))


def test_patches__of_several_layers_and_widths_keep_their_order():
    grid = np.random.default_rng(0).normal(size=(3, 16, 4, 5)).astype(np.float32)
    pool = PatchPool([Window(0, 0, 16)])
    pool.add(Window(0, 0, 16), None, grid)
    found = pool.finish()
    assert "cls" not in found
    assert found["mean"] == pytest.approx(grid.mean(axis=(1, 2)), abs=1e-6)
    assert found["frames"] == pytest.approx(grid.mean(axis=1).reshape(3, 20), abs=1e-6)
    by_segment = grid.reshape(3, 8, 2, 4, 5).mean(axis=(2, 3))
    assert found["time"] == pytest.approx(by_segment.reshape(3, 40), abs=1e-6)
    most = grid.max(axis=(1, 2))
    assert found["mean+max"][:, 5:] == pytest.approx(most)


def test_patches__a_window_without_valid_columns_adds_none():
    pool = PatchPool([Window(0, 0, 1), Window(16, 0, 0)])
    pool.add(Window(0, 0, 1), None, np.full((1, 2, 1, 1), 3.0))
    pool.add(Window(16, 0, 0), None, np.full((1, 2, 1, 1), 9.0))
    assert pool.finish()["mean+max"].tolist() == [[3.0, 3.0]]


def test_frames__by_hand():
    pool = FramePool(3)
    pool.add(np.array([[0.0, 1], [2, 1]], dtype=np.float32))
    pool.add(np.array([[5.0, 1]], dtype=np.float32))  # the change from 2 to 5 counts too
    found = pool.finish()
    mean, deviation = 7 / 3, np.std([0, 2, 5])
    assert found["mean, deviation"] == pytest.approx(np.array([[mean, 1, deviation, 0]]), abs=1e-6)
    statistics = found["mean, deviation, maximum, change"]
    assert statistics == pytest.approx(np.array([[mean, 1, deviation, 0, 5, 1, 2.5, 0]]), abs=1e-6)
    assert found["8 segments of time"].shape == (1, 16)
    first = found["16 segments of time"].reshape(16, 2)[:, 0]
    assert first[[0, 5, 8, 15]] == pytest.approx([0, 1, 2, 5])


def test_frames__a_single_one_has_no_change():
    pool = FramePool(1)
    pool.add(np.array([[4.0]], dtype=np.float32))
    assert pool.finish()["mean, deviation, maximum, change"].tolist() == [[4, 0, 4, 0]]
