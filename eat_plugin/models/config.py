"""Options of the EAT model, with published names and defaults.

They serve both registered names, ``eat`` and ``data2vec_multi``. The published options that have no
implementation are in ``published_options``.
"""

from dataclasses import dataclass, field
from typing import Any, Iterable, List, Optional, Tuple

from ..masking import STRATEGIES
from ..modules.convolution import CHOICES as CONVOLUTIONS
from ..modules.patches import MEL_BINS, image_size_of
from ..modules.recompute import CHOICES as RECOMPUTE
from ..options import Section, follow, option, patch_sides, read_patch_size, require
from .bat_options import (
    BatDecoderOptions,
    BatImageOptions,
    BatModelOptions,
    validate_decoder,
    validate_ingredients,
)
from .objectives import OBJECTIVES, choose_objectives
from .passes import validate_graph
from .published_options import (
    PublishedDecoderOptions,
    PublishedImageOptions,
    PublishedModelOptions,
    check_published_options,
)
from .utterance_options import CLS_TARGETS, MixtureOptions, UtteranceOptions

IMAGE = "model.modalities.image"


@dataclass
class DecoderConfig(PublishedDecoderOptions, BatDecoderOptions):
    """The decoder that predicts hidden patches."""

    decoder_dim: int = option(384, "width of the decoder's layers")
    decoder_groups: int = option(16, "groups of the decoder's convolutions")
    decoder_kernel: int = option(5, "side of the decoder's kernels, in patches")
    decoder_layers: int = option(5, "number of layers")
    input_dropout: float = option(0.1, "dropout rate of the decoder's input")
    add_positions_masked: bool = option(False, "add positions to the hidden patches' noise")
    add_positions_all: bool = option(False, "add positions to the whole input of the decoder")
    decoder_residual: bool = option(True, "add each layer's input to its output")


@dataclass
class ImageConfig(PublishedImageOptions, BatImageOptions):
    """Patches, positions, masks and decoder of a spectrogram or an image."""

    prenet_dropout: float = option(0.0, "dropout rate of the encoder's input tokens")
    num_extra_tokens: int = option(0, "learned tokens before the patches; the last one is CLS")
    init_extra_token_zero: bool = option(True, "start the first extra token at 0")
    mask_noise_std: float = option(0.01, "standard deviation of the noise at hidden patches")
    mask_prob: float = option(0.7, "share of patches that is hidden")
    inverse_mask: bool = option(False, "keep blocks rather than hide blocks")
    mask_prob_adjust: float = option(0.0, "added to the share when blocks are counted")
    mask_length: int = option(5, "side of a block in patches; 1 hides single patches at random")
    mask_strategy: Optional[str] = option(
        None,
        f"{', '.join(STRATEGIES)}; null: as inverse_mask, mask_length and task.flexible_mask say",
    )
    encoder_zero_mask: bool = option(
        True, "features of a masked input: hidden tokens are 0 rather than noise"
    )
    ema_local_encoder: bool = option(False, "the teacher has its own patch embedding")
    local_grad_mult: float = option(1.0, "factor on the patch embedding's gradient; 0 freezes it")
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
    patch_size: Any = option(
        16, "side of a patch, or two: [frames, mel bins] (of an image [rows, columns])",
        flag=read_patch_size,
    )  # fmt: skip
    embed_dim: int = option(
        768, "width of the patch embedding; a linear layer follows if the model's differs"
    )
    fixed_positions: bool = option(True, "add the fixed sine-cosine table of positions")
    target_length: int = option(1024, "frames of a spectrogram (10 ms each)")
    max_length: int = option(768, "time steps of the table of positions, in patches")
    mel_by_time: bool = option(
        False, "spectrograms come as [B, 1, mel, time] rather than [B, 1, time, mel]"
    )


@dataclass
class ModalitiesConfig(Section):
    """One section per kind of input; EAT has one."""

    image: ImageConfig = field(
        default_factory=ImageConfig, metadata={"help": "spectrograms and images"}
    )


@dataclass
class EatConfig(PublishedModelOptions, UtteranceOptions, MixtureOptions, BatModelOptions, Section):
    """The student, its teacher, and the losses between them."""

    loss_beta: float = option(0.0, "smooth L1 turns linear at this error; 0 for squared error")
    loss_scale: Optional[float] = option(None, "factor on the losses; null: by loss_average")
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
        follow("optimization.max_update"), "updates over which the decay rises linearly"
    )
    ema_encoder_only: bool = option(True, "the teacher shares all but the blocks")
    modalities: ModalitiesConfig = field(
        default_factory=ModalitiesConfig, metadata={"help": "kinds of input"}
    )
    min_target_var: float = option(
        0.1,
        "stop when target_var falls below this; 0 never stops. Checked every 100 updates, after "
        "the first 5000",
    )
    min_pred_var: float = option(
        0.01, "stop when pred_var falls below this; 0 never stops. Checked with target_var"
    )
    mae_init: bool = option(False, "Xavier initialisation of linear layers, not N(0, 0.02)")
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
        "what backward computes again to save memory: none; gelu (GELU, gates, norms in a decoder "
        "of convolutions); blocks (all but the input of each block and decoder layer). Losses and "
        "gradients stay the same",
    )
    compile: bool = option(
        False,
        "compile the blocks and the decoder for training, and the teacher's blocks (not those of "
        "an encoder frozen by linear_probe); if that fails, training continues without, with a "
        "warning",
    )
    cuda_graph: bool = option(
        False,
        "a GPU replays student, teacher, decoder and their backward without the host, for clips of "
        "one length; if results differ or memory does not suffice, training continues without, "
        "with a warning",
    )
    convolution: str = option(
        "auto",
        "how the decoder's convolutions are computed: channels_last; channels_first; triton (on a "
        "GPU); auto (the fastest, timed at the first update and kept when the run is resumed)",
    )


