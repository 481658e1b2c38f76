"""The representation of EVAR."""

import numpy as np
import pytest

from eat_plugin.harness.evar import AR_EAT


def test_representation__has_the_contract_of_evar(checkpoint, draw_audio, reference):
    representation = AR_EAT({"weight_file": checkpoint, "sample_rate": 16_000})
    representation.precompute("cpu", [])
    audio = draw_audio(3, 1.0)
    frames, clips = representation.encode_frames(audio), representation(audio)
    assert frames.shape == (3, 32, 6)
    assert clips.shape == (3, 32)
    np.testing.assert_allclose(frames[2].T, reference(audio[2]).x, atol=1e-5)
    np.testing.assert_allclose(clips, frames.mean(dim=2), atol=1e-6)


def test_representation__refuses_another_rate(checkpoint):
    with pytest.raises(ValueError, match="sample_rate is 22050; the model needs 16000"):
        AR_EAT({"weight_file": checkpoint, "sample_rate": 22_050})
