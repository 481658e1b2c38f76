"""The input of a checkpoint's model: the same as fairseq's task makes."""

import pytest
from fairseq.tasks import TASK_DATACLASS_REGISTRY, setup_task
from omegaconf import OmegaConf

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.inputs.tasks import TASKS, read_input

BINS = {"norm": "bins", "norm_mean": [-5.0] * 128, "norm_std": [3.0] * 128}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("eat_pretraining", {}, FrontEnd(1024, -4.268, 4.569)),
        ("eat_pretraining", {"norm_mean": -5, "norm_std": 3.5}, FrontEnd(1024, -5.0, 3.5)),
        ("eat_classification", BINS, FrontEnd(1024, (-5.0,) * 128, (3.0,) * 128)),
        (
            "eat_classification",
            {"length": "mask", "patch_size": [4, 128], "pad_value": "silence", "channels": "first"},
            FrontEnd(1024, -4.268, 4.569, "silence", 4, "first", 128),
        ),
        ("mae_image_pretraining", {"key": "source"}, FrontEnd(1024, -4.268, 4.569)),
        (
            "mae_image_classification",
            {"esc50_eval": True, "target_length": 512},
            FrontEnd(512, -6.627, 5.359),
        ),
        ("mae_image_classification", {"spcv2_eval": True}, FrontEnd(1024, -6.846, 5.565)),
    ],
)
def test_read_input__as_the_task_of_fairseq(name, options, expected):
    task = {"_name": name, "data": "/nowhere", **options}
    model = {"modalities": {"image": {"patch_size": 16}}}
    found = read_input({"task": {**task, "from_an_older_version": 1}, "model": model})
    assert found == (expected, None)
    schema = OmegaConf.structured(TASK_DATACLASS_REGISTRY[name]())
    cfg = OmegaConf.create({"common": {"seed": 1}, "model": model})
    cfg.task = OmegaConf.merge(schema, task)
    assert setup_task(cfg.task, from_checkpoint=True).front_end == expected


def test_read_input__patches_follow_the_model():
    model = {"modalities": {"image": {"patch_size": [8, 32]}}}
    task = {"_name": "eat_pretraining", "length": "mask"}
    front_end = read_input({"task": task, "model": model}).front_end
    assert (front_end.patch, front_end.patch_bins) == (8, 32)


def test_read_input__of_images():
    task = {"_name": "eat_pretraining", "images": {"size": [32, 48], "flip": 0}}
    images = read_input({"task": task, "model": {}}).images
    assert (images.size, images.flip, images.channels) == ((32, 48), 0.0, 3)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"_name": "eat_pretraining", "length": "long"}, "task.length is 'long'; choose one of"),
        ({"_name": "eat_pretraining", "norm": "none"}, "task.norm is 'none'; choose one of"),
        ({"_name": "eat_pretraining", "norm": "bins"}, "task.norm_mean is one number, but task.n"),
        ({"_name": "eat_pretraining", "target_length": "x"}, "task.target_length is 'x'; it must"),
        ({"_name": "mae_image_pretraining"}, "task.key is 'imgs'; pre-training takes its input as"),
    ],
)
def test_read_input__names_what_is_wrong(task, message):
    with pytest.raises(ValueError, match=message):
        read_input({"task": task, "model": {}})


def test_tasks__are_the_registered_ones():
    from eat_plugin.registration import NAMES

    assert set(TASKS) == set(NAMES["task"])