def decoder_kernel(image: ImageConfig) -> Tuple[int, int]:
    """Return the sides of the decoder's kernels, in patches along (time, mel).

    On a grid of few mel bands most weights of a square kernel would meet the border alone. So for
    patches of spectrograms with two different sides, the mel side ends at the last band that can be
    reached. Square patches have square kernels, as published.
    """
    assert image.decoder is not None
    side, (frames, bins) = image.decoder.decoder_kernel, patch_sides(image.patch_size)
    if frames == bins or image_size_of(image) is not None:
        return side, side
    return side, min(side, 2 * (MEL_BINS // bins) - 1)


def validate_config(cfg: EatConfig) -> None:
    """Refuse an invalid configuration.

    Raises:
        ValueError: names the option, its value and the choices.
    """
    image = cfg.modalities.image
    check_published_options("model", cfg, PublishedModelOptions)
    check_published_options(IMAGE, image, PublishedImageOptions)
    if image.decoder is not None:
        check_published_options(f"{IMAGE}.decoder", image.decoder, PublishedDecoderOptions)
    _require_choice("model.recompute", cfg.recompute, RECOMPUTE)
    _require_choice("model.convolution", cfg.convolution, CONVOLUTIONS)
    _require_choice("model.cls_target", cfg.cls_target, CLS_TARGETS)
    if image.mask_strategy is not None:
        _require_choice(f"{IMAGE}.mask_strategy", image.mask_strategy, STRATEGIES)
    _require_divisible("model.embed_dim", cfg.embed_dim, "num_heads", cfg.num_heads)
    _require_divisible("model.embed_dim", cfg.embed_dim, "4 (two axes, sine and cosine)", 4)
    require(cfg.depth >= 1, "model.depth", cfg.depth, "it must be 1 or more")
    require(
        1 <= cfg.average_top_k_layers <= cfg.depth, "model.average_top_k_layers",
        cfg.average_top_k_layers, f"it must lie between 1 and model.depth={cfg.depth}",
    )  # fmt: skip
    validate_ingredients(cfg)
    _validate_input(image)
    if not cfg.skip_ema:
        _validate_training(cfg)


def _require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    require(value in choices, name, repr(value), f"choose one of {', '.join(choices)}")


def _require_divisible(name: str, value: int, what: str, divisor: int) -> None:
    """Require a size to be a multiple of a divisor."""
    is_valid = divisor >= 1 and value >= 1 and value % divisor == 0
    require(is_valid, name, value, f"it must be divisible by {what}={divisor}")


def _validate_input(image: ImageConfig) -> None:
    """Refuse inputs that have partial patches, or more patches than positions."""
    require(
        image.in_chans in (1, 3), f"{IMAGE}.in_chans", image.in_chans,
        "choose 1 (spectrogram or grey image) or 3 (colour image)",
    )  # fmt: skip
    frames, bins = patch_sides(image.patch_size)
    size, by_time = image.image_size, image.mel_by_time
    if image.in_chans != 1 or size is not None:
        rule = "it needs height and width"
        require(size is None or len(size) == 2, f"{IMAGE}.image_size", size, rule)
        require(not by_time, f"{IMAGE}.mel_by_time", by_time, "it is for spectrograms, not images")
        sides = [image.input_size] * 2 if size is None else size
        name = "input_size" if size is None else "image_size"
        _require_whole_patches(image, name, zip(sides, (frames, bins)))
        return
    _require_whole_patches(image, "target_length", [(image.target_length, frames)])
    require(
        MEL_BINS % bins == 0, f"{IMAGE}.patch_size", image.patch_size,
        f"its mel side must divide the {MEL_BINS} mel bins",
    )  # fmt: skip
    require(
        image.target_length <= image.max_length * frames, f"{IMAGE}.target_length",
        image.target_length,
        f"the table of positions ends at max_length={image.max_length} patches of {frames} frames",
    )  # fmt: skip


def _require_whole_patches(image: ImageConfig, name: str, sides: Iterable[Tuple[int, int]]) -> None:
    """Require the sides of an input to be multiples of those of a patch, given in pairs."""
    is_valid = all(side >= 1 and side % of_patch == 0 for side, of_patch in sides)
    rule = f"it must be divisible by modalities.image.patch_size={image.patch_size}"
    require(is_valid, f"{IMAGE}.{name}", getattr(image, name), rule)


def _validate_training(cfg: EatConfig) -> None:
    decoder = cfg.modalities.image.decoder
    if decoder is None:
        raise ValueError(
            f"{IMAGE}.decoder is null; pre-training needs a decoder "
            "(or model.skip_ema=true for an encoder alone)"
        )
    validate_decoder(cfg)
    require(cfg.clone_batch >= 1, "model.clone_batch", cfg.clone_batch, "it must be 1 or more")
    weights = {kind.weight_option: getattr(cfg, kind.weight_option) for kind in OBJECTIVES}
    if min(weights.values()) < 0 or not any(weights.values()):
        raise ValueError(f"the weights of the losses are {weights}; none below 0, one above 0")
    for objective in choose_objectives(cfg):
        objective.validate()
    validate_graph(cfg)
    for name in ("ema_decay", "ema_end_decay"):
        decay = getattr(cfg, name)
        require(0 <= decay <= 1, f"model.{name}", decay, "it must lie between 0 and 1")
