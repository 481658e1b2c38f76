"""Fixtures of the whole suite."""

import itertools
import json
import os
from pathlib import Path

import pytest

import tests.hydra_store  # noqa: F401, faster compositions

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden numbers; see its README."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large test files, $EAT_SHARED; without it the test is skipped."""
    folder = Path(os.path.abspath(ROOT / os.environ.get("EAT_SHARED", "../shared")))
    if not folder.is_dir():
        pytest.skip(f"EAT_SHARED not found at {folder}")
    return folder


@pytest.fixture
def recordings(monkeypatch):
    """Let CPUs have CUDA graphs; the list of those that are made, see ``recording.Recording``."""
    from tests.recording import allow_on_cpu

    return allow_on_cpu(monkeypatch)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory, golden):
    """Save a tiny model as fairseq would: ``make_checkpoint("classification", **changes)``.

    The kinds are ``pretraining`` and ``classification``: width 32, two blocks, windows of 128
    frames, the classes dog, rain and clock. ``task_NAME`` and ``model_NAME`` change options.
    """
    import torch
    from fairseq.models import MODEL_DATACLASS_REGISTRY
    from fairseq.tasks import TASK_DATACLASS_REGISTRY, setup_task
    from omegaconf import OmegaConf

    import eat_plugin  # noqa: F401, fills fairseq's registries

    folder, numbers = tmp_path_factory.mktemp("checkpoints"), itertools.count()
    micro = json.loads((golden / "pretraining_micro.json").read_text())["model"]
    models = {"pretraining": "eat", "classification": "eat_classifier"}

    def make(kind, **changes):
        options = {"task": {"_name": f"eat_{kind}"}, "model": {**micro, "_name": models[kind]}}
        options["task"].update(data="/nowhere", target_length=128)
        if kind == "classification":
            options["model"].update(model_path=None, num_classes=3, drop_path_rate=0.1)
        for name, value in changes.items():
            part, _, option = name.partition("_")
            options[part][option] = value
        cfg = OmegaConf.create(
            {
                "common": {"seed": 1, "user_dir": "/home/somebody/eat_plugin"},
                "optimization": {"max_update": 8, "lr": [0.0005]},
                "optimizer": {
                    "_name": "eat_adamw", "adam_betas": [0.9, 0.95], "adam_eps": 1e-8,
                    "weight_decay": 0.05,
                },
                "lr_scheduler": {"_name": "cosine", "warmup_updates": 2},
                "criterion": {"_name": f"eat_{kind}"},
            }
        )  # fmt: skip
        for part, registry in (
            ("task", TASK_DATACLASS_REGISTRY),
            ("model", MODEL_DATACLASS_REGISTRY),
        ):
            schema = OmegaConf.structured(registry[options[part]["_name"]]())
            cfg[part] = OmegaConf.merge(schema, options[part])
        task = setup_task(cfg.task)
        if kind == "classification":
            names = ["A dog", "The rain", "A clock"]
            labels = {"dog": "0", "rain": "1", "clock": "2"}
            task.state.merge_state_dict({"labels": labels, "label_names": names})
        torch.manual_seed(0)
        model = task.build_model(cfg.model)
        if kind == "classification":
            torch.nn.init.normal_(model.head.weight)  # scores that differ between clips
        path = folder / f"{next(numbers)}.pt"
        torch.save(
            {
                "args": None,
                "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
                "model": model.state_dict(),
                "criterion": None,
                "optimizer_history": [{"num_updates": 8}],
                "task_state": task.state_dict(),
                "extra_state": {},
                "last_optimizer_state": {"state": torch.ones(3)},
            },
            path,
        )
        return path

    return make
