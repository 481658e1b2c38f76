"""Architectures for ``fairseq-train --arch``: the models of the packaged configurations, by size.

``eat_tiny``, ``eat_small``, ``eat_base`` and ``eat_large`` have those of ``config/pretrain.yaml``,
``eat_classifier_tiny`` and so on those of ``config/finetune.yaml``; flags replace them.
"""

from argparse import Namespace
from functools import partial
from typing import Any

from fairseq.models import register_model_architecture
from omegaconf import OmegaConf

from ..choices import ARCHITECTURES, CONFIG_DIR
from ..flags import Default, merge
from ..options import require
from . import models  # noqa: F401, fairseq needs them first

CONFIGURATIONS = {"eat": "pretrain", "eat_classifier": "finetune"}


def read_architecture(model: str, size: str) -> dict[str, Any]:
    """Return the options of a model in the packaged configurations, with their interpolations."""
    paths = [CONFIG_DIR / f"{CONFIGURATIONS[model]}.yaml", CONFIG_DIR / "size" / f"{size}.yaml"]
    merged = OmegaConf.merge(*(OmegaConf.load(path).model for path in paths))
    options: dict[str, Any] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    return options


def complete(args: Namespace, model: str, size: str) -> None:
    """Set the options of an architecture where no flag was given; fairseq calls this.

    Raises:
        ValueError: checkpoints would be written asynchronously. Without the package iopath fairseq
            then trains nothing and exits with 0.
    """
    name = "write_checkpoints_asynchronously"
    require(not getattr(args, name, False), name, True, "leave it out")
    for name, value in read_architecture(model, size).items():
        if isinstance(value, dict):
            setattr(args, name, merge(value, getattr(args, name)))
        elif isinstance(getattr(args, name, Default()), Default):
            setattr(args, name, value)
    # The configuration and its checkpoints are then those of fairseq-hydra-train.
    args.arch = model
    # With --bf16 fairseq asks for a TPU.
    args.tpu = False


for _name, (_model, _size) in ARCHITECTURES.items():
    register_model_architecture(_model, _name)(partial(complete, model=_model, size=_size))
