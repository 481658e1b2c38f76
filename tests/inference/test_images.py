"""A model of images; models of sound are tested in the other files."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import locate
from eat_plugin.images.image_reader import ImageFrontEnd
from eat_plugin.inference.batches import Job, read_ahead
from eat_plugin.inference.images import LoadedImages


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((20, 30, 3), 128, dtype=np.uint8)).save(path)
    return path


def model_of(**options):
    encoder = SimpleNamespace(patch_encoder=SimpleNamespace(cfg=SimpleNamespace(patch_size=16)))
    images = ImageFrontEnd(**options)
    return LoadedImages("a.pt", None, encoder, None, images, None, False, None)


def test_probe__refuses_too_many_pixels_by_the_header(picture):
    assert model_of(max_pixels=600).probe(picture) == (600, 0)
    with pytest.raises(ClipError, match="600"):
        model_of(max_pixels=599).probe(picture)


def test_samples__are_refused_with_the_reason():
    model, samples = model_of(), (np.zeros(16_000, dtype=np.float32), 16_000)
    reason = "^the clip: cannot be used: the model takes paths of images"
    with pytest.raises(ValueError, match=reason):
        model.image(samples)
    with pytest.raises(ClipError, match="the model takes paths"):
        model.probe(samples)


def test_read_job__refuses_an_image_of_another_size(picture):
    model, entry = model_of(size=(32, 48)), locate(picture)
    windowing = model.windowing()
    jobs = [Job(n, 0, entry._replace(size=size)) for n, size in enumerate((None, 600, 601))]
    (batch,) = read_ahead(jobs, lambda job: model.read_job(job, windowing), batch_size=3)
    assert [job for job, _ in batch] == jobs
    assert [found.shape for _, found in batch[:2]] == [(3, 32, 48)] * 2
    assert isinstance(batch[2][1], ClipError)
