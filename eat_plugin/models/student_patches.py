"""The patches of a student: its masks, and its prediction of hidden patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from ..masking import MaskSpec, draw_masks, join_masks
from ..modules.decoders import ConvDecoder, Seeds, draw_noise
from ..modules.patch_split import PatchSplit
from ..modules.patches import own_columns
from .config import decoder_kernel
from .patch_encoder import PatchEncoder, check_mask_shape

if TYPE_CHECKING:
    from .config import EatConfig


class StudentPatches(PatchEncoder):
    """The patch encoder of a student, with the decoder, which published checkpoints keep here."""

    def __init__(self, cfg: EatConfig, with_decoder: bool) -> None:
        super().__init__(cfg)
        self.decoder = None
        if with_decoder and self.cfg.decoder is not None:
            self.decoder = ConvDecoder(cfg, decoder_kernel(self.cfg))

    def predict_hidden(
        self, tokens: Tensor, split: PatchSplit, grid: tuple[int, int], noise_seed: Seeds
    ) -> Tensor:
        """Predict hidden patches [N_hidden, D]: put visible tokens and noise in place, and decode.

        Args:
            tokens: [N, V, D], output of the blocks at visible patches.
            split: visible and hidden patches.
            grid: (time, mel) size of the patch grid.
            noise_seed: see ``draw_noise``.
        """
        decoder, cfg = self.decoder, self.cfg.decoder
        assert decoder is not None
        assert cfg is not None
        rows, num_patches = tokens.size(0), grid[0] * grid[1]
        visible = split.flatten_visible(F.dropout(tokens, cfg.input_dropout, self.training))
        canvas = draw_noise(tokens, num_patches, self.cfg.mask_noise_std, split, noise_seed)
        if cfg.add_positions_masked and self.fixed_positional_encoder is not None:
            table = self.fixed_positional_encoder(num_patches)[0]
            positions = table[split.hidden_rows % num_patches].to(canvas.dtype)
            canvas.index_add_(0, split.hidden_rows, positions)
        canvas.index_put_((split.visible_rows,), visible)  # index_copy keeps them for backward
        canvas = canvas.view(rows, num_patches, -1)
        if cfg.add_positions_all:
            canvas = self.add_positions(canvas)
        padding = None if split.lengths is None else split.lengths.padding
        return decoder(canvas, grid, split.hidden_rows, padding)

    def make_masks(
        self, source: Tensor, clones: int, precomputed: Tensor | None, padding: Tensor | None
    ) -> Tensor:
        """Return masks [B * clones, L], 1 = hidden: those given, checked, or drawn ones.

        Raises:
            ValueError: if the masks do not fit the source.
        """
        grid, rows = self.grid_of(source), source.size(0) * clones
        if precomputed is not None:
            check_mask_shape("precomputed_mask", precomputed, rows, grid)
            return precomputed
        spec = MaskSpec.from_options(self.cfg, grid)
        if padding is None:
            return draw_masks(spec, rows).to(source.device)
        columns = own_columns(padding, grid[1]).tolist()
        masks = [draw_masks(spec.resized(number), clones) for number in columns]
        return join_masks(masks).to(source.device)
