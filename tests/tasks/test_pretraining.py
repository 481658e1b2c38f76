"""The options of pre-training, checked when the data set is built."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from eat_plugin.tasks.pretraining import EatPretrainingTask, MaskConfig, PretrainingConfig

MASKS = {
    "patch_size": 16, "mask_prob": 0.8, "mask_prob_adjust": 0.07, "mask_length": 5,
    "inverse_mask": True, "mask_strategy": None, "mask_dropout": 0.0, "clone_batch": 4,
}  # fmt: skip
NORM = {"norm_mean": -4.0, "norm_std": 4.0}  # null would measure clips


@pytest.fixture
def make_task(tmp_path):
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\nclip.wav\t16000\n")

    def make(masks=None, dataset=None, **options):
        cfg = OmegaConf.structured(PretrainingConfig(data=str(tmp_path), seed=1))
        cfg.precompute_mask_config = OmegaConf.merge(
            OmegaConf.structured(MaskConfig()), {**MASKS, **(masks or {})}
        )
        whole = OmegaConf.create({"dataset": dataset or {}})
        whole.task = OmegaConf.merge(cfg, options)
        return EatPretrainingTask(whole.task)

    return make


@pytest.mark.parametrize(
    ("masks", "options", "strategy"),
    [
        ({}, {}, "inverse_block"),
        ({"inverse_mask": False}, {}, "block"),
        ({"mask_length": 1}, {}, "random"),
        ({}, {"flexible_mask": True}, "flexible"),
    ],
)
def test_masks__match_the_options(make_task, masks, options, strategy):
    task = make_task(masks, target_length=128, **NORM, **options)
    task.load_dataset("train")
    dataset = task.dataset("train")
    assert dataset.masks.strategy == strategy
    assert dataset.masks.grid == (8, 8)
    assert dataset.num_masks == 4


@pytest.mark.parametrize(
    ("patch_size", "grid"), [([4, 128], (32, 1)), ([8, 32], (16, 4)), ([16, 16], (8, 8))]
)
def test_masks__patches_with_two_sides(make_task, patch_size, grid):
    task = make_task({"patch_size": patch_size}, target_length=128, **NORM)
    task.load_dataset("train")
    assert task.dataset("train").masks.grid == grid


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        ({"mask_dropout": 0.2}, {}, "mask_dropout is 0.2; .* not implemented"),
        ({"mask_strategy": "spiral"}, {}, "'spiral'; choose one of inverse_block, block, random"),
        ({"non_overlapping": True}, {}, "non_overlapping is True"),
        ({}, {"target_length": 100}, "task.target_length is 100; .* divisible by patch_size=16"),
        ({"patch_size": [24, 128]}, {}, r"target_length is 1024; .* patch_size=\[24, 128\]"),
        ({"patch_size": [1, 2, 3]}, {}, "task.precompute_mask_config.patch_size is .*; give one"),
        ({}, {"crop": "end"}, "task.crop is 'end'; choose one of start, random"),
    ],
)
def test_load_dataset__invalid_options_are_refused(make_task, masks, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(masks, **options).load_dataset("train")


def test_load_dataset__missing_manifest_is_named(make_task):
    with pytest.raises(ValueError, match=r"valid\.tsv"):
        make_task().load_dataset("valid")


def test_load_dataset__without_validation_needs_no_valid_split(make_task):
    with pytest.raises(ValueError, match=r"valid\.tsv"):
        make_task(dataset={"disable_validation": False}).load_dataset("valid")
    task = make_task(dataset={"disable_validation": True}, target_length=128, **NORM)
    task.load_dataset("valid")  # as fairseq 0.12.2 does
    assert "valid" not in task.datasets
    manifest = Path(task.cfg.data) / "train.tsv"
    manifest.rename(manifest.with_name("valid.tsv"))
    task.load_dataset("valid")
    assert len(task.dataset("valid")) == 1
    with pytest.raises(ValueError, match=r"train\.tsv"):
        task.load_dataset("train")
