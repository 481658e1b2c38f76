"""What a model of images takes; that of sound is tested through ``Loaded``."""

import numpy as np
import pytest
from PIL import Image

from eat_plugin.data.clip import ClipError
from eat_plugin.images.image_reader import ImageFrontEnd
from eat_plugin.inference.inputs import ImageInputs
from eat_plugin.inference.windows import Job


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((20, 30, 3), 128, dtype=np.uint8)).save(path)
    return path


def test_images__too_many_pixels_are_refused_from_the_header(picture):
    assert ImageInputs("a.pt", ImageFrontEnd(max_pixels=600), 16).probe(picture) == (600, 0)
    with pytest.raises(ClipError, match="600"):
        ImageInputs("a.pt", ImageFrontEnd(max_pixels=599), 16).probe(picture)


def test_images__one_that_was_replaced_since_is_refused(picture):
    inputs = ImageInputs("a.pt", ImageFrontEnd(size=(32, 48)), 16)
    windowing = inputs.windowing(None, None)
    jobs = [Job(0, 0, picture), Job(1, 0, picture, 0, 600), Job(2, 0, picture, 0, 601)]
    (batch,) = inputs.batches(jobs, windowing, batch_size=3)
    assert [job for job, _ in batch] == jobs
    assert [found.shape for _, found in batch[:2]] == [(3, 32, 48)] * 2
    assert isinstance(batch[2][1], ClipError)
