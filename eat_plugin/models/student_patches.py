"""The patches of a student: its masks, and its prediction of hidden patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from ..masking import MaskSpec, draw_masks, join_masks
from ..modules.decoders import ConvDecoder, Seeds, draw_noise, draw_scores
from ..modules.patch_split import PatchSplit, keep_hidden
from ..modules.patches import MEL_BINS, make_positions, own_columns
from ..modules.vit_decoder import VitDecoder
from .bat_options import VIT
from .config import decoder_kernel
from .patch_encoder import PatchEncoder, check_mask_shape

if TYPE_CHECKING:
    from .config import EatConfig


class StudentPatches(PatchEncoder):
    """The patch encoder of a student, with the decoder, which published checkpoints keep here."""

    def __init__(self, cfg: EatConfig, with_decoder: bool) -> None:
        super().__init__(cfg)
        self.decoder: ConvDecoder | VitDecoder | None = None
        if with_decoder and self.cfg.decoder is not None:
            self.decoder = self._make_decoder(cfg)

    def _make_decoder(self, cfg: EatConfig) -> ConvDecoder | VitDecoder:
        options = self.cfg.decoder
        assert options is not None
        if options.decoder_kind != VIT:
            return ConvDecoder(cfg, decoder_kernel(self.cfg))
        p, q = self.patch_sides
        height, width = self.image_size or (self.cfg.target_length, MEL_BINS)
        table = make_positions(height // p, width // q, options.decoder_dim, self.cfg.positions)
        return VitDecoder(cfg, table)

    def choose_hidden(
        self, split: PatchSplit, num_patches: int, noise_seed: Seeds, clones: int
    ) -> PatchSplit:
        """Return the patches that the decoder predicts in training, by ``hidden_share``.

        Args:
            split: visible and hidden patches.
            num_patches: L.
            noise_seed: see ``draw_noise``.
            clones: K.
        """
        share = 1.0 if self.cfg.decoder is None else self.cfg.decoder.hidden_share
        if share == 1 or not self.training:
            return split
        scores = draw_scores(split, len(split.hidden), num_patches, noise_seed)
        return keep_hidden(split, share, scores, clones)

    def draw_canvas(
        self, like: Tensor, sizes: tuple[int, int, int], split: PatchSplit, noise_seed: Seeds
    ) -> Tensor | None:
        """Draw what a decoder of convolutions gets at hidden patches; arguments as ``draw_noise``.

        Returns:
            [N * L, D]; None for other decoders.
        """
        if not isinstance(self.decoder, ConvDecoder):
            return None
        return draw_noise(like, sizes, self.cfg.mask_noise_std, split, noise_seed)

    def predict_hidden(
        self, tokens: Tensor, split: PatchSplit, grid: tuple[int, int], canvas: Tensor | None
    ) -> Tensor:
        """Predict hidden patches, [N_hidden, D].

        Args:
            tokens: [N, V, D], output of the blocks at visible patches.
            split: visible and hidden patches.
            grid: (time, mel) size of the patch grid.
            canvas: from ``draw_canvas``; it is overwritten.

        Raises:
            ValueError: there are more patches than a decoder with learned positions has seen.
        """
        decoder, cfg = self.decoder, self.cfg.decoder
        assert decoder is not None
        assert cfg is not None
        rows, num_patches = tokens.size(0), grid[0] * grid[1]
        tokens = F.dropout(tokens, cfg.input_dropout, self.training)
        if isinstance(decoder, VitDecoder):
            longest = decoder.positions.size(1)
            if num_patches > longest:
                raise ValueError(
                    f"the input has {num_patches} patches, the decoder positions for {longest}: "
                    "raise model.modalities.image.target_length"
                )
            return decoder(tokens, split)
        assert canvas is not None
        visible = split.flatten_visible(tokens)
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
