"""Configuration of the EAT model, with the field names and defaults of the published code.

The dataclasses serve both registered names, ``eat`` and ``data2vec_multi``, so that published YAML
files and checkpoints run unchanged. ``validate_config`` refuses what cannot work, and the published
options that this plugin does not implement, before anything is built.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, List, Optional, Tuple

from fairseq.dataclass import FairseqDataclass
from omegaconf import II

from ..modules.recompute import CHOICES as RECOMPUTE
from ..options import option

MEL_BINS = 128


class Modality(Enum):
    """Kind of input, by its published names; both spectrograms and images are ``IMAGE``."""

    AUDIO = 1
    IMAGE = 2
    TEXT = 3


@dataclass
class DecoderConfig:
    """The decoder that predicts hidden patches."""

    decoder_dim: int = option(384, "channels of the decoder's layers")
    decoder_groups: int = option(16, "groups of the decoder's convolutions")
    decoder_kernel: int = option(5, "side of the decoder's kernels, in patches")
    decoder_layers: int = option(5, "number of convolutional layers")
    input_dropout: float = option(0.1, "dropout rate of the decoder's input")
    add_positions_masked: bool = option(False, "add positions to the hidden patches' noise")
    add_positions_all: bool = option(False, "add positions to all of the decoder's input")
    decoder_residual: bool = option(True, "add each layer's input to its output")
    projection_layers: int = option(1, "linear layers after the convolutions (only 1)")
    projection_ratio: float = option(2.0, "width ratio of further projection layers (unused)")


@dataclass
class ImageConfig:
    """Patches, positions, masks and decoder of a spectrogram or an image."""

    type: Modality = option(Modality.IMAGE, "kind of input")
    prenet_depth: int = option(4, "blocks before the shared ones (only 0)")
    prenet_layerdrop: float = option(0.0, "layer drop of the prenet (unused)")
    prenet_dropout: float = option(0.0, "dropout rate of the encoder's input tokens")
    start_drop_path_rate: float = option(0.0, "drop path of the prenet's first block (unused)")
    end_drop_path_rate: float = option(0.0, "drop path of the prenet's last block (unused)")
    num_extra_tokens: int = option(0, "learned tokens before the patches; the last one is CLS")
    init_extra_token_zero: bool = option(True, "start the first of them at 0, not N(0, 1)")
    mask_noise_std: float = option(0.01, "standard deviation of the noise at hidden patches")
    mask_prob_min: Optional[float] = option(None, "lower end of a random mask_prob (only null)")
    mask_prob: float = option(0.7, "share of patches that is hidden")
    inverse_mask: bool = option(False, "keep blocks rather than hide blocks")
    mask_prob_adjust: float = option(0.0, "added to the share when blocks are counted")
    keep_masked_pct: float = option(0.0, "share of hidden patches that stays visible (only 0)")
    mask_length: int = option(5, "side of a block in patches; 1 hides single patches at random")
    add_masks: bool = option(False, "1-D mask variant (only false)")
    remove_masks: bool = option(False, "1-D mask variant (only false)")
    mask_dropout: float = option(0.0, "share of blocks drawn in excess (only 0)")
    encoder_zero_mask: bool = option(
        True, "features of a masked input: hidden tokens are 0 rather than noise"
    )
    mask_channel_prob: float = option(0.0, "share of channels that is hidden (only 0)")
    mask_channel_length: int = option(64, "length of a hidden span of channels (unused)")
    ema_local_encoder: bool = option(False, "the teacher has its own patch embedding")
    local_grad_mult: float = option(1.0, "factor on the patch embedding's gradient; 0 freezes it")
    use_alibi_encoder: bool = option(False, "relative position bias (only false)")
    alibi_scale: float = option(1.0, "scale of the relative position bias (unused)")
    learned_alibi: bool = option(False, "learned relative position bias (only false)")
    alibi_max_pos: Optional[int] = option(None, "reach of a learned position bias (unused)")
    learned_alibi_scale: bool = option(False, "learned scale of the position bias (only false)")
    learned_alibi_scale_per_head: bool = option(False, "a scale for each head (only false)")
    learned_alibi_scale_per_layer: bool = option(False, "a scale for each layer (only false)")
    num_alibi_heads: int = option(II("model.num_heads"), "heads with a position bias (unused)")
    model_depth: int = option(II("model.depth"), "number of shared blocks (unused)")
    decoder: Optional[DecoderConfig] = field(
        default_factory=DecoderConfig, metadata={"help": "the decoder of hidden patches"}
    )
    input_size: int = option(224, "side of a square image, in pixels (in_chans: 3)")
    image_size: Optional[List[int]] = option(
        None,
        "height and width of images, in pixels; null: spectrograms with in_chans=1, images of "
        "input_size with in_chans=3",
    )
    in_chans: int = option(
        3, "channels of the input: 1 for spectrograms and grey images, 3 for colour images"
    )
    patch_size: int = option(16, "side of a patch, in frames and mel bins, or pixels")
    embed_dim: int = option(
        768, "width of the patch embedding; a linear layer follows where the model's is another"
    )
    alibi_dims: int = option(2, "dimensions of the position bias (unused)")
    alibi_distance: str = option("manhattan", "distance of the position bias (unused)")
    fixed_positions: bool = option(True, "add the fixed sine-cosine table of positions")
    transformer_decoder: bool = option(False, "a transformer as decoder (only false)")
    enc_dec_transformer: bool = option(False, "an encoder-decoder transformer (only false)")
    target_length: int = option(1024, "frames of a spectrogram (10 ms each)")
    max_length: int = option(768, "time steps of the table of positions, in patches")
    mel_by_time: bool = option(
        False, "spectrograms come as [B, 1, mel, time] rather than [B, 1, time, mel]"
    )


@dataclass
class ModalitiesConfig(FairseqDataclass):
    """One configuration a kind of input; EAT has one."""

    image: ImageConfig = field(
        default_factory=ImageConfig, metadata={"help": "spectrograms and images"}
    )


@dataclass
class EatConfig(FairseqDataclass):
    """The student, its teacher, and the losses between them."""

    loss_beta: float = option(0.0, "smooth L1 turns linear at this error; 0 for squared error")
    loss_scale: Optional[float] = option(None, "factor on the losses; null for 1/sqrt(width)")
    depth: int = option(12, "number of transformer blocks")
    start_drop_path_rate: float = option(0.0, "drop path rate of the first block")
    end_drop_path_rate: float = option(0.0, "drop path rate of the last block")
    num_heads: int = option(12, "attention heads")
    norm_eps: float = option(1e-6, "epsilon of the LayerNorms")
    norm_affine: bool = option(True, "the LayerNorms have weights")
    encoder_dropout: float = option(0.1, "dropout rate after the attention projection")
    post_mlp_drop: float = option(0.1, "dropout rate after the MLP")
    attention_dropout: float = option(0.1, "dropout rate of the attention weights")
    activation_dropout: float = option(0.0, "dropout rate inside the MLP")
    dropout_input: float = option(0.0, "dropout rate of the blocks' input")
    layerdrop: float = option(0.0, "probability that a block is left out in training")
    embed_dim: int = option(768, "width of the transformer")
    mlp_ratio: float = option(4.0, "hidden width of the MLPs over embed_dim")
    layer_norm_first: bool = option(False, "normalise before each branch rather than after")
    average_top_k_layers: int = option(12, "last blocks of the teacher that make the target")
    end_of_block_targets: bool = option(False, "targets are block outputs, not MLP outputs")
    clone_batch: int = option(16, "masks of each clip in a batch")
    layer_norm_target_layer: bool = option(False, "LayerNorm of each layer of the target")
    batch_norm_target_layer: bool = option(False, "batch norm of each layer of the target")
    instance_norm_target_layer: bool = option(False, "norm over patches of each target layer")
    instance_norm_targets: bool = option(False, "norm over patches of the averaged target")
    layer_norm_targets: bool = option(False, "LayerNorm of the averaged target")
    ema_decay: float = option(0.999, "the teacher's decay at the start")
    ema_same_dtype: bool = option(True, "the teacher computes in the student's precision")
    log_norms: bool = option(True, "log the L2 norms of student and teacher")
    ema_end_decay: float = option(0.9999, "the teacher's decay at the end of annealing")
    ema_anneal_end_step: int = option(
        II("optimization.max_update"), "updates over which the decay rises linearly"
    )
    ema_encoder_only: bool = option(True, "the teacher shares all but the blocks")
    max_update: int = option(II("optimization.max_update"), "updates of the whole run")
    modalities: ModalitiesConfig = field(
        default_factory=ModalitiesConfig, metadata={"help": "kinds of input"}
    )
    shared_decoder: Optional[DecoderConfig] = option(None, "a second decoder (only null)")
    min_target_var: float = option(
        0.1,
        "stop where target_var is below this; 0 never stops. Looked at every 100th update, after "
        "the first 5000",
    )
    min_pred_var: float = option(
        0.01, "stop where pred_var is below this; 0 never stops. Looked at when target_var is"
    )
    supported_modality: Optional[Modality] = option(None, "kind of input (IMAGE)")
    mae_init: bool = option(False, "Xavier initialisation of linear layers, not N(0, 0.02)")
    seed: int = option(II("common.seed"), "seed of the run")
    skip_ema: bool = option(False, "build the encoder without a teacher")
    cls_loss: float = option(0.0, "weight of the utterance loss")
    recon_loss: float = option(0.0, "weight of the loss that reconstructs patch values")
    d2v_loss: float = option(1.0, "weight of the patch regression loss")
    decoder_group: bool = option(False, "put the decoder in a parameter group of its own")
    utterance_level: bool = option(False, "utterance loss by DINO rather than regression")
    init_center_token_zero: bool = option(False, "start DINO's centre at 0, not at N(0, 1)")
    center_exp: float = option(0.9, "decay of DINO's centre")
    softmax_temperature_student: float = option(0.1, "DINO's temperature of the student")
    softmax_temperature_teacher: float = option(0.05, "DINO's temperature of the teacher")
    recompute: str = option(
        "none",
        "what training computes again in backward rather than keeps in memory: none; gelu (GELU, "
        "and the decoder's norms); blocks (all but the input of each block and decoder layer). "
        "Losses and gradients stay the same",
    )
    compile: bool = option(
        False,
        "compile the blocks and the decoder for training, and the teacher's blocks (but none of an "
        "encoder that linear_probe freezes); where PyTorch cannot, it says so and training goes on "
        "without",
    )


# Published options without an implementation here: field -> the only value that is accepted.
UNIMPLEMENTED_IMAGE_OPTIONS = {
    "prenet_depth": 0,
    "mask_prob_min": None,
    "keep_masked_pct": 0.0,
    "add_masks": False,
    "remove_masks": False,
    "mask_dropout": 0.0,
    "mask_channel_prob": 0.0,
    "use_alibi_encoder": False,
    "learned_alibi": False,
    "learned_alibi_scale": False,
    "learned_alibi_scale_per_head": False,
    "learned_alibi_scale_per_layer": False,
    "transformer_decoder": False,
    "enc_dec_transformer": False,
}


def image_size_of(image: ImageConfig) -> Optional[Tuple[int, int]]:
    """Return height and width of the images that a model takes, or None: it takes spectrograms."""
    if image.image_size is not None:
        height, width = image.image_size
        return height, width
    return None if image.in_chans == 1 else (image.input_size, image.input_size)


def validate_config(cfg: EatConfig) -> None:
    """Refuse a configuration that cannot work.

    Args:
        cfg: with all interpolations resolvable.

    Raises:
        ValueError: that names the field, its value and the choices.
    """
    image = cfg.modalities.image
    for name in ("supported_modality", "modalities.image.type"):
        value = cfg.supported_modality if name == "supported_modality" else image.type
        if value is not None and _modality_name(value) != "IMAGE":
            raise ValueError(f"model.{name} is {_modality_name(value)}; only IMAGE is implemented")
    for name, accepted in UNIMPLEMENTED_IMAGE_OPTIONS.items():
        _require_only(f"modalities.image.{name}", getattr(image, name), accepted)
    if image.decoder is not None:
        _require_only(
            "modalities.image.decoder.projection_layers", image.decoder.projection_layers, 1
        )
    _require_only("shared_decoder", cfg.shared_decoder, None)
    if cfg.recompute not in RECOMPUTE:
        raise ValueError(
            f"model.recompute is {cfg.recompute!r}; choose one of {', '.join(RECOMPUTE)}"
        )
    _validate_sizes(cfg)
    if not cfg.skip_ema:
        _validate_training(cfg)


def _require_only(name: str, value: Any, accepted: Any) -> None:
    if value != accepted:
        shown = "null" if accepted is None else accepted
        raise ValueError(
            f"model.{name} is {value}; this published option is not implemented, "
            f"the only choice is {shown}"
        )


def _modality_name(value: Any) -> str:
    return value.name if isinstance(value, Modality) else str(value)


def _validate_sizes(cfg: EatConfig) -> None:
    image = cfg.modalities.image
    checks = {
        "num_heads": (cfg.num_heads, cfg.embed_dim, "model.embed_dim"),
        "4 (two axes, sine and cosine)": (4, cfg.embed_dim, "model.embed_dim"),
    }
    for divisor_name, (divisor, value, name) in checks.items():
        if divisor < 1 or value % divisor:
            raise ValueError(f"{name} is {value}; it must be divisible by {divisor_name}={divisor}")
    if image.in_chans not in (1, 3):
        raise ValueError(
            f"model.modalities.image.in_chans is {image.in_chans}; choose 1 (spectrogram or grey "
            "image) or 3 (colour image)"
        )
    _validate_input(image)
    if not 1 <= cfg.average_top_k_layers <= cfg.depth:
        raise ValueError(
            f"model.average_top_k_layers is {cfg.average_top_k_layers}; it must lie between 1 and "
            f"model.depth={cfg.depth}"
        )


def _validate_input(image: ImageConfig) -> None:
    """Refuse inputs that are not made of whole patches, or that the model has no positions for."""
    prefix, patch = "model.modalities.image", image.patch_size
    if image.image_size is not None and len(image.image_size) != 2:
        raise ValueError(f"{prefix}.image_size is {image.image_size}; it needs height and width")
    shape = image_size_of(image)
    name = "target_length"
    if shape is not None:
        name = "input_size" if image.image_size is None else "image_size"
    for side in shape or [image.target_length]:
        if patch < 1 or side < 1 or side % patch:
            raise ValueError(
                f"{prefix}.{name} is {getattr(image, name)}; it must be divisible by "
                f"modalities.image.patch_size={patch}"
            )
    if shape is not None:
        if image.mel_by_time:
            raise ValueError(f"{prefix}.mel_by_time is True; it is for spectrograms, not images")
        return
    if MEL_BINS % patch:
        raise ValueError(f"{prefix}.patch_size is {patch}; it must divide the {MEL_BINS} mel bins")
    if image.target_length > image.max_length * patch:
        raise ValueError(
            f"model.modalities.image.target_length is {image.target_length} frames; the table of "
            f"positions ends at max_length={image.max_length} patches of {image.patch_size} frames"
        )


def _validate_training(cfg: EatConfig) -> None:
    image = cfg.modalities.image
    if image.decoder is None:
        raise ValueError(
            "model.modalities.image.decoder is null; pre-training needs a decoder "
            "(or model.skip_ema=true for an encoder alone)"
        )
    for name, width in (("decoder_dim", image.decoder.decoder_dim), ("embed_dim", cfg.embed_dim)):
        if width % image.decoder.decoder_groups:
            raise ValueError(
                f"model {name} is {width}; it must be divisible by "
                f"decoder_groups={image.decoder.decoder_groups}"
            )
    if cfg.clone_batch < 1:
        raise ValueError(f"model.clone_batch is {cfg.clone_batch}; it must be 1 or more")
    if cfg.cls_loss > 0 and image.num_extra_tokens < 1:
        raise ValueError(
            f"model.cls_loss is {cfg.cls_loss} but model.modalities.image.num_extra_tokens is "
            f"{image.num_extra_tokens}; the utterance loss needs a CLS token (1)"
        )
    weights = {name: getattr(cfg, name) for name in ("d2v_loss", "cls_loss", "recon_loss")}
    if min(weights.values()) < 0 or not any(weights.values()):
        raise ValueError(f"the weights of the losses are {weights}; none below 0, one above 0")
    for name in ("ema_decay", "ema_end_decay"):
        if not 0 <= getattr(cfg, name) <= 1:
            raise ValueError(f"model.{name} is {getattr(cfg, name)}; it must lie between 0 and 1")
