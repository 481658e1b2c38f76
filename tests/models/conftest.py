"""Small models for the tests of the models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from eat_plugin.models.classifier import EatClassifier
from eat_plugin.models.classifier_config import EatClassifierConfig
from eat_plugin.models.config import EatConfig
from eat_plugin.models.eat import EatModel

GOLDEN = Path(__file__).parents[1] / "golden"
MICRO = json.loads((GOLDEN / "pretraining_micro.json").read_text())["model"]
MICRO["convolution"] = "channels_last"  # timed on a busy machine, models may differ in their way


def build(options, **changes):
    """Build a model from options; double underscores in names of changes separate sections."""
    cfg = OmegaConf.merge(OmegaConf.structured(EatConfig()), options)
    for name, value in changes.items():
        OmegaConf.update(cfg, name.replace("__", "."), value)
    return EatModel(cfg)


@pytest.fixture
def make_model():
    """Build a micro model (width 32, depth 2, 3 clones, 64 patches) with some options changed."""

    def make(**changes):
        torch.manual_seed(0)
        return build(MICRO, **changes).double()

    return make


@pytest.fixture
def batch():
    """Two clips and six masks of 12 visible patches."""
    golden = np.load(GOLDEN / "pretraining_micro.npz")
    return {
        "source": torch.from_numpy(golden["batch/source"]).double(),
        "precomputed_mask": torch.from_numpy(golden["batch/precomputed_mask"]),
    }


@pytest.fixture
def make_classifier():
    """Build a classifier on a micro encoder, with some options changed; float64 by default."""

    def make(double=True, **changes):
        torch.manual_seed(0)
        options = {
            "num_classes": 3, "single_label": False, "target_length": 128, "drop_path_rate": 0,
            "model_path": None,
        }  # fmt: skip
        schema = OmegaConf.structured(EatClassifierConfig())
        model = EatClassifier(OmegaConf.merge(schema, MICRO, options, changes))
        return model.double() if double else model

    return make
