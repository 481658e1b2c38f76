"""Published flags are translated or refused; runs by published names resume."""

import pytest
import torch
from fairseq.tasks import TASK_DATACLASS_REGISTRY, setup_task
from omegaconf import OmegaConf

from eat_plugin.tasks.published import (
    UNIMPLEMENTED,
    MaeImagePretrainingConfig,
    translate_pretraining,
)
from tests.versions import half_on_cpu


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
def test_translate__statistics_match_the_flags(flags, statistics):
    cfg = translate_pretraining(make(**flags, target_length=512, flexible_mask=True))
    assert (cfg.norm_mean, cfg.norm_std) == statistics
    assert (cfg.target_length, cfg.flexible_mask, cfg.crop) == (512, True, "start")


@pytest.mark.parametrize("name", UNIMPLEMENTED)
def test_translate__unimplemented_option_is_named(name):
    value = {"multi_data": ["a"], "local_cache_path": "/x", "dataset_type": "path"}.get(name)
    if value is None:
        value = 0.5 if name == "subsample" else not UNIMPLEMENTED[name]
    with pytest.raises(ValueError, match=rf"task\.{name} is .*not implemented"):
        translate_pretraining(make(**{name: value}))


def test_translate__another_input_name_is_refused():
    with pytest.raises(ValueError, match="task.key is 'imgs'"):
        translate_pretraining(make(key="imgs"))


PRETRAINING, CLASSIFICATION = "mae_image_pretraining", "mae_image_classification"


@pytest.fixture
def set_up(tmp_path):
    """Set up a task whose checkpoint has another precision mode and other classes."""
    saved = {
        "cfg": {"task": {}},
        "task_state": {"labels": {"cat": "0"}},
        "optimizer_history": [{"optimizer_name": "FP16Optimizer"}],
    }
    torch.save(saved, tmp_path / "checkpoint_last.pt")
    (tmp_path / "train.tsv").write_text(f"{tmp_path}\ndog.wav\t16000\n")
    (tmp_path / "train.lbl").write_text("dog.wav\tdog\n")
    (tmp_path / "label_descriptors.csv").write_text("0,dog,Dog\n")

    def make(name, efficient=False, **kwargs):
        schema = OmegaConf.structured(TASK_DATACLASS_REGISTRY[name]())
        key = {PRETRAINING: "source", CLASSIFICATION: "imgs"}[name]
        task = {"_name": name, "data": str(tmp_path), "audio_mae": True, "key": key}
        cfg = {
            "common": {"cpu": True, "fp16": True, "memory_efficient_fp16": efficient, "seed": 1},
            "optimizer": {"_name": "composite"},
            "checkpoint": {"save_dir": str(tmp_path), "restore_file": "checkpoint_last.pt"},
            "task": OmegaConf.merge(schema, task),
        }
        return setup_task(OmegaConf.create(cfg).task, **kwargs)

    return make


@half_on_cpu
@pytest.mark.parametrize("name", [PRETRAINING, CLASSIFICATION])
def test_task__refuses_to_resume_in_the_other_mode(set_up, name):
    with pytest.raises(ValueError, match=r"checkpoint_last\.pt was saved with .*_fp16=false"):
        set_up(name, efficient=True)
    assert set_up(name).resumed.optimizer == "FP16Optimizer"


@half_on_cpu
def test_task__refuses_to_resume_with_other_classes(set_up):
    with pytest.raises(ValueError, match="label_descriptors.csv differ from those of"):
        set_up(CLASSIFICATION).build_model(OmegaConf.create({}))


@pytest.mark.parametrize("name", [PRETRAINING, CLASSIFICATION])
def test_task__for_a_checkpoint_does_not_resume(set_up, name, caplog):
    task = set_up(name, efficient=True, from_checkpoint=True)
    assert task.resumed is None
    task.load_dataset("train")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
