"""A custom mask strategy, from YAML to the masks of the workers."""

import numpy as np
import pytest
import soundfile
import torch
from fairseq.dataclass.initialize import add_defaults
from fairseq.tasks import setup_task
from torch.utils.data import DataLoader

from eat_plugin import masking
from tests.composing import compose


def draw_last(spec, num_masks, generator):
    """Hide all but the last patches."""
    masks = torch.ones(num_masks, spec.num_patches, dtype=torch.uint8)
    masks[:, -spec.num_visible :] = 0
    return masks


@pytest.fixture
def data(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.random.default_rng(0).normal(size=21_000), 16_000)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\nclip.wav\t21000\n")
    return tmp_path


def masks_of(data, *overrides):
    overrides = [
        f"task.data={data}",
        "common.user_dir=x",
        "common.cpu=true",
        "common.fp16=false",
        "task.target_length=128",
        "model.modalities.image.patch_size=16",
        *overrides,
    ]
    cfg = compose("pretrain", ["size=tiny", *overrides])
    add_defaults(cfg)
    task = setup_task(cfg.task)
    task.load_dataset("train")
    dataset = task.dataset("train")
    loader = DataLoader(dataset, collate_fn=dataset.collater, num_workers=1)
    return next(iter(loader))["net_input"]["precomputed_mask"]


def test_mask_strategy__workers_use_the_models(data, monkeypatch):
    monkeypatch.setitem(masking.STRATEGIES, "last", draw_last)
    masks = masks_of(data, "+model.modalities.image.mask_strategy=last")
    assert masks.shape == (8, 64)  # clones of tiny
    assert torch.equal(masks, draw_last(masking.MaskSpec((8, 8), 0.8), 8, None))


def test_mask_strategy__null_uses_the_published_options(data):
    usual = masks_of(data)
    assert torch.equal(masks_of(data, "+model.modalities.image.mask_strategy=null"), usual)
    named = masks_of(data, "+model.modalities.image.mask_strategy=inverse_block")
    assert torch.equal(named, usual)
    assert not torch.equal(masks_of(data, "+task.flexible_mask=true"), usual)


def test_mask_strategy__error_names_the_choices(data):
    with pytest.raises(ValueError, match="'last'; choose one of inverse_block, block, random"):
        masks_of(data, "+model.modalities.image.mask_strategy=last")
