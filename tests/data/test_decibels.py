"""The front end ``db``: decibels from 0 to 1, against BAT's published numbers and torch.stft."""

import math

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data.cache_settings import SettingsError
from eat_plugin.data.clip import ClipError
from eat_plugin.data.decibels import Decibels, mel_filters
from eat_plugin.data.feature_cache import read_cached
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.packed import PackedReader, compute_spectrograms, join_clips
from eat_plugin.data.reader import SpectrogramReader, read_window
from eat_plugin.data.resampling import resample
from eat_plugin.prepare import cache_folder
from eat_plugin.prepare.cache_shards import finish_all
from eat_plugin.prepare.measure import block_energies

RATE = 16_000


def make(frames: int, **options) -> FrontEnd:
    return FrontEnd(frames, 0.0, 0.5, kind="db", **options)


def noise(length: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed))


def by_stft(wave: torch.Tensor) -> torch.Tensor:
    """Decibels of a waveform, reflected as often as needed."""
    padded = torch.from_numpy(np.pad(wave.double().numpy(), 512, mode="reflect"))
    window = torch.hann_window(1024, dtype=torch.float64)
    spectrum = torch.stft(padded, 1024, 160, window=window, center=False, return_complex=True)
    energies = spectrum.abs().square().T @ mel_filters().T
    return 10 * energies.clamp(min=1e-10).log10()


def test_front_end__golden(shared) -> None:
    numbers = torch.load(shared / "golden" / "bat_tiny.pt", weights_only=True)
    expected = numbers["features"]  # 188 frames, then padding
    found = torch.stack([make(192)(wave, RATE) for wave in numbers["waveform"]])
    assert found.shape == expected.shape
    is_floor = expected == 0
    assert (found - expected)[~is_floor].abs().max() < 1e-5
    assert found[is_floor].abs().max() < 1e-4
    assert torch.equal(found[:, :, 188:], torch.zeros(2, 1, 4, 128))


def test_mel_filters__are_on_the_htk_scale_without_area_normalisation() -> None:
    filters = mel_filters()
    centres = filters.argmax(dim=1) * RATE / 1024
    mel = 2595 * math.log10(1 + 8000 / 700) / 129
    for number in (20, 64, 127):
        assert abs(centres[number] - 700 * (10 ** ((number + 1) * mel / 2595) - 1)) < 8
    assert filters[64:].max() > 0.9
    assert filters.max() <= 1


@pytest.mark.parametrize("samples", [400, 401, 512, 513, 1_600, 30_000])
def test_compute__is_a_centred_reflected_stft(samples: int) -> None:
    wave = noise(samples)
    found = Decibels().compute(wave)
    assert found.shape == (1 + samples // 160, 128)
    torch.testing.assert_close(found.double(), by_stft(wave), atol=1e-3, rtol=0)
    batch = Decibels().compute(torch.stack([wave, 2 * wave]).double())
    torch.testing.assert_close(batch[0], by_stft(wave), atol=1e-6, rtol=0)


def test_count_frames__agrees_with_compute() -> None:
    kind, samples = Decibels(), [0, 159, 399, 400, 479, 480, 1_599, 1_600]
    frames = [len(kind.compute(noise(number))) for number in samples]
    assert frames == [kind.count_frames(number) for number in samples] == [0, 0, 0, 3, 3, 4, 10, 11]
    assert kind.count_frames(np.array(samples)).tolist() == frames
    for number in (0, 3, 4, 11):
        least = kind.least_samples(number)
        assert kind.count_frames(least) == number
        assert kind.count_frames(least - 1) < max(number, 1)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_254, 44_100])
def test_needed_samples__suffice(rate: int) -> None:
    front_end = make(20)
    needed = front_end.needed_samples(rate)
    clip = noise(3 * needed)
    found = front_end.energies(clip[:needed], rate)
    expected = by_stft(resample(clip, rate))[:20].float()
    loud = expected > expected.max() - 80
    torch.testing.assert_close(found[loud], expected[loud], atol=2e-2, rtol=0)
    torch.testing.assert_close(front_end(clip, rate), front_end(clip[:needed], rate))
    assert needed <= rate * ((19 * 160 + 512) / RATE + 0.01)


