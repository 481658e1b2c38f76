"""Features and scores of recordings of any length."""

from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data import reader
from eat_plugin.data.entries import locate
from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.sources import read_audio
from eat_plugin.inference import load_checkpoint
from eat_plugin.inference.batches import Job

RATE = 16_000


def test_spectrogram__as_in_training(pretrained, recording):
    waveform, rate = read_audio(recording)
    assert torch.equal(pretrained.spectrogram(recording), pretrained.front_end(waveform, rate))
    with pytest.raises(ValueError, match="nothing.wav: cannot be opened"):
        pretrained.spectrogram("nothing.wav")


def test_windowing__fits_the_model(pretrained):
    assert pretrained.windowing().frames == 128
    assert pretrained.windowing(2.5, 1).frames == 256
    with pytest.raises(ValueError, match="the window is 2.72 s; .* this model ends at 2.56 s"):
        pretrained.windowing(2.57)


@pytest.mark.parametrize("layer", [1, "all"])
@pytest.mark.parametrize("granularity", ["utterance", "frame", "all", "grid"])
def test_extract__equals_the_windows_by_hand(pretrained, recording, granularity, layer):
    waveform, rate = read_audio(recording)
    starts = [0, 1.28, 2.56, 3.84]  # 5 s in windows of 1.28 s; 7 columns of the last one are valid
    parts = [
        pretrained.features(
            pretrained.front_end(waveform[round(start * rate) :], rate)[None], granularity, layer
        )[0].numpy()
        for start in starts
    ]
    axis = 1 if layer == "all" else 0
    if granularity in ("frame", "grid"):
        parts[-1] = parts[-1].take(range(7), axis)
        expected = np.concatenate(parts, axis)
    else:
        expected = np.stack(parts, axis)
    x, times = pretrained.extract(recording, granularity, layer)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, expected, atol=1e-5)
    if granularity in ("frame", "grid"):
        np.testing.assert_allclose(times, (np.arange(31) + 0.5) * 0.16)
    else:
        assert times is None


def test_extract__windows_of_another_length_overlapping(pretrained, recording):
    waveform, rate = read_audio(recording)
    front_end = FrontEnd(64, -5.0, 4.569)
    expected = [
        pretrained.features(front_end(waveform[start:], rate)[None])[0].numpy()
        for start in range(0, round(4.8 * rate), round(0.5 * rate))
    ]
    x, _ = pretrained.extract(recording, window=0.6, hop=0.5)
    np.testing.assert_allclose(x, np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_extract__does_not_depend_on_the_batch_size(pretrained, recording, batch_size):
    expected, _ = pretrained.extract(recording, "grid", hop=0.5)
    x, _ = pretrained.extract(recording, "grid", hop=0.5, batch_size=batch_size)
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_extract__padding_of_a_short_clip_is_excluded(pretrained, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.random.default_rng(0).normal(0, 0.1, 8_000), RATE)
    utterance, _ = pretrained.extract(tmp_path / "short.wav")
    spectrogram = pretrained.spectrogram(tmp_path / "short.wav")
    np.testing.assert_allclose(utterance, pretrained.features(spectrogram[None])[0], atol=1e-5)
    frames, times = pretrained.extract(tmp_path / "short.wav", "frame")
    assert frames.shape == (3, 32)
    assert times.tolist() == pytest.approx([0.08, 0.24, 0.40])


def test_extract__never_reads_more_than_a_window(pretrained, tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 120 * RATE), RATE)
    lengths = []
    read = reader.read_opened

    def spy(*args):
        waveform = read(*args)
        lengths.append(len(waveform))
        return waveform

    monkeypatch.setattr(reader, "read_opened", spy)
    x, _ = pretrained.extract(path)
    assert x.shape == (94, 32)
    assert len(lengths) == 94
    assert max(lengths) < 1.31 * RATE


def test_extract__names_an_unusable_recording(pretrained, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match="text.wav: cannot be decoded"):
        pretrained.extract(tmp_path / "text.wav")
    soundfile.write(tmp_path / "tiny.wav", np.zeros(3), RATE)
    with pytest.raises(ValueError, match="tiny.wav: is shorter than one frame .25 ms."):
        pretrained.extract(tmp_path / "tiny.wav")


@pytest.fixture(scope="module")
def own_length(make_checkpoint):
    """A pre-trained model of clips with their own lengths, up to 1.28 s."""
    return load_checkpoint(make_checkpoint("pretraining", task_length="mask"))


def write_noise(path, seconds):
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, int(seconds * RATE)), RATE)
    return path


def test_own_length__in_whole_patches(own_length, tmp_path):
    for seconds, columns in ((0.05, 1), (0.5, 3), (1.28, 8), (3.0, 8)):
        path = write_noise(tmp_path / "clip.wav", seconds)
        spectrogram = own_length.spectrogram(path)
        assert spectrogram.shape == (1, 16 * columns, 128)
        assert own_length.features(spectrogram[None], "grid").shape == (1, columns, 8, 32)
    assert own_length.front_end == FrontEnd(128, -4.268, 4.569, patch=16)


@pytest.mark.parametrize("granularity", ["utterance", "frame", "grid", "all"])
def test_own_length__features_do_not_depend_on_the_batch(own_length, tmp_path, granularity):
    paths = [write_noise(tmp_path / f"{s}.wav", s) for s in (0.5, 1.0, 0.51, 1.5)]
    jobs = [Job(number, 0, locate(path)) for number, path in enumerate(paths)]
    compute = partial(own_length.features, granularity=granularity)
    results = own_length.map_windows(jobs, own_length.windowing(), compute, batch_size=4)
    for path, (_, row) in zip(paths, results):
        expected = compute(own_length.spectrogram(path)[None])[0]
        torch.testing.assert_close(torch.from_numpy(row), expected)


