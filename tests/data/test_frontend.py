"""The front end: resampling, log-mel energies, length, normalisation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from eat_plugin.data import kaldi as features
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.kaldi import Kaldi, log_mel
from eat_plugin.data.resampling import resample
from tests.reading import read_audio

LOG_OF_FLOOR = math.log(2.0**-23)


def noise(length: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed))


def from_pcm16(samples: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(samples.astype(np.float32) / 32768)


def worst(got: torch.Tensor, expected: np.ndarray) -> float:
    assert tuple(got.shape) == expected.shape
    return float(np.abs(got.numpy() - expected).max())


def test_tables__golden(golden: Path) -> None:
    with np.load(golden / "features.npz") as numbers:
        # The last bit of a logarithm, which depended on the processor, is 1.1e-5 of a filter.
        assert worst(features.mel_filters(), numbers["mel_banks_128x257"]) < 2e-5
        assert worst(features.frame_window(), numbers["window_400"]) < 1e-6


def test_log_mel__golden(golden: Path) -> None:
    with np.load(golden / "features.npz") as numbers:
        waveform = from_pcm16(numbers["pcm16_16000"])
        assert worst(log_mel(waveform - waveform.mean()), numbers["log_mel_16000"]) < 1e-3


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16_000, 98)]
)
def test_log_mel__number_of_frames(samples: int, frames: int) -> None:
    assert log_mel(noise(samples)).shape == (frames, 128)


def test_count_frames__agrees_with_log_mel() -> None:
    samples = [0, 1, 239, 240, 399, 400, 559, 560, 16_000]
    frames = [len(log_mel(torch.zeros(number))) for number in samples]
    count = Kaldi().count_frames
    assert [count(number) for number in samples] == frames
    assert count(np.array(samples)).tolist() == frames


def test_log_mel__silence_gives_the_floor() -> None:
    torch.testing.assert_close(log_mel(torch.zeros(400)), torch.full((1, 128), LOG_OF_FLOOR))


def test_log_mel__batch_equals_single_clips() -> None:
    clips = noise(2 * 90_000).view(2, -1)  # 561 frames, more than one block
    apart = torch.stack([log_mel(clip) for clip in clips])
    assert apart.shape == (2, 561, 128)
    torch.testing.assert_close(log_mel(clips), apart)
    torch.testing.assert_close(log_mel(clips[0, 520 * 160 :]), apart[0, 520:])


def test_log_mel__ignores_a_constant_offset() -> None:
    waveform = noise(4_000)
    torch.testing.assert_close(log_mel(waveform + 0.25), log_mel(waveform), atol=1e-2, rtol=0)


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_finish__cuts_or_pads_then_normalises(frames: int, batch: tuple[int, ...]) -> None:
    energies = torch.arange(1.0, frames + 1)[:, None].expand(*batch, frames, 128)
    expected = [1.25, 1.5, 1.5][:frames][:2] + [1.0] * max(0, 2 - frames)
    got = FrontEnd(2, -4.0, 2.0).finish(energies)
    assert got.shape == (*batch, 1, 2, 128)
    assert (got == torch.tensor(expected)[:, None]).all()


MEANS, DEVIATIONS = tuple(np.linspace(-9, -4, 128)), tuple(np.linspace(2, 5, 128))


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finish__normalises_each_bin(dtype: torch.dtype, batch: tuple[int, ...]) -> None:
    energies = noise(2 * 128).view(2, 128).to(dtype).expand(*batch, 2, 128)
    got = FrontEnd(3, MEANS, DEVIATIONS).finish(energies)
    assert (got.shape, got.dtype) == ((*batch, 1, 3, 128), dtype)
    padded = np.concatenate([energies.numpy(), np.zeros((*batch, 1, 128))], axis=-2)
    expected = (padded - np.array(MEANS)) / (2 * np.array(DEVIATIONS))
    np.testing.assert_allclose(got.numpy().squeeze(-3), expected, rtol=1e-5, atol=1e-6)
    silent = FrontEnd(3, MEANS, DEVIATIONS, "silence").finish(energies)
    expected = (LOG_OF_FLOOR - np.array(MEANS)) / (2 * np.array(DEVIATIONS))
    np.testing.assert_allclose(silent[..., 0, 2, :], np.broadcast_to(expected, (*batch, 128)), 1e-5)


def test_finish__equal_numbers_of_all_bins_are_one_number() -> None:
    energies = noise(40 * 128).view(40, 128)
    whole = FrontEnd(64, -4.268, 4.569).finish(energies)
    assert torch.equal(FrontEnd(64, (-4.268,) * 128, (4.569,) * 128).finish(energies), whole)
    padded = torch.cat([energies, torch.zeros(24, 128)])
    assert torch.equal(whole[0], (padded - (-4.268)).div(2 * 4.569))  # bit by bit, as published


@pytest.mark.parametrize("frames", [2, 4, 6])
def test_finish__does_not_change_its_input(frames: int) -> None:
    energies = noise(4 * 128).view(4, 128)
    before = energies.clone()
    FrontEnd(frames, -4.0, 2.0).finish(energies)
    assert torch.equal(energies, before)


def test_front_end__golden(golden: Path) -> None:
    with np.load(golden / "features.npz") as numbers:
        got = FrontEnd(128, -4.268, 4.569)(from_pcm16(numbers["pcm16_22050"]), 22_050)
        assert worst(got[0], numbers["features_22050_128"]) < 2e-4


def test_front_end__golden_clips(shared: Path) -> None:
    with np.load(shared / "golden" / "fbank.npz") as numbers:
        for clip in json.loads(str(numbers["meta_json"])):
            front_end = FrontEnd(clip["target_length"], -4.268, 4.569)
            got = front_end(from_pcm16(numbers[f"pcm16_{clip['index']}"]), clip["sr"])
            expected = numbers[f"feat_{clip['index']}"]
            error = np.abs(got[0].numpy() - expected)
            # Far below the loudest bin of a frame, by e^16 (70 dB), are rounding errors of the FFT,
            # which depend on the processor.
            is_loud = expected > expected.max(axis=1, keepdims=True) - 16 / (2 * 4.569)
            assert error[is_loud].max() < 1e-4, clip
            assert error.max() < 2e-3, clip


def test_front_end__pads_before_normalising() -> None:
    got = FrontEnd(4, -4.0, 2.0)(torch.zeros(720), 16_000)  # 3 frames of silence
    assert got.shape == (1, 4, 128)
    torch.testing.assert_close(got[0, :3], torch.full((3, 128), (LOG_OF_FLOOR + 4) / 4))
    torch.testing.assert_close(got[0, 3], torch.full((128,), 1.0))


def test_front_end__padding_with_silence() -> None:
    tone = torch.sin(torch.arange(720.0))  # 3 frames
    got = FrontEnd(4, -4.0, 2.0, "silence")(tone, 16_000)
    torch.testing.assert_close(got[0, 3], torch.full((128,), (LOG_OF_FLOOR + 4) / 4))
    assert torch.equal(got[:, :3], FrontEnd(4, -4.0, 2.0)(tone, 16_000)[:, :3])
    silence = FrontEnd(4, -4.0, 2.0, "silence")(torch.zeros(720), 16_000)
    assert (silence == silence[0, 0, 0]).all()  # the padding equals silence


@pytest.mark.parametrize("samples", [0, 1, 399])
def test_front_end__clip_shorter_than_a_frame_is_all_padding(samples: int) -> None:
    got = FrontEnd(2, -4.0, 2.0)(noise(samples), 16_000)
    torch.testing.assert_close(got, torch.full((1, 2, 128), 1.0))


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 22_254, 32_000, 44_100, 48_000])
def test_front_end__needed_samples_suffice(rate: int) -> None:
    front_end = FrontEnd(20, -4.268, 4.569)
    needed = front_end.needed_samples(rate)
    clip = noise(3 * needed)
    first = slice(400 + 19 * 160)  # the samples at 16 kHz of 20 frames
    enough, whole = resample(clip[:needed], rate), resample(clip, rate)
    torch.testing.assert_close(enough[first], whole[first], atol=1e-6, rtol=0)
    got = front_end(clip[:needed], rate)
    torch.testing.assert_close(front_end(clip, rate), got, atol=1e-5, rtol=0)
    expected = (log_mel(whole)[:20] + 4.268) / 9.138
    torch.testing.assert_close(got[0], expected, atol=2e-4, rtol=0)
    assert needed <= rate * (first.stop / 16_000 + 0.01)


def test_front_end__same_for_any_number_of_threads() -> None:
    front_end = FrontEnd(1024, -4.268, 4.569)
    clip = 0.4 * torch.sin(0.01 * torch.arange(164_087)) + noise(164_087)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(front_end(clip, 16_000))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results[1:])


def test_front_end__stereo_equals_the_mean_of_channels(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    left, right = noise(44_100, seed=1).numpy(), noise(44_100, seed=2).numpy()
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 44_100, "FLOAT")
    soundfile.write(tmp_path / "mono.wav", (left + right) / 2, 44_100, "FLOAT")
    front_end = FrontEnd(128, -4.268, 4.569)
    stereo = front_end(*read_audio(tmp_path / "stereo.wav"))
    torch.testing.assert_close(stereo, front_end(*read_audio(tmp_path / "mono.wav")))
    padding = torch.full((128,), 4.268 / 9.138)
    assert [bool(torch.allclose(row, padding)) for row in stereo[0]].index(True) == 98  # 1 s


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, -4.0, 2.0), "target_length"),
        ((8, math.nan, 2.0), "mean"),
        ((8, -4.0, 0.0), "std"),
        ((8, -4.0, math.inf), "std"),
        ((8, (0.0,) * 127, (1.0,) * 127), "one number or 128 each, got 127 and 127"),
        ((8, 0.0, (1.0,) * 128), "one number or 128 each, got 1 and 128"),
        ((8, (0.0,) * 128, (1.0,) * 127 + (0.0,)), "std must be positive and finite, got 0.0"),
        ((8, (0.0,) * 127 + (math.nan,), (1.0,) * 128), "mean must be finite, got nan"),
        ((8, -4.0, 2.0, "mean"), "pad_value is 'mean'; choose one of zero, silence"),
    ],
)
def test_front_end__invalid_options_are_refused(arguments: tuple, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        FrontEnd(*arguments)


def test_front_end__refuses_several_channels() -> None:
    with pytest.raises(ValueError, match=r"\[2, 800\]"):
        FrontEnd(8, -4.0, 2.0)(torch.zeros(2, 800), 16_000)