def test_finish__is_from_0_to_1_over_the_frames_that_a_model_sees() -> None:
    values = torch.full((2, 5, 128), -20.0)
    values[0, 0, 0], values[0, 1, 0], values[0, 4, 0] = 30.0, -90.0, 99.0  # the last one is cut
    values[1, 2, 0] = 0.0
    before = values.clone()
    found = make(4).finish(values)
    assert torch.equal(values, before)
    assert found.shape == (2, 1, 4, 128)
    assert (found[0, 0, 0, 0], found[0, 0, 1, 0]) == (1.0, 0.0)  # 120 dB below, floor 80
    assert found[0, 0, 3].tolist() == pytest.approx([30 / 80] * 128)
    assert found[1, 0].unique().tolist() == [0.0, 1.0]
    assert torch.equal(make(4).finish(values[1]), found[1])
    padded = make(8).finish(values)
    assert torch.equal(padded[1, 0, 5:], torch.zeros(3, 128))
    assert torch.equal(make(8, patch=4).finish(values[1, :3])[0, 3], torch.zeros(128))


def test_finish__of_silence_is_0() -> None:
    assert torch.equal(make(8)(torch.zeros(1_000), RATE), torch.zeros(1, 8, 128))
    assert torch.equal(make(8)(torch.zeros(10), RATE), torch.zeros(1, 8, 128))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mean": -4.0}, r"mean and std of the front end db are \(0.0, 0.5\)"),
        ({"pad_value": "silence"}, "the front end db has zero"),
        ({"kind": "mel"}, "task.frontend is 'mel'; choose one of kaldi, db"),
    ],
)
def test_front_end__other_options_are_refused(options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        FrontEnd(**{"target_length": 8, "mean": 0.0, "std": 0.5, "kind": "db", **options})


@pytest.mark.parametrize("extra", [0, 160 * 3099 + 400])  # the second ends in the last block
def test_block_energies__equal_the_whole_clip(extra: int) -> None:
    wave = noise(480_000 + (extra or 7_000))
    parts = ((part, RATE) for part in wave.split(70_001))
    found = torch.cat(list(block_energies(parts, "db")))
    torch.testing.assert_close(found, Decibels().compute(wave))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder of three clips, and its cache of the front end ``db``."""
    data = tmp_path_factory.mktemp("data")
    lengths = (48_000, 8_000, 410)
    for number, length in enumerate(lengths):
        soundfile.write(data / f"{number}.wav", noise(length, number).numpy(), RATE)
    write_manifest(data / "train.tsv", data, [(f"{n}.wav", k) for n, k in enumerate(lengths)])
    out = tmp_path_factory.mktemp("parent") / "cache"
    for shards in cache_folder.plan_shards(out, data, ["train"], kind="db"):
        list(finish_all(shards, 1))
        cache_folder.write_split(data, shards)
    return data, out


def test_cache__has_the_values_of_whole_clips(made) -> None:
    data, out = made
    manifest = read_manifest(out / "train.tsv")
    for number in range(3):
        wave, _ = soundfile.read(data / f"{number}.wav", dtype="float32")
        expected = Decibels().compute(torch.from_numpy(wave))
        found = read_cached(manifest.entry(number), 0, 1_000, kind="db")
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
        whole = read_window(data / f"{number}.wav", make(320))
        assert (read_window(manifest.entry(number), make(320)) - whole).abs().max() < 1e-3


def test_cache__of_another_front_end_is_refused(made) -> None:
    manifest = read_manifest(made[1] / "train.tsv")
    kaldi = FrontEnd(32, -4.0, 4.0)
    message = "made with frontend=db, but frontend=kaldi is needed; make .* eat cache --frontend ka"
    with pytest.raises(SettingsError, match=message):
        SpectrogramReader(manifest, kaldi)
    with pytest.raises(ClipError, match=message):
        read_window(manifest.entry(0), kaldi)
    with pytest.raises(SettingsError, match="frontend=db"):
        cache_folder.plan_shards(made[1], made[0], ["train"])


def test_readers__roll_alike_in_workers_on_the_device_and_in_a_cache(made) -> None:
    data, out = made
    kinds = [(SpectrogramReader, data), (PackedReader, data), (SpectrogramReader, out)]
    for number in (0, 1):
        found, still = [], []
        for roll, results in ((True, found), (False, still)):
            for kind, folder in kinds:
                reader = kind(read_manifest(folder / "train.tsv"), make(32), roll=roll)
                clip = reader.read(number, torch.Generator().manual_seed(3))
                if kind is PackedReader:
                    clip = compute_spectrograms(join_clips([clip]), make(32))[0]
                results.append(clip)
        assert torch.equal(found[0], found[1])
        assert torch.equal(still[0], still[1])
        assert not torch.equal(found[0], still[0])
        # The cached window has the same frames, from another one on.
        rolled = [still[2].roll(shift, dims=1) for shift in range(32)]
        assert sum(torch.equal(found[2], each) for each in rolled[1:]) == 1
