"""Per-parameter options of the optimizer, as attributes that fairseq's and our optimizer read."""

from __future__ import annotations

from torch import nn


def set_param_groups(model: nn.Module, decoder_group: bool = False) -> None:
    """Mark parameters for the optimizer.

    Biases and other one-dimensional parameters get ``optim_overrides`` with a weight decay scale of
    0. The published code marks them so, though fairseq's ``composite`` optimizer never applies it;
    ``eat_adamw`` does where ``apply_weight_decay_scale`` is set.

    Args:
        model: the model to mark.
        decoder_group: put the decoder's parameters in the parameter group ``decoder``.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.endswith(".bias"):
            overrides = {"optimizer": {"weight_decay_scale": 0}}
            parameter.optim_overrides = overrides  # type: ignore[attr-defined]
        if decoder_group and "decoder" in name:
            parameter.param_group = "decoder"  # type: ignore[attr-defined]
