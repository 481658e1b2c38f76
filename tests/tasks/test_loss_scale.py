"""The loss scale that float16 starts with."""

import pytest
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from eat_plugin.tasks.loss_scale import count_hidden_patches, fit_loss_scale
from eat_plugin.tasks.run_config import RunConfig

IMAGE = {"patch_size": 16, "mask_prob": 0.8}


def fitted(clips=12, frames=1024, update_freq=1, task=(), **common):
    cfg = OmegaConf.create({
        "common": {"fp16": True, "fp16_init_scale": 128, "min_loss_scale": 1e-6, **common},
        "dataset": {"batch_size": clips}, "optimization": {"update_freq": [update_freq]},
        "model": {"clone_batch": 16, "modalities": {"image": IMAGE}},
        "task": {"target_length": frames, **dict(task)},
    })  # fmt: skip
    fit_loss_scale(RunConfig(cfg.task))
    return cfg.common.fp16_init_scale


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2**-9),  # 128 / 2**16 for 78,643 patches; on an H100 2**-8 was the first to fit
        ({"clips": 48}, 2**-11),
        ({"update_freq": 4}, 2**-11),
        ({"task": {"images": {"size": [32, 32]}}, "clips": 1}, 2**2),
        ({"min_loss_scale": 0.01}, 0.02),
        ({"fp16": False, "amp": True}, 2**-9),
    ],
)
def test_fit_loss_scale__fits_a_sum_over_hidden_patches(options, expected):
    assert fitted(**options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"fp16_init_scale": 64}, 64), ({"fp16": False}, 128), ({"cpu": True}, 128),
     ({"clips": None}, 128)],
)  # fmt: skip
def test_fit_loss_scale__leaves_others(options, expected):
    assert fitted(**options) == expected


def test_task__starts_with_a_fitting_scale(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # float16 is refused without
    flags = [
        str(tmp_path), "--task", "eat_pretraining", "--arch", "eat_base", "--criterion",
        "eat_pretraining", "--optimizer", "eat_adamw", "--lr-scheduler", "cosine", "--lr", "0.1",
        "--max-update", "9", "--batch-size", "12", "--fp16", "--memory-efficient-fp16",
        "--save-dir", str(tmp_path), "--distributed-world-size", "1",
    ]  # fmt: skip
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, input_args=flags))
    tasks.setup_task(cfg.task)
    assert cfg.common.fp16_init_scale == 2**-9


def test_count_hidden_patches__two_sides():
    def count(patch_size):
        image = {"patch_size": patch_size, "mask_prob": 0.5}
        run = {
            "task": {"target_length": 64}, "dataset": {"batch_size": 2},
            "model": {"clone_batch": 3, "modalities": {"image": image}},
        }  # fmt: skip
        return count_hidden_patches(RunConfig(OmegaConf.create(run).task))

    assert count([4, 128]) == 2 * 3 * 16 // 2
    assert count([8, 32]) == 2 * 3 * 8 * 4 // 2
    assert count([16, 16]) == count(16) == 2 * 3 * 4 * 8 // 2
