"""Problems of clips that can be decoded."""

import contextlib
import math

import numpy as np
import pytest
import soundfile

from eat_plugin.data.clip import ClipError
from eat_plugin.prepare import quality
from eat_plugin.prepare.processes import try_in_processes
from eat_plugin.prepare.quality import (
    examine,
    find_copies,
    name_problems,
    to_decibels,
)

RATE = 8000
TIME = np.arange(RATE) / RATE
SINE = 0.5 * np.sin(2 * np.pi * 200 * TIME)  # one second


@pytest.fixture
def write(tmp_path):
    def write(name, samples, rate=RATE, **options):
        if not options:  # rounded here, since formats round differently
            samples = (samples * 32767).astype(np.int16)
        soundfile.write(tmp_path / name, samples, rate, **options)
        return tmp_path / name

    return write


def problems(path):
    return name_problems(examine(path), is_copy=False)


def test_examine__sine_by_hand(write):
    one = examine(write("sine.wav", SINE))
    assert (one.samples, one.rate, one.channels, one.seconds) == (RATE, RATE, 1, 1.0)
    assert one.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert one.rms_dbfs == pytest.approx(-9.03, abs=0.01)
    assert (one.clipped_share, one.silent_share) == (0, 0)
    assert problems(write("sine.wav", SINE)) == []


def test_examine__levels_are_those_of_the_average(write):
    path = write("stereo.wav", np.stack([SINE, 0 * SINE], axis=1))
    one = examine(path)
    assert one.channels == 2
    assert one.peak_dbfs == pytest.approx(-12.04, abs=0.01)
    assert one.rms_dbfs == pytest.approx(-15.05, abs=0.01)
    assert to_decibels(one.channels_rms) == pytest.approx(-12.04, abs=0.01)
    assert one.silent_share == 0
    assert name_problems(one, is_copy=False) == []
    loudest = examine(path, "loudest")
    assert loudest.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert loudest.rms_dbfs == pytest.approx(-9.03, abs=0.01)
    assert loudest.digest == one.digest


def test_examine__channels_that_cancel_out(write):
    path = write("inverse.wav", np.stack([SINE, -SINE], axis=1))
    assert (examine(path).peak, examine(path).silent_share) == (0, 1)
    assert problems(path) == ["silent", "phase"]
    assert name_problems(examine(path, "first"), is_copy=False) == []
    clipped = write("loud.wav", np.stack([np.sign(SINE), -np.sign(SINE)], axis=1))
    assert problems(clipped) == ["silent", "clipped", "phase"]


def test_examine__phase_begins_20_db_below_the_channels(write):
    """Channels of equal level and correlation r: their average has (1 + r) / 2 of their energy."""
    other = 0.5 * np.cos(2 * np.pi * 200 * TIME)  # independent
    for decibels, expected in ((19.5, []), (20.5, ["phase"])):
        r = 2 * 10 ** (-decibels / 10) - 1
        wave = np.stack([SINE, r * SINE + math.sqrt(1 - r * r) * other], axis=1)
        path = write("wave.wav", wave)
        assert problems(path) == expected
        one = examine(path)
        fall = to_decibels(one.channels_rms) - one.rms_dbfs
        assert fall == pytest.approx(decibels, abs=0.05)


