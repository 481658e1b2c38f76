"""The HEAR API; the rules are those of hear-validator, which needs TensorFlow."""

import re

import numpy as np
import pytest
import torch

from eat_plugin.harness import hear


@pytest.fixture(scope="module")
def model(checkpoint):
    return hear.load_model(str(checkpoint))


def test_model__has_the_attributes_of_the_api(model):
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16_000, 22_050, 44_100, 48_000)
    assert type(model.scene_embedding_size) is type(model.timestamp_embedding_size) is int


@pytest.mark.parametrize("seconds", [1.07, 1.98, 2.74, 4.0])
@pytest.mark.parametrize("hop", [None, 160])
def test_timestamps__follow_the_rules(checkpoint, draw_audio, seconds, hop):
    model = hear.load_model(checkpoint, hop=hop)
    x, stamps = hear.get_timestamp_embeddings(draw_audio(2, seconds), model)
    assert x.dtype == torch.float32
    assert x.shape == (*stamps.shape, model.timestamp_embedding_size)
    assert torch.isfinite(x).all()
    steps = stamps.diff()
    mean = steps.mean()
    assert (steps - mean).abs().max() < 1e-6  # the rule: 1 ms
    assert mean == pytest.approx(hop or 40)  # without a warning: 50
    assert stamps.min() <= 160 / 2
    last = stamps.max()
    assert last <= 1000 * seconds
    assert last >= 1000 * seconds - (2 if hop else 1) * mean


def test_timestamps__the_native_hop_gives_the_columns_of_features(
    checkpoint, draw_audio, reference
):
    audio = draw_audio(2, 1.98)
    x, stamps = hear.get_timestamp_embeddings(audio, hear.load_model(checkpoint, hop=160))
    assert stamps.shape == (2, 12)  # the centre of the 13th column is at 2,000 ms
    for clip, own, times in zip(audio, x, stamps):
        expected = reference(clip)
        np.testing.assert_allclose(own, expected.x, atol=1e-5)
        np.testing.assert_allclose(times, 1000 * expected.times)


def test_timestamps__are_of_clips_that_start_later(model, draw_audio, reference):
    audio = draw_audio(1, 1.98)
    x, stamps = hear.get_timestamp_embeddings(audio, model)
    for number in range(4):
        expected = reference(audio[0, 640 * number :])
        np.testing.assert_allclose(x[0, number::4], expected.x, atol=1e-5)
        np.testing.assert_allclose(stamps[0, number::4], 1000 * expected.times + 40 * number)


@pytest.mark.parametrize("samples", [100, 1000, 1281, 1930])
def test_timestamps__of_very_short_clips_do_not_leave_them(model, samples):
    x, stamps = hear.get_timestamp_embeddings(torch.rand(1, samples), model)
    assert 0 < stamps.max() <= samples / 16
    assert x.shape[1] == stamps.shape[1] == max(1, -(-(samples - 1280) // 640))


def test_scenes__are_the_mean_over_the_clip(model, draw_audio, reference):
    audio = draw_audio(4, 2.74)
    scenes = hear.get_scene_embeddings(audio, model)
    assert scenes.dtype == torch.float32
    assert scenes.shape == (4, model.scene_embedding_size)
    for clip, scene in zip(audio, scenes):
        np.testing.assert_allclose(scene, reference(clip).x.mean(axis=0), atol=1e-5)


def test_layer__is_that_of_features(checkpoint, draw_audio):
    audio = draw_audio(1, 1.0)
    first, last, mean = (
        hear.get_scene_embeddings(audio, hear.load_model(checkpoint, layer=layer))
        for layer in (1, 2, "mean")
    )
    torch.testing.assert_close(mean, (first + last) / 2)
    assert not torch.allclose(first, last)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop": 50}, "the hop is 50 ms; it must divide the 160 ms of a patch"),
        ({"layer": 3}, "the layer is 3; choose 1 to 2"),
        ({"layer": "all"}, "the layer is 'all'; a benchmark needs one"),
    ],
)
def test_load_model__refuses_an_invalid_option(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        hear.load_model(checkpoint, **options)


def test_model__stays_in_evaluation_and_frozen(model):
    model.train()
    assert not any(module.training for module in model.modules())
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(
    ("audio", "shown"),
    [
        (torch.zeros(16_000), "a tensor [16000] of float32"),
        (torch.zeros(0, 16_000), "a tensor [0, 16000] of float32"),
        (torch.zeros(2, 0), "a tensor [2, 0] of float32"),
        (torch.zeros(1, 2, 1600), "a tensor [1, 2, 1600] of float32"),
        (torch.zeros(2, 1600, dtype=torch.int64), "a tensor [2, 1600] of int64"),
        (np.zeros((2, 1600), dtype=np.float32), "ndarray"),
        ([[0.0] * 1600], "list"),
    ],
)
@pytest.mark.parametrize("function", ["get_scene_embeddings", "get_timestamp_embeddings"])
def test_embeddings__refuse_other_audio(model, function, audio, shown):
    with pytest.raises(ValueError, match=re.escape(f"audio is {shown}; expected a floating-point")):
        getattr(hear, function)(audio, model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_embeddings__take_any_floating_point_type(model, draw_audio, dtype):
    audio = draw_audio(2, 1.0).to(dtype)
    own, expected = (hear.get_scene_embeddings(each, model) for each in (audio, audio.float()))
    assert own.dtype == torch.float32
    assert torch.equal(own, expected)
