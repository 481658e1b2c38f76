"""Samples with their rate in place of a file."""

import re

import numpy as np
import pytest
import soundfile
import torch

RATE = 16_000


def noise(channels, samples):
    return np.random.default_rng(0).uniform(-1, 1, (channels, samples)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
    """Write samples [channels, n] to a wav file."""

    def write(samples, rate, subtype="FLOAT"):
        soundfile.write(tmp_path / "a.wav", samples.T, rate, subtype)
        return tmp_path / "a.wav"

    return write


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_254, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 3, 9])
def test_spectrogram__equals_that_of_a_file(pretrained, write, rate, channels):
    samples = noise(channels, 2 * rate)
    expected = pretrained.spectrogram(write(samples, rate))
    assert torch.equal(pretrained.spectrogram((samples, rate)), expected)
    assert torch.equal(pretrained.spectrogram((torch.from_numpy(samples), rate)), expected)
    turned = np.ascontiguousarray(samples.T).T  # another order in memory
    assert torch.equal(pretrained.spectrogram((turned, float(rate))), expected)


@pytest.mark.parametrize("kind", ["float16", "float64", "int16", ">i2", "requires_grad"])
def test_spectrogram__types_of_samples(pretrained, write, kind):
    samples, subtype = noise(2, RATE), "FLOAT"
    if kind in ("int16", ">i2"):
        samples, subtype = (samples * 32767).astype(kind), "PCM_16"
        expected = pretrained.spectrogram(write(samples.astype("int16"), RATE, subtype))
    elif kind == "requires_grad":
        expected = pretrained.spectrogram(write(samples, RATE))
        samples = torch.from_numpy(samples).requires_grad_()
    else:
        samples = samples.astype(kind)
        expected = pretrained.spectrogram(write(samples.astype("float32"), RATE))
    assert torch.equal(pretrained.spectrogram((samples, np.int64(RATE))), expected)


def test_spectrogram__one_dimension_is_mono(pretrained, write):
    samples = noise(1, RATE)
    expected = pretrained.spectrogram(write(samples, RATE))
    assert torch.equal(pretrained.spectrogram((samples[0], RATE)), expected)
    assert torch.equal(pretrained.spectrogram((torch.from_numpy(samples[0]), RATE)), expected)


@pytest.mark.parametrize("granularity", ["utterance", "grid"])
def test_extract__of_long_stereo_samples_equals_that_of_a_file(pretrained, write, granularity):
    samples = noise(2, 7 * 22_050)
    expected, expected_times = pretrained.extract(write(samples, 22_050), granularity, hop=0.5)
    x, times = pretrained.extract((samples, 22_050), granularity, hop=0.5)
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(times, expected_times)
    found = pretrained.features((samples, 22_050), granularity)
    np.testing.assert_array_equal(found, pretrained.extract(write(samples, 22_050), granularity).x)


def test_predict__paths_and_samples_in_one_list(classifier, write):
    long, short = noise(2, 3 * 44_100), noise(1, 8_000)[0]
    path = write(long, 44_100)
    scores = classifier.predict([path, (torch.from_numpy(short), 8_000), (long, 44_100)])
    assert torch.equal(scores[0], scores[2])
    torch.testing.assert_close(classifier.predict((long, 44_100)), scores[0], atol=1e-5, rtol=0)
    expected = classifier.predict(write(short[None], 8_000))
    torch.testing.assert_close(scores[1], expected, atol=1e-5, rtol=0)


SECOND = np.zeros(RATE, dtype=np.float32)
NOT_FINITE = np.where(np.arange(RATE) == 5, np.nan, SECOND).astype(np.float32)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (SECOND, TypeError, "the clip: samples need their rate in Hz: give (samples, rate)"),
        ((SECOND, None), TypeError, "the clip: the rate must be a number in Hz, got NoneType"),
        ((SECOND, "16k"), TypeError, "the clip: the rate must be a number in Hz, got str"),
        ((SECOND, 0), ValueError, "the clip: has a sampling rate of 0 Hz; 1000 to 1000000 Hz"),
        ((SECOND, -8_000), ValueError, "the clip: has a sampling rate of -8000 Hz"),
        ((SECOND, 0.5), ValueError, "the clip: the rate must be a whole number of Hz, got 0.5"),
        ((SECOND, float("nan")), ValueError, "must be a whole number of Hz, got nan"),
        ((SECOND, float("inf")), ValueError, "must be a whole number of Hz, got inf"),
        ((SECOND[:0], RATE), ValueError, "the clip: there are no samples, their shape is (0,)"),
        ((SECOND.reshape(2, 4, -1), RATE), ValueError, "have the shape (2, 4, 2000); expected [n]"),
        ((SECOND.reshape(-1, 2), RATE), ValueError, "(8000, 2); expected [n] or [channels, n]"),
        ((SECOND[0], RATE), TypeError, "must be a NumPy array or a tensor, got float32"),
        ((np.float32(0)[None][0], RATE), TypeError, "must be a NumPy array or a tensor"),
        ((torch.tensor(0.0), RATE), ValueError, "samples have the shape (); expected [n]"),
        ((NOT_FINITE, RATE), ValueError, "the clip: has samples that are not finite numbers"),
        ((SECOND[:399], RATE), ValueError, "the clip: is shorter than one frame (25 ms)"),
        ((SECOND.astype(np.int32), RATE), TypeError, "samples have the type int32; expected"),
        ((SECOND.astype(np.uint8), RATE), TypeError, "have the type uint8"),
        ((SECOND.astype(bool), RATE), TypeError, "have the type bool"),
        ((SECOND.astype(complex), RATE), TypeError, "have the type complex128"),
        ((torch.zeros(RATE, dtype=torch.int64), RATE), TypeError, "have the type int64"),
        (([0.0, 0.5], RATE), TypeError, "must be a NumPy array or a tensor, got list"),
        (("a.wav", "b.wav"), TypeError, "must be a NumPy array or a tensor, got str"),
        ((SECOND, RATE, 1), TypeError, "the clip: expected a path or (samples, rate), or a list"),
        (3, TypeError, "where several clips are possible, got int"),
    ],
)
def test_clips__error_names_the_problem(classifier, clip, error, message):
    for method in (classifier.spectrogram, classifier.predict, classifier.extract):
        with pytest.raises(error, match=re.escape(message)):
            method(clip)


def test_clips__error_names_the_clip_of_a_list(classifier):
    with pytest.raises(ValueError, match="^clips.1.: has samples that are not finite"):
        classifier.predict([(SECOND, RATE), (NOT_FINITE, RATE)])
    with pytest.raises(TypeError, match="^clips.0.: samples need their rate"):
        classifier.predict([SECOND, RATE])
    with pytest.raises(TypeError, match="expected a path or .* got list"):
        classifier.spectrogram([(SECOND, RATE)])