def test_examine__many_independent_channels_are_no_problem(write):
    """Their average is 23 dB below them."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 200))
    one = examine(write("many.wav", noise))
    assert to_decibels(one.channels_rms) - one.rms_dbfs > 22.5
    assert name_problems(one, is_copy=False) == []


def test_examine__silence(write):
    one = examine(write("zero.wav", 0 * SINE))
    assert one.peak_dbfs == one.rms_dbfs == -math.inf
    assert one.silent_share == 1
    assert problems(write("zero.wav", 0 * SINE)) == ["silent"]
    assert problems(write("faint.wav", SINE * 0.0019, subtype="FLOAT")) == ["silent"]  # -60.4 dBFS
    assert problems(write("soft.wav", SINE * 0.0021, subtype="FLOAT")) == []  # -59.6 dBFS
    assert problems(write("offset.wav", 0 * SINE + 0.5)) == ["silent"]  # the front end removes it
    assert problems(write("moved.wav", 0.1 * SINE + 0.5)) == []
    half = np.where(np.arange(RATE) < RATE * 0.3, 0, SINE)
    assert examine(write("half.wav", half)).silent_share == pytest.approx(0.3)


def test_examine__clipping(write):
    loud = np.clip(3 * SINE, -1, 1)  # |sin| > 2/3 for 53.5 % of the time
    one = examine(write("loud.wav", loud))
    assert one.clipped_share == pytest.approx(0.535, abs=0.03)
    assert problems(write("loud.wav", loud)) == ["clipped"]
    few = SINE.copy()
    few[:8] = 1  # of 8000: the threshold
    assert problems(write("few.wav", few)) == []
    few[:9] = -1
    assert problems(write("few.wav", few)) == ["clipped"]


def test_examine__shorter_than_a_frame(write):
    assert problems(write("short.wav", SINE[:199])) == ["short"]
    assert problems(write("frame.wav", SINE[:200])) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.nan, "not finite numbers"),
        (np.inf, "not finite numbers"),
        (-1e20, r"samples of up to 1\.0e\+20"),
    ],
)
def test_examine__refuses_values_that_are_not_audio(write, value, problem):
    samples = SINE.copy()
    samples[-1] = value
    with pytest.raises(ClipError, match=problem):
        examine(write("broken.wav", samples, subtype="DOUBLE"))


def test_examine__damage_inside(write, tmp_path):
    path = write("cut.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 5 * RATE))
    (tmp_path / "cut.flac").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ClipError, match=r"truncated|decoded"):
        examine(path)


def test_examine__refuses_fewer_samples_than_in_the_header(write, monkeypatch):
    path = write("full.wav", SINE)

    @contextlib.contextmanager
    def open_longer(path):
        with soundfile.SoundFile(path) as clip:
            clip._info.frames += 1
            yield clip

    monkeypatch.setattr(quality, "open_clip", open_longer)
    with pytest.raises(ClipError, match="is truncated: 8000 of 8001 samples could be decoded"):
        examine(path)


def test_examine__does_not_depend_on_blocks(write, monkeypatch):
    samples = np.random.default_rng(0).normal(0, 0.2, (20_000, 2))
    samples[:5_000] = 0
    path = write("long.wav", samples)
    whole = examine(path)
    assert whole.silent_share == pytest.approx(6 / 25)  # the seventh tenth is silent in part
    monkeypatch.setattr(quality, "BLOCK", 3000)
    parts = examine(path)
    assert parts.rms == pytest.approx(whole.rms, rel=1e-12)
    assert (parts.digest, parts.peak, parts.silent_share) == (
        whole.digest, whole.peak, whole.silent_share
    )  # fmt: skip
    assert parts.samples == 20_000


def test_find_copies__in_any_format(write):
    same = [write(name, SINE) for name in ("a.wav", "b.flac", "c.wav")]
    others = [
        write("d.wav", -SINE), write("e.wav", SINE, 2 * RATE), write("f.wav", SINE[:-1]),
        write("g.wav", np.stack([SINE, SINE], axis=1)),
    ]  # fmt: skip
    found = find_copies([examine(path) for path in [*same, *others]])
    assert found == [None, 0, 0, None, None, None, None]
    assert name_problems(examine(same[1]), is_copy=True) == ["duplicate"]


def test_examine__in_order_with_any_number_of_processes(write, tmp_path):
    paths = [str(write(f"{n}.wav", SINE * (n + 1) / 5)) for n in range(4)]
    (tmp_path / "bad.wav").write_text("nothing")
    paths.insert(2, str(tmp_path / "bad.wav"))
    alone, together = (list(try_in_processes(examine, paths, workers, 1)) for workers in (1, 2))
    assert alone == together
    assert [isinstance(one, str) for one in alone] == [False, False, True, False, False]
    assert "cannot be decoded" in alone[2]


def test_decibels__of_full_scale():
    assert [to_decibels(level) for level in (1.0, 0.1, 0.0)] == [0, -20, -math.inf]
