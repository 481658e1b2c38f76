"""The encoder of student, teacher and classifier: patches, positions, CLS, blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modules.transformer import TransformerBlock, make_norm
from .patch_encoder import PatchEncoder

if TYPE_CHECKING:
    from .config import EatConfig

MODALITY = "IMAGE"


class EatEncoder(nn.Module):
    """Patch encoder and transformer blocks of a validated configuration, by published names.

    Args:
        cfg: the configuration.
        patches: another patch encoder of the configuration than ``PatchEncoder``.
    """

    def __init__(self, cfg: EatConfig, patches: PatchEncoder | None = None) -> None:
        super().__init__()
        self.cfg = cfg
        self.modality_encoders = nn.ModuleDict({MODALITY: patches or PatchEncoder(cfg)})
        self.dropout_input = nn.Dropout(cfg.dropout_input)
        rates = np.linspace(cfg.start_drop_path_rate, cfg.end_drop_path_rate, cfg.depth)
        self.blocks = nn.ModuleList(TransformerBlock(cfg, float(rate)) for rate in rates)
        self.norm = make_norm(cfg) if cfg.layer_norm_first else None
        self.apply(_init_xavier if cfg.mae_init else init_normal)

    @property
    def patch_encoder(self) -> PatchEncoder:
        """The patch encoder, by the published name of its modality."""
        encoder = self.modality_encoders[MODALITY]
        assert isinstance(encoder, PatchEncoder)
        return encoder

    @property
    def num_extra_tokens(self) -> int:
        """Number of learned tokens before the patches; the last is CLS."""
        return self.patch_encoder.cfg.num_extra_tokens

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the images it takes; None for spectrograms."""
        patches = self.patch_encoder
        size = patches.image_size
        return None if size is None else (patches.cfg.in_chans, *size)

    def compile_evaluation(self) -> None:
        """Compile the blocks in evaluation too, for a teacher, which never trains."""
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            block.compiled_in_evaluation = True

    def time_major(self, source: Tensor) -> Tensor:
        """Return a source as [B, C, T, F], according to ``mel_by_time``."""
        return source.transpose(2, 3) if self.patch_encoder.cfg.mel_by_time else source

    def token_padding(self, padding: Tensor | None) -> Tensor | None:
        """Extend the padding of patches, bool [N, S], by the extra tokens: [N, E + S]."""
        return None if padding is None else F.pad(padding, (self.num_extra_tokens, 0))

    def encode(
        self, source: Tensor, keep_targets: bool = True, padding_mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode whole clips [B, C, T, F] with padding, bool [B, L], from ``PatchEncoder.prepare``.

        Returns:
            Output of the last block [B, E + L, D]; and the target output of each block, of the same
            shape, with ``keep_targets``.
        """
        patches = self.patch_encoder
        x = patches.contextualize(patches.embed(source))
        return self.run_blocks(x, self.token_padding(padding_mask), keep_targets)

    def block_outputs(self, source: Tensor) -> list[Tensor]:
        """Encode whole clips [B, C, T, F]; return the output of each block, [B, E + L, D].

        Raises:
            ValueError: if the source does not fit the model.
        """
        patches = self.patch_encoder
        patches.grid_of(source)
        return self.run_each(patches.contextualize(patches.embed(source)))

    def run_each(self, x: Tensor, padding_mask: Tensor | None = None) -> list[Tensor]:
        """Run the transformer on [N, S, D]; return the output of each block, of the same shape.

        The last one is that of the model, after its norm; the padding is bool [N, S].
        """
        x = self.dropout_input(x)
        outputs = []
        for block in self.blocks:
            x, _ = block(x, padding_mask)
            outputs.append(x)
        if self.norm is not None:
            outputs[-1] = self.norm(x)
        return outputs

    def run_blocks(
        self, x: Tensor, padding_mask: Tensor | None = None, keep_targets: bool = True
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the transformer on [N, S, D]; arguments and result as in ``encode``."""
        x = self.dropout_input(x)
        targets = []
        for block in self.blocks:
            # Drawn from the host's generator, which fairseq seeds alike on every rank: all ranks
            # skip the same blocks.
            if self.training and 0 < self.cfg.layerdrop > float(torch.rand(())):
                if torch.is_grad_enabled():  # other ranks wait for every gradient
                    x = x + 0 * sum(p.flatten()[0] for p in block.parameters())
                continue
            x, target = block(x, padding_mask)
            if keep_targets:
                targets.append(target)
        return x if self.norm is None else self.norm(x), targets


def init_normal(module: nn.Module) -> None:
    """Initialise a linear layer by N(0, 0.02), with bias 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        _blank_bias(module)


def _init_xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        _blank_bias(module)


def _blank_bias(layer: nn.Linear) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
