"""Published flags are translated, and refused where they have no implementation."""

import pytest
from omegaconf import OmegaConf

from eat_plugin.tasks.published import (
    UNIMPLEMENTED,
    MaeImagePretrainingConfig,
    translate_pretraining,
)


def make(**options):
    cfg = OmegaConf.structured(MaeImagePretrainingConfig(data="/data", seed=1))
    return OmegaConf.merge(cfg, {"audio_mae": True, "key": "source", **options})


@pytest.mark.parametrize(
    ("flags", "statistics"),
    [
        ({}, (-4.268, 4.569)),
        ({"esc50_eval": True}, (-6.627, 5.359)),
        ({"spcv2_eval": True}, (-6.846, 5.565)),
    ],
)
def test_translate__statistics_follow_the_flags(flags, statistics):
    cfg = translate_pretraining(make(**flags, target_length=512, flexible_mask=True))
    assert (cfg.norm_mean, cfg.norm_std) == statistics
    assert (cfg.target_length, cfg.flexible_mask, cfg.crop) == (512, True, "start")


@pytest.mark.parametrize("name", UNIMPLEMENTED)
def test_translate__names_an_option_without_implementation(name):
    value = {"multi_data": ["a"], "local_cache_path": "/x", "dataset_type": "path"}.get(name)
    if value is None:
        value = 0.5 if name == "subsample" else not UNIMPLEMENTED[name]
    with pytest.raises(ValueError, match=rf"task\.{name} is .*not implemented"):
        translate_pretraining(make(**{name: value}))


def test_translate__refuses_another_input_name():
    with pytest.raises(ValueError, match="task.key is 'imgs'"):
        translate_pretraining(make(key="imgs"))
