"""Vectors of whole clips: of the model, of random weights, of log-mel frames."""

import json

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import locate
from eat_plugin.data.reader import read_energies
from eat_plugin.inference import load_checkpoint
from eat_plugin.inference.clip_vectors import (
    BASELINE,
    MODEL,
    RANDOM,
    Kind,
    VectorReader,
    with_random_weights,
)
from eat_plugin.inference.pooling import POOLINGS


def read(loaded, paths, layer="all", batch_size=3, seed=0):
    reader = VectorReader(loaded, layer, seed)
    return dict(reader.read([locate(path) for path in paths], batch_size))


@pytest.fixture(scope="module")
def vectors(pretrained, recording):
    return read(pretrained, [recording])[0]


def close(expected):
    return pytest.approx(expected, abs=1e-5)


def test_vectors__of_the_model_pool_the_joined_grid(pretrained, recording, vectors):
    grid = pretrained.extract(recording, "grid", layer="all").x  # [2, 31, 8, 32]
    assert vectors[Kind(MODEL, "mean")] == close(grid.mean(axis=(1, 2)))
    assert vectors[Kind(MODEL, "frames")] == close(grid.mean(axis=1).reshape(2, -1))
    most = vectors[Kind(MODEL, "mean+max")][:, 32:]
    assert most == close(grid.max(axis=(1, 2)))
    cls = pretrained.extract(recording, "utterance", layer="all").x  # [2, 4, 32]
    assert vectors[Kind(MODEL, "cls")] == close(cls.mean(axis=1))


def test_vectors__of_random_weights_are_those_of_an_untrained_model(pretrained, recording, vectors):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    untrained = with_random_weights(pretrained, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    grid = untrained.extract(recording, "grid", layer="all").x
    assert vectors[Kind(RANDOM, "mean")] == close(grid.mean(axis=(1, 2)))
    assert not np.allclose(vectors[Kind(RANDOM, "mean")], vectors[Kind(MODEL, "mean")], atol=0.01)
    others = read(pretrained, [recording], seed=1)[0]
    assert not np.allclose(others[Kind(RANDOM, "mean")], vectors[Kind(RANDOM, "mean")], atol=0.01)
    assert np.array_equal(others[Kind(MODEL, "mean")], vectors[Kind(MODEL, "mean")])


def test_vectors__of_log_mel_are_without_padding(pretrained, recording, vectors):
    front_end = pretrained.front_end
    parts = [read_energies(recording, front_end, start) for start in (0, 128, 256, 384)]
    frames = (torch.cat(parts).numpy() + 5.0) / (2 * 4.569)
    assert len(frames) == 498
    found = vectors[Kind(BASELINE, "mean, deviation, maximum, change")][0].reshape(4, 128)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=0)
    for row, expected in zip(found, (frames.mean(0), frames.std(0), frames.max(0), change)):
        assert row == close(expected)


def test_vectors__do_not_depend_on_batches_or_other_clips(pretrained, recording, tmp_path, vectors):
    short = tmp_path / "short.wav"
    soundfile.write(short, np.random.default_rng(1).normal(0, 0.1, 4_000), 16_000)
    found = read(pretrained, [short, recording, short], batch_size=4)
    assert sorted(found) == [0, 1, 2]
    for kind, x in vectors.items():
        assert found[1][kind] == close(x)
        assert found[0][kind] == close(found[2][kind])


@pytest.mark.parametrize(("layer", "names"), [(1, [1]), (-1, [2]), ("mean", ["mean"])])
def test_layer__is_one_of_those_of_features(pretrained, recording, vectors, layer, names):
    reader = VectorReader(pretrained, layer)
    assert reader.layers == names
    found = read(pretrained, [recording], layer)[0][Kind(MODEL, "mean")]
    every = vectors[Kind(MODEL, "mean")]
    expected = every.mean(axis=0) if layer == "mean" else every[names[0] - 1]
    assert found == close(expected[None])


def test_layers__are_all_by_default_and_refused_if_unknown(pretrained):
    assert VectorReader(pretrained).layers == [1, 2]
    with pytest.raises(ValueError, match="layer is 3; choose 1 to 2"):
        VectorReader(pretrained, 3)


def test_classifier__its_encoder_is_read(classifier, recording):
    found = read(classifier, [recording])[0]
    grid = classifier.extract(recording, "grid", layer="all").x
    assert found[Kind(MODEL, "mean")] == close(grid.mean(axis=(1, 2)))


@pytest.fixture
def with_tokens(make_checkpoint, golden):
    """Load a model with another number of extra tokens."""
    micro = json.loads((golden / "pretraining_micro.json").read_text())["model"]

    def make(number):
        image = {**micro["modalities"]["image"], "num_extra_tokens": number}
        changes = {"model_modalities": {"image": image}, "model_cls_loss": 0}
        return load_checkpoint(make_checkpoint("pretraining", **changes))

    return make


def test_model_without_cls__has_no_such_vector(with_tokens, recording):
    found = read(with_tokens(0), [recording])[0]
    of_model = [kind.pooling for kind in found if kind.source == MODEL]
    assert of_model == [name for name in POOLINGS if name != "cls"]


def test_cls__is_the_last_extra_token(with_tokens, recording):
    loaded = with_tokens(2)
    cls = loaded.extract(recording, "utterance", layer="all").x
    assert read(loaded, [recording])[0][Kind(MODEL, "cls")] == close(cls.mean(axis=1))


def test_clips_of_their_own_length__share_no_batch(make_checkpoint, recording, tmp_path):
    loaded = load_checkpoint(make_checkpoint("pretraining", task_length="mask"))
    short = tmp_path / "short.wav"
    soundfile.write(short, np.random.default_rng(1).normal(0, 0.1, 4_000), 16_000)
    found = read(loaded, [short, recording, short], batch_size=8)
    for number, path in enumerate([short, recording, short]):
        grid = loaded.extract(path, "grid", layer="all").x
        assert found[number][Kind(MODEL, "mean")] == close(grid.mean(axis=(1, 2)))


def test_unusable_clips__give_the_reason_and_no_others(pretrained, recording, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "tiny.wav", np.zeros(3), 16_000)
    samples = np.random.default_rng(0).normal(0, 0.1, 64_000)
    soundfile.write(tmp_path / "long.flac", samples, 16_000)
    whole = (tmp_path / "long.flac").read_bytes()
    (tmp_path / "half.flac").write_bytes(whole[: len(whole) // 2])
    names = ["text.wav", recording.name, "tiny.wav", "half.flac", "long.flac"]
    paths = [recording if name == recording.name else tmp_path / name for name in names]
    found = read(pretrained, paths, batch_size=2)
    assert len(found) == 5
    broken = [number for number, each in found.items() if isinstance(each, ClipError)]
    assert sorted(broken) == [0, 2, 3]
    alone = read(pretrained, [recording])[0]
    assert found[1][Kind(MODEL, "mean")] == close(alone[Kind(MODEL, "mean")])


def test_weights_that_are_not_finite__are_an_error(make_checkpoint, recording):
    loaded = load_checkpoint(make_checkpoint("pretraining"))
    with torch.no_grad():
        next(loaded.encoder.blocks[1].parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="features that are not finite; check its weights"):
        read(loaded, [recording])
