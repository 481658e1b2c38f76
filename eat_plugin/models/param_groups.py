"""Options of single parameters, as attributes that fairseq's and our optimizer read."""

from __future__ import annotations

from torch import nn


def set_param_groups(model: nn.Module, decoder_group: bool = False) -> None:
    """Mark parameters for the optimizer.

    Biases and other one-dimensional parameters get a weight decay scale of 0. fairseq's
    ``composite`` optimizer never applies it; ``eat_adamw`` does with ``apply_weight_decay_scale``.

    Args:
        model: the model to mark.
        decoder_group: put the decoder into the parameter group ``decoder``.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.endswith(".bias"):
            overrides = {"optimizer": {"weight_decay_scale": 0}}
            parameter.optim_overrides = overrides  # type: ignore[attr-defined]
        if decoder_group and "decoder" in name:
            parameter.param_group = "decoder"  # type: ignore[attr-defined]


def set_finetuning_groups(
    encoder: nn.Module,
    blocks: nn.ModuleList,
    layer_decay: float,
    *,
    decay_embeddings: bool = False,
    keep_block_scales: bool = True,
) -> None:
    """Scale learning rates of block i of n by ``layer_decay ** (n - i)`` (Clark et al. 2020, BEiT).

    As published, parameters before the blocks have the full rate. Call ``set_param_groups`` first.

    Args:
        encoder: the encoder of a classifier.
        blocks: its blocks.
        layer_decay: ratio between neighbouring blocks; 0 or 1 for none.
        decay_embeddings: scale parameters before the blocks by ``layer_decay ** (n + 1)``.
        keep_block_scales: biases and norms of blocks keep their weight decay scale of 0.
    """
    for parameter in encoder.parameters():
        # All have options, maybe empty: fairseq's optimizer names its groups after them.
        overrides = _override(parameter)
        if decay_embeddings and 0 < layer_decay < 1:
            overrides["lr_scale"] = layer_decay ** (len(blocks) + 1)
    if not 0 < layer_decay < 1:
        return
    for number, block in enumerate(blocks):
        for parameter in block.parameters():
            overrides = _override(parameter)
            if not keep_block_scales:
                overrides.clear()
            overrides["lr_scale"] = layer_decay ** (len(blocks) - number)


def _override(parameter: nn.Parameter) -> dict[str, float]:
    """Return the modifiable options of a parameter."""
    if not hasattr(parameter, "optim_overrides"):
        parameter.optim_overrides = {"optimizer": {}}  # type: ignore[attr-defined]
    return parameter.optim_overrides["optimizer"]  # type: ignore[attr-defined]
