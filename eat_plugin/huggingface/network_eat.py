"""The network of a folder, by the names of its weights. It needs PyTorch and NumPy alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models.encoder import EatEncoder
from ..models.patch_encoder import prepend
from ..models.pooling import PredictionMode, pool, pooled_width
from ..modules.patches import mean_patches

# Options in config.json that published folders have, too -> their published defaults.
PUBLISHED: dict[str, Any] = {
    "embed_dim": 768, "depth": 12, "num_heads": 12, "patch_size": 16, "stride": 16, "in_chans": 1,
    "mel_bins": 128, "max_length": 768, "num_classes": 527, "model_variant": "pretrain",
    "mlp_ratio": 4.0, "qkv_bias": True, "drop_rate": 0.0, "attn_drop_rate": 0.0,
    "activation_dropout": 0.0, "post_mlp_drop": 0.0, "start_drop_path_rate": 0.0,
    "end_drop_path_rate": 0.0, "layer_norm_first": False, "norm_eps": 1e-6, "norm_affine": True,
    "fixed_positions": True, "img_size": (1024, 128),
}  # fmt: skip
# Further options -> the values that a published folder implies.
DEFAULTS: dict[str, Any] = {
    **PUBLISHED,
    "num_extra_tokens": 1,  # before the patches; the last one is CLS
    "patch_embed_dim": None,  # width of the patch embedding, if it has another one
    "mel_by_time": False,  # the input is [B, 1, mel, time]
    "positions": "grid",  # order of the table, of a folder without one
    "attention_gate": False,
    "pooling": "CLS_TOKEN",
    "segments": 8,  # of the pooling SEGMENT_POOLING
    "use_fc_norm": True,
}
FINE_TUNED = "finetune"  # value of model_variant


def network_options(config: Any) -> Any:
    """Return the options of ``EatEncoder`` for a configuration with the ``DEFAULTS``."""
    image = SimpleNamespace(
        embed_dim=config.patch_embed_dim or config.embed_dim, in_chans=config.in_chans,
        patch_size=config.patch_size, max_length=config.max_length, image_size=None,
        num_extra_tokens=config.num_extra_tokens, init_extra_token_zero=False,
        fixed_positions=config.fixed_positions, mel_by_time=config.mel_by_time,
        positions=config.positions, extra_token_std=1.0, prenet_dropout=0.0, local_grad_mult=1.0,
    )  # fmt: skip
    return SimpleNamespace(
        embed_dim=config.embed_dim, depth=config.depth, num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio, attention_gate=config.attention_gate,
        layer_norm_first=config.layer_norm_first,
        norm_eps=config.norm_eps, norm_affine=config.norm_affine,
        start_drop_path_rate=config.start_drop_path_rate,
        end_drop_path_rate=config.end_drop_path_rate, encoder_dropout=config.drop_rate,
        attention_dropout=config.attn_drop_rate, activation_dropout=config.activation_dropout,
        post_mlp_drop=config.post_mlp_drop, dropout_input=0.0, layerdrop=0.0, mae_init=False,
        end_of_block_targets=False, recompute="none", compile=False,
        modalities=SimpleNamespace(image=image),
    )  # fmt: skip


class NetworkOutput(NamedTuple):
    """What the network computes of a batch.

    Attributes:
        states: the tokens [B, E + L, D] that enter the blocks, then the output of each block.
        pooled: [B, D], the CLS token, or the mean over patches in a model without one.
        logits: [B, classes]; None without a classifier.
    """

    states: tuple[Tensor, ...]
    pooled: Tensor
    logits: Tensor | None


class EATNetwork(nn.Module):
    """Encoder, and classifier if there are classes.

    Args:
        config: has the ``DEFAULTS`` as attributes.
        num_classes: number of classes; 0 for an encoder alone.
    """

    def __init__(self, config: Any, num_classes: int = 0) -> None:
        super().__init__()
        encoder = EatEncoder(network_options(config))
        patches = encoder.patch_encoder
        self.extra_tokens, patches.extra_tokens = patches.extra_tokens, None
        self.local_encoder = patches.local_encoder
        self.fixed_positional_encoder = patches.fixed_positional_encoder
        if self.fixed_positional_encoder is not None:
            _make_buffer(self.fixed_positional_encoder, "positions")
        self.pre_norm, self.pos_drop = patches.context_encoder.norm, patches.context_encoder.dropout
        self.blocks, self.norm = encoder.blocks, encoder.norm
        # In a tuple it is not registered: its parts are, above, by the names in a folder.
        self._encoder = (encoder,)
        self.pooling, self.segments = PredictionMode[config.pooling], config.segments
        if num_classes:
            width = pooled_width(config.embed_dim, self.pooling, config.segments)
            self.fc_norm = nn.LayerNorm(width, eps=1e-6) if config.use_fc_norm else None
            self.head = nn.Linear(width, num_classes)
        self.has_classes = num_classes > 0

    def forward(self, source: Tensor, attention_mask: Tensor | None = None) -> NetworkOutput:
        """Encode clips, and classify them.

        Args:
            source: spectrograms [B, 1, T, F], time before mel, of any floating-point type.
            attention_mask: [B, T], not 0 for the frames of each clip; the others are padding, and
                have no effect. A patch with a frame of the clip belongs to it. None if all frames
                belong to the clips.

        Raises:
            ValueError: the source does not fit the model, or the mask the source.
        """
        (encoder,) = self._encoder
        patches = encoder.patch_encoder
        source = encoder.time_major(source.to(next(self.parameters()).dtype))
        grid = patches.grid_of(source)
        padding = None
        if attention_mask is not None:
            padding = _patch_padding(attention_mask, source, grid)
        source, padding = patches.prepare(source, padding)
        x = patches.contextualize(prepend(self.extra_tokens, patches.embed(source)))
        states = (x, *encoder.run_each(x, encoder.token_padding(padding)))
        x, extra = states[-1], encoder.num_extra_tokens
        pooled = x[:, extra - 1] if extra else mean_patches(x, padding)
        logits = None
        if self.has_classes:
            vector = pool(x, self.pooling, extra, grid, padding, self.segments)
            logits = self.head(vector if self.fc_norm is None else self.fc_norm(vector))
        return NetworkOutput(states, pooled, logits)


def _make_buffer(module: nn.Module, name: str) -> None:
    """Turn a parameter into a buffer: transformers 5 trains all parameters that it loads."""
    value = getattr(module, name).detach()
    delattr(module, name)
    module.register_buffer(name, value)


def _patch_padding(attention_mask: Tensor, source: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the padding of patches, bool [B, L]."""
    expected = (source.size(0), source.size(2))
    if tuple(attention_mask.shape) != expected:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; expected {expected}: clips, "
            "frames"
        )
    own = attention_mask.bool().unflatten(1, (grid[0], -1)).any(dim=2)  # [B, T / p]
    return torch.logical_not(own).repeat_interleave(grid[1], dim=1)
