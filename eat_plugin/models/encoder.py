"""The encoder that student, teacher and classifier share: patches, positions, CLS, blocks.

Its parameters have the published names, so that checkpoints are exchanged with other EAT code.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from fairseq.models import BaseFairseqModel
from fairseq.modules import GradMultiply
from torch import Tensor, nn

from ..modules.decoders import ConvDecoder
from ..modules.padding import blank_padding
from ..modules.patches import FixedPositions, PatchEmbedding
from ..modules.transformer import TransformerBlock
from .config import MEL_BINS, EatConfig, image_size_of

MODALITY = "IMAGE"


class ContextEncoder(nn.Module):
    """LayerNorm (in post-norm models) and dropout of the tokens that enter the blocks."""

    def __init__(self, cfg: EatConfig) -> None:
        super().__init__()
        self.norm = None if cfg.layer_norm_first else _make_norm(cfg)
        self.dropout = nn.Dropout(cfg.modalities.image.prenet_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, S, D] to [N, S, D]."""
        return self.dropout(x if self.norm is None else self.norm(x))


class PatchEncoder(nn.Module):
    """From a spectrogram or an image to the tokens that enter the blocks.

    Args:
        cfg: the model's configuration.
        with_decoder: build the decoder too, which published checkpoints keep in here.
    """

    def __init__(self, cfg: EatConfig, with_decoder: bool) -> None:
        super().__init__()
        image = cfg.modalities.image
        self.cfg = image
        self.image_size = image_size_of(image)  # (H, W); None: the input is a spectrogram
        self.extra_tokens = None
        if image.num_extra_tokens > 0:
            self.extra_tokens = nn.Parameter(torch.zeros(1, image.num_extra_tokens, cfg.embed_dim))
            first = 1 if image.init_extra_token_zero else 0
            nn.init.normal_(self.extra_tokens[:, first:])
        embedding = PatchEmbedding(image.in_chans, image.patch_size, image.embed_dim)
        self.local_encoder: nn.Module | None = embedding
        if image.embed_dim != cfg.embed_dim:
            projection = nn.Linear(image.embed_dim, cfg.embed_dim)
            self.local_encoder = nn.Sequential(embedding, projection)
        if image.local_grad_mult <= 0:
            self.local_encoder.requires_grad_(False)  # several processes wait for no gradient
        self.fixed_positional_encoder = None
        if image.fixed_positions:
            grid = (image.max_length, MEL_BINS // image.patch_size)
            if self.image_size is not None:
                height, width = self.image_size
                grid = (height // image.patch_size, width // image.patch_size)
            self.fixed_positional_encoder = FixedPositions(*grid, cfg.embed_dim)
        self.context_encoder = ContextEncoder(cfg)
        self.decoder = None
        if with_decoder and image.decoder is not None:
            self.decoder = ConvDecoder(
                cfg.embed_dim,
                image.decoder.decoder_dim,
                image.decoder.decoder_layers,
                image.decoder.decoder_kernel,
                image.decoder.decoder_groups,
                image.decoder.decoder_residual,
                cfg.recompute,
                cfg.compile,
            )

    def grid_of(self, source: Tensor) -> tuple[int, int]:
        """Size of the patch grid of a source, (time, mel).

        Raises:
            ValueError: if the source does not fit the model.
        """
        channels, height, width = source.shape[1:]
        size = self.cfg.patch_size
        if self.image_size is not None:
            expected = [self.cfg.in_chans, *self.image_size]
            if [channels, height, width] != expected:
                raise ValueError(
                    f"the input has shape {tuple(source.shape)}; expected images [B, "
                    f"{', '.join(map(str, expected))}], by the model's in_chans and image_size"
                )
            return height // size, width // size
        if channels != self.cfg.in_chans or height % size or width % size:
            raise ValueError(
                f"the input has shape {tuple(source.shape)}; expected [B, {self.cfg.in_chans}, "
                f"T, F] with T and F divisible by patch_size={size}"
            )
        if width != MEL_BINS:
            raise ValueError(
                f"the input has shape {tuple(source.shape)}; its last axis must have {MEL_BINS} "
                "values (a spectrogram is [B, 1, time, mel]; for [B, 1, mel, time] set "
                "model.modalities.image.mel_by_time)"
            )
        return height // size, width // size

    def prepare(
        self, source: Tensor, padding_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Make a source fit for use: what its padding holds is replaced by 0.

        Args:
            source: [B, C, T, F].
            padding_mask: bool [B, L], True = padding; None for none.

        Returns:
            The source and the padding.

        Raises:
            ValueError: if the source does not fit the model, or the padding the source.
        """
        rows, columns = self.grid_of(source)
        if padding_mask is None:
            return source, None
        if padding_mask.shape != (source.size(0), rows * columns):
            raise ValueError(
                f"padding_mask has shape {tuple(padding_mask.shape)}; expected "
                f"{(source.size(0), rows * columns)}: a row a clip, and {rows}x{columns} patches"
            )
        padding_mask = padding_mask.bool()
        return blank_padding(source, padding_mask, self.cfg.patch_size), padding_mask

    def local_features(self, source: Tensor) -> Tensor:
        """Embed the patches of [B, C, T, F], without positions: [B, L, D]."""
        assert self.local_encoder is not None
        if self.cfg.local_grad_mult <= 0:
            with torch.no_grad():
                return self.local_encoder(source)
        x = self.local_encoder(source)
        if self.cfg.local_grad_mult != 1:
            x = GradMultiply.apply(x, self.cfg.local_grad_mult)
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


class EatEncoder(BaseFairseqModel):
    """Patch encoder and transformer blocks.

    Args:
        cfg: a validated configuration.
        with_decoder: build the decoder of hidden patches too.
    """

    def __init__(self, cfg: EatConfig, with_decoder: bool = False) -> None:
        super().__init__()
        self.cfg = cfg
        self.modality_encoders = nn.ModuleDict({MODALITY: PatchEncoder(cfg, with_decoder)})
        self.dropout_input = nn.Dropout(cfg.dropout_input)
        rates = np.linspace(cfg.start_drop_path_rate, cfg.end_drop_path_rate, cfg.depth)
        self.blocks = nn.ModuleList(_make_block(cfg, float(rate)) for rate in rates)
        self.norm = _make_norm(cfg) if cfg.layer_norm_first else None
        self.apply(_init_xavier if cfg.mae_init else _init_normal)
        if self.patch_encoder.decoder is not None:
            self.patch_encoder.decoder.proj.reset_parameters()

    @property
    def patch_encoder(self) -> PatchEncoder:
        """The encoder of patches; published checkpoints name it by its modality."""
        encoder = self.modality_encoders[MODALITY]
        assert isinstance(encoder, PatchEncoder)
        return encoder

    @property
    def num_extra_tokens(self) -> int:
        """Number of learned tokens before the patches; the last one is CLS."""
        return self.patch_encoder.cfg.num_extra_tokens

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width of the images it takes; None where it takes spectrograms."""
        patches = self.patch_encoder
        size = patches.image_size
        return None if size is None else (patches.cfg.in_chans, *size)

    def compile_evaluation(self) -> None:
        """Let the blocks be compiled in evaluation too: for a teacher, which never trains."""
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            block.compiled_in_evaluation = True

    def time_major(self, source: Tensor) -> Tensor:
        """Return a source as [B, C, T, F], whatever ``mel_by_time`` says of it."""
        return source.transpose(2, 3) if self.patch_encoder.cfg.mel_by_time else source

    def token_padding(self, padding: Tensor | None) -> Tensor | None:
        """Extend a padding of patches, bool [N, S], by the extra tokens: [N, E + S]."""
        return None if padding is None else F.pad(padding, (self.num_extra_tokens, 0))

    def encode(
        self, source: Tensor, keep_targets: bool = True, padding_mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode whole clips, nothing hidden.

        Args:
            source: [B, C, T, F].
            keep_targets: collect each block's target output.
            padding_mask: bool [B, L], True = padding.

        Returns:
            The last block's output [B, E + L, D], and the target outputs, each of that shape.

        Raises:
            ValueError: if the source does not fit the model, or the padding the source.
        """
        patches = self.patch_encoder
        source, padding = patches.prepare(source, padding_mask)
        x = patches.contextualize(patches.embed(source))
        return self.run_blocks(x, self.token_padding(padding), keep_targets)

    def block_outputs(self, source: Tensor) -> list[Tensor]:
        """Encode whole clips, and keep what every block makes of them.

        Args:
            source: [B, C, T, F].

        Returns:
            Of each block [B, E + L, D]; the last is what ``encode`` returns.

        Raises:
            ValueError: if the source does not fit the model.
        """
        patches = self.patch_encoder
        patches.grid_of(source)
        x = self.dropout_input(patches.contextualize(patches.embed(source)))
        outputs = []
        for block in self.blocks:
            x, _ = block(x)
            outputs.append(x)
        if self.norm is not None:
            outputs[-1] = self.norm(x)
        return outputs

    def run_blocks(
        self, x: Tensor, padding_mask: Tensor | None = None, keep_targets: bool = True
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the transformer.

        Args:
            x: [N, S, D], from ``PatchEncoder.contextualize``.
            padding_mask: bool [N, S], True = padding.
            keep_targets: collect each block's target output.

        Returns:
            The last block's output [N, S, D], and the target outputs, each [N, S, D].
        """
        x = self.dropout_input(x)
        targets = []
        for block in self.blocks:
            # Drawn on the host, from the generator that fairseq seeds alike on every process:
            # all of them leave out the same blocks.
            if self.training and 0 < self.cfg.layerdrop > float(torch.rand(())):
                if torch.is_grad_enabled():  # several processes wait for every gradient
                    x = x + 0 * sum(p.flatten()[0] for p in block.parameters())
                continue
            x, target = block(x, padding_mask)
            if keep_targets:
                targets.append(target)
        return x if self.norm is None else self.norm(x), targets


def _make_norm(cfg: EatConfig) -> nn.LayerNorm:
    return nn.LayerNorm(cfg.embed_dim, eps=cfg.norm_eps, elementwise_affine=cfg.norm_affine)


def _make_block(cfg: EatConfig, drop_path: float) -> TransformerBlock:
    return TransformerBlock(
        cfg.embed_dim,
        cfg.num_heads,
        mlp_ratio=cfg.mlp_ratio,
        norm_eps=cfg.norm_eps,
        norm_affine=cfg.norm_affine,
        pre_norm=cfg.layer_norm_first,
        end_of_block_target=cfg.end_of_block_targets,
        dropout=cfg.encoder_dropout,
        attention_dropout=cfg.attention_dropout,
        activation_dropout=cfg.activation_dropout,
        mlp_dropout=cfg.post_mlp_drop,
        drop_path=drop_path,
        recompute=cfg.recompute,
        compiled=cfg.compile,
    )


def _init_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _init_xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
