"""Options of single parameters, as attributes that fairseq's and our optimizer read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from .classifier_config import EatClassifierConfig
    from .encoder import EatEncoder


def set_param_groups(model: nn.Module, decoder_group: bool = False) -> None:
    """Give biases and other one-dimensional parameters a weight decay scale of 0.

    fairseq's ``composite`` optimizer never applies it; ``eat_adamw`` does with
    ``apply_weight_decay_scale``. ``decoder_group`` puts the decoder into parameter group
    ``decoder``.
    """
    for name, parameter in model.named_parameters():
        marked: Any = parameter
        if parameter.ndim == 1 or name.endswith(".bias"):
            marked.optim_overrides = {"optimizer": {"weight_decay_scale": 0}}
        if decoder_group and "decoder" in name:
            marked.param_group = "decoder"


def set_finetuning_groups(encoder: EatEncoder, cfg: EatClassifierConfig) -> None:
    """Scale learning rates of block i of n by ``layer_decay ** (n - i)`` (Clark et al. 2020, BEiT).

    Parameters before the blocks have the full rate, as published, or with
    ``layer_decay_embeddings`` the scale ``layer_decay ** (n + 1)``. Call ``set_param_groups``
    first.
    """
    decay, number = cfg.layer_decay, len(encoder.blocks)
    decays = 0 < decay < 1
    parameter: Any
    for parameter in encoder.parameters():
        # All have options, maybe empty: fairseq's optimizer names its groups after them.
        if not hasattr(parameter, "optim_overrides"):
            parameter.optim_overrides = {"optimizer": {}}
        if decays and cfg.layer_decay_embeddings:
            parameter.optim_overrides["optimizer"]["lr_scale"] = decay ** (number + 1)
    for index, block in enumerate(encoder.blocks if decays else ()):
        for parameter in block.parameters():
            if not cfg.no_decay_blocks:
                parameter.optim_overrides["optimizer"].clear()
            parameter.optim_overrides["optimizer"]["lr_scale"] = decay ** (number - index)
