"""Spectrograms or images to the tokens that enter the blocks, and back to hidden patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..masking import MaskSpec, draw_masks, join_masks
from ..modules.decoders import ConvDecoder, Seeds, draw_noise, draw_scores
from ..modules.gradients import scale_gradient
from ..modules.patch_split import PatchSplit, keep_hidden
from ..modules.patches import (
    FixedPositions,
    PatchEmbedding,
    blank_padding,
    make_positions,
    own_columns,
)
from ..modules.transformer import make_norm
from ..modules.vit_decoder import VitDecoder
from ..options import patch_sides
from .bat_options import VIT
from .config import MEL_BINS, EatConfig, decoder_kernel, image_size_of


class ContextEncoder(nn.Module):
    """LayerNorm (in post-norm models) and dropout before the blocks."""

    def __init__(self, cfg: EatConfig) -> None:
        super().__init__()
        self.norm = None if cfg.layer_norm_first else make_norm(cfg)
        self.dropout = nn.Dropout(cfg.modalities.image.prenet_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, S, D] to [N, S, D]."""
        return self.dropout(x if self.norm is None else self.norm(x))


class PatchEncoder(nn.Module):
    """Turn spectrograms or images into the tokens that enter the blocks.

    Published checkpoints keep the decoder here: ``with_decoder`` builds it.
    """

    def __init__(self, cfg: EatConfig, with_decoder: bool) -> None:
        super().__init__()
        image = cfg.modalities.image
        self.cfg = image
        self.image_size = image_size_of(image)  # (H, W); None: the input is a spectrogram
        self.patch_sides = patch_sides(image.patch_size)  # (frames, mel bins)
        self.extra_tokens = None
        if image.num_extra_tokens > 0:
            self.extra_tokens = nn.Parameter(torch.zeros(1, image.num_extra_tokens, cfg.embed_dim))
            first = 1 if image.init_extra_token_zero else 0
            nn.init.normal_(self.extra_tokens[:, first:], std=image.extra_token_std)
        embedding = PatchEmbedding(image.in_chans, self.patch_sides, image.embed_dim)
        self.local_encoder: nn.Module | None = embedding
        if image.embed_dim != cfg.embed_dim:
            projection = nn.Linear(image.embed_dim, cfg.embed_dim)
            self.local_encoder = nn.Sequential(embedding, projection)
        if image.local_grad_mult <= 0:
            self.local_encoder.requires_grad_(False)  # or several ranks wait for its gradient
        self.fixed_positional_encoder = None
        if image.fixed_positions:
            p, q = self.patch_sides
            height, width = self.image_size or (image.max_length * p, MEL_BINS)
            self.fixed_positional_encoder = FixedPositions(
                make_positions(height // p, width // q, cfg.embed_dim, image.positions)
            )
        self.context_encoder = ContextEncoder(cfg)
        self.decoder: ConvDecoder | VitDecoder | None = None
        if with_decoder and image.decoder is not None:
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

    def grid_of(self, source: Tensor) -> tuple[int, int]:
        """Return the size of the patch grid of [B, C, T, F], (time, mel).

        Raises:
            ValueError: if the source does not fit the model.
        """
        channels, (p, q), (height, width) = self.cfg.in_chans, self.patch_sides, source.shape[2:]
        if self.image_size is not None:
            expected = f"images [B, {channels}, {', '.join(map(str, self.image_size))}]"
            fits = (height, width) == self.image_size
        else:
            expected = (
                f"[B, {channels}, T, {MEL_BINS}] with T divisible by patch_size={p} "
                "(for [B, 1, mel, time] set model.modalities.image.mel_by_time)"
            )
            fits = width == MEL_BINS and height % p == 0
        if source.size(1) != channels or not fits:
            raise ValueError(f"the input has shape {tuple(source.shape)}; expected {expected}")
        return height // p, width // q

    def prepare(
        self, source: Tensor, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Check a source [B, C, T, F] and its padding, bool [B, L]; set the padding to 0.

        Raises:
            ValueError: if the source does not fit the model, or the padding the source.
        """
        grid = self.grid_of(source)
        if padding_mask is None:
            return source, None
        _check_shape("padding_mask", padding_mask, source.size(0), grid)
        padding_mask = padding_mask.bool()
        return blank_padding(source, padding_mask, self.patch_sides), padding_mask

    def local_features(self, source: Tensor) -> Tensor:
        """Embed the patches of [B, C, T, F], without positions: [B, L, D]."""
        assert self.local_encoder is not None
        if self.cfg.local_grad_mult <= 0:
            with torch.no_grad():
                return self.local_encoder(source)
        x = self.local_encoder(source)
        if self.cfg.local_grad_mult != 1:
            x = scale_gradient(x, self.cfg.local_grad_mult)
        return x

    def embed(self, source: Tensor) -> Tensor:
        """Embed the patches of [B, C, T, F], with positions: [B, L, D]."""
        return self.add_positions(self.local_features(source))

    def add_positions(self, x: Tensor) -> Tensor:
        """Add the table of positions to tokens [B, L, D]."""
        if self.fixed_positional_encoder is None:
            return x
        return x + self.fixed_positional_encoder(x.size(1))

    def contextualize(self, x: Tensor) -> Tensor:
        """Prepend the extra tokens to [N, S, D] and normalise: [N, E + S, D]."""
        if self.extra_tokens is not None:
            x = torch.cat([self.extra_tokens.expand(x.size(0), -1, -1), x], dim=1)
        return self.context_encoder(x)

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

    def predict_hidden(
        self, tokens: Tensor, split: PatchSplit, grid: tuple[int, int], noise_seed: Seeds
    ) -> Tensor:
        """Predict hidden patches, [N_hidden, D].

        Args:
            tokens: [N, V, D], output of the blocks at visible patches.
            split: visible and hidden patches.
            grid: (time, mel) size of the patch grid.
            noise_seed: see ``draw_noise``.

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
        visible = split.flatten_visible(tokens)
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
            _check_shape("precomputed_mask", precomputed, rows, grid)
            return precomputed
        spec = MaskSpec.from_options(self.cfg, grid)
        if padding is None:
            return draw_masks(spec, rows).to(source.device)
        columns = own_columns(padding, grid[1]).tolist()
        masks = [draw_masks(spec.resized(number), clones) for number in columns]
        return join_masks(masks).to(source.device)


def _check_shape(name: str, mask: Tensor, rows: int, grid: tuple[int, int]) -> None:
    expected = (rows, grid[0] * grid[1])
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"{name} has shape {tuple(mask.shape)}; expected {expected}: clips (times clones), "
            f"{grid[0]}x{grid[1]} patches"
        )