@pytest.mark.parametrize("granularity", ["utterance", "frame", "grid", "all"])
@pytest.mark.parametrize("seconds", [0.5, 0.55, 2.0])
def test_own_length__extract_joins_windows(own_length, tmp_path, granularity, seconds):
    path = write_noise(tmp_path / "clip.wav", seconds)
    x, times = own_length.extract(path, granularity)
    rest = x[1, 1 + 8 * 5 :] if (seconds, granularity) == (2.0, "all") else x[:0]
    assert np.isnan(x).sum() == np.isnan(rest).sum() == rest.size
    columns = {0.5: 3, 0.55: 3, 2.0: 12}[seconds]
    shapes = {"utterance": (32,), "frame": (columns, 32), "grid": (columns, 8, 32)}
    shapes["all"] = (1 + 8 * {0.5: 3, 0.55: 4, 2.0: 8}[seconds], 32)
    lead = (2,) if seconds == 2.0 and granularity in ("utterance", "all") else ()
    assert x.shape == (*lead, *shapes[granularity])
    if times is not None:
        assert len(times) == columns


@pytest.mark.parametrize(("most", "starts"), [(1, [61]), (3, [0, 61, 122])])
def test_plan_scores__spreads_windows_over_a_clip(make_checkpoint, most, starts):
    loaded = load_checkpoint(
        make_checkpoint("classification", task_length="crop", task_eval_windows=most)
    )
    assert loaded.eval_windows == most
    plan = loaded.plan_scores(loaded.windowing(), 250 * 160 + 240, RATE)  # 250 frames
    assert [window.start for window in plan] == starts
    assert len(loaded.plan_scores(loaded.windowing(), RATE, RATE)) == 1


def test_plan_scores__the_start_alone(classifier, make_checkpoint):
    assert classifier.eval_windows == 0
    assert load_checkpoint(make_checkpoint("pretraining", task_length="crop")).eval_windows == 0
    plan = classifier.plan_scores(classifier.windowing(), 5 * RATE, RATE)
    assert [window.start for window in plan] == [0]


def test_extract__a_list_gives_a_result_per_clip(pretrained, recording, tmp_path):
    paths = [write_noise(tmp_path / "short.wav", 0.5), recording]
    found = pretrained.extract(paths, "frame", batch_size=3)
    assert [each.x.shape for each in found] == [(3, 32), (31, 32)]
    for path, each in zip(paths, found):
        x, times = pretrained.extract(path, "frame")
        np.testing.assert_allclose(each.x, x, atol=1e-5)
        np.testing.assert_array_equal(each.times, times)
    assert pretrained.extract([]) == []
    with pytest.raises(ValueError, match="gone.wav: cannot be opened"):
        pretrained.extract([recording, tmp_path / "gone.wav"])


@pytest.mark.parametrize("granularity", ["utterance", "frame", "grid", "all"])
def test_features__of_a_clip_are_those_of_extract(pretrained, recording, tmp_path, granularity):
    short = write_noise(tmp_path / "short.wav", 0.5)
    for path in (recording, short):
        found = pretrained.features(path, granularity, "mean")
        expected = pretrained.extract(path, granularity, "mean").x
        torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=0)
    several = pretrained.features([short, str(recording)], granularity)
    assert [each.shape for each in several] == [
        pretrained.extract(path, granularity).x.shape for path in (short, recording)
    ]


def test_predict__clips_as_validation_does(make_checkpoint, classifier, recording, tmp_path):
    short = write_noise(tmp_path / "short.wav", 0.5)
    for path in (short, recording):
        expected = classifier.predict(classifier.spectrogram(path)[None])
        assert expected.shape == (1, 3)
        torch.testing.assert_close(classifier.predict(path), expected[0], atol=1e-5, rtol=0)
    several = classifier.predict([short, str(recording)])
    expected = torch.stack([classifier.predict(path) for path in (short, recording)])
    torch.testing.assert_close(several, expected, atol=1e-5, rtol=0)
    assert classifier.predict([]).shape == (0, 3)
    crops = load_checkpoint(
        make_checkpoint("classification", task_length="crop", task_eval_windows=2)
    )
    windows = [reader.read_window(recording, crops.front_end, start) for start in (0, 498 - 128)]
    expected = crops.predict(torch.stack(windows)).mean(dim=0)
    torch.testing.assert_close(crops.predict(recording), expected, atol=1e-5, rtol=0)


def test_predict__of_own_lengths(make_checkpoint, tmp_path):
    loaded = load_checkpoint(make_checkpoint("classification", task_length="mask"))
    paths = [write_noise(tmp_path / f"{seconds}.wav", seconds) for seconds in (0.5, 2.0, 0.3)]
    expected = [loaded.predict(loaded.spectrogram(path)[None])[0] for path in paths]
    found = loaded.predict(paths)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


def test_predict__names_an_unusable_clip(classifier, pretrained, recording, tmp_path):
    soundfile.write(tmp_path / "tiny.wav", np.zeros(3), RATE)
    with pytest.raises(ValueError, match="tiny.wav: is shorter than one frame"):
        classifier.predict([recording, tmp_path / "tiny.wav"])
    with pytest.raises(ValueError, match="nothing.wav: cannot be opened"):
        classifier.predict("nothing.wav")
    with pytest.raises(ValueError, match="is a pre-trained checkpoint without a classifier"):
        pretrained.predict(recording)
