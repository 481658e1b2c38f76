"""Windows of clips: their positions in evaluation, and reading one."""

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data import reader
from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import locate
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.reader import read_window, spread_windows

RATE = 16_000
FRONT_END = FrontEnd(target_length=32, mean=-4.0, std=4.5)
LONG = FrontEnd(target_length=100, mean=-4.0, std=4.5)


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
    assert spread_windows(samples, RATE, LONG, most) == expected
    doubled = spread_windows(2 * samples, 2 * RATE, LONG, most)
    assert doubled == spread_windows(samples, RATE, LONG, most)


@pytest.fixture
def recording(tmp_path):
    """Three seconds of noise at 22,050 Hz, and its file."""
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * 22_050).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", samples, 22_050, "FLOAT")
    return samples, tmp_path / "noise.wav"


def test_read_window__reads_its_part_only(recording, monkeypatch):
    samples, path = recording
    asked = []
    read_opened = reader.read_opened
    monkeypatch.setattr(
        reader, "read_opened", lambda *args: asked.append(args[1:3]) or read_opened(*args)
    )
    start = round(0.5 * 22_050)
    expected = FRONT_END(torch.from_numpy(samples[start:]), 22_050)
    assert torch.equal(read_window(path, FRONT_END, start=50), expected)
    assert asked == [(start, FRONT_END.needed_samples(22_050))]
    assert asked[0][1] < 0.36 * 22_050  # a window and the end of its last frame


def test_read_window__less_than_a_frame_is_refused(tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(3), RATE)
    for samples in (3, 399):
        soundfile.write(path, np.zeros(samples), RATE)
        with pytest.raises(ClipError, match="^is shorter than one frame .25 ms.$"):
            read_window(path, FRONT_END)
    soundfile.write(path, np.zeros(400), RATE)
    assert read_window(path, FRONT_END).shape == (1, 32, 128)


def test_read_window__length_unlike_the_manifest_is_refused(recording):
    with pytest.raises(ClipError, match="has 66150 samples, but 66151 were expected"):
        read_window(locate(recording[1])._replace(size=66_151), FRONT_END)
