"""Published options without an implementation, as base classes of the model's configuration.

Published YAML files and checkpoints set them. Each field has the values that are accepted beside
it; ``check_published_options`` refuses all others. A field without such values has no effect.
"""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Dict, Optional, Tuple

from ..options import follow, option, patch_sides, require


class Modality(Enum):
    """Kind of input, by its published names; spectrograms and images are both ``IMAGE``."""

    AUDIO = 1
    IMAGE = 2
    TEXT = 3


def refused(default: Any, help_text: str, accepted: Tuple[Any, ...]) -> Any:
    """Declare a field that accepts a few values only."""
    return field(default=default, metadata={"help": help_text, "accepted": accepted})


@dataclass
class PublishedDecoderOptions:
    """Published options of the decoder."""

    projection_layers: int = refused(1, "linear layers after the convolutions", (1,))
    projection_ratio: float = option(2.0, "width ratio of further projection layers (unused)")


@dataclass
class PublishedImageOptions:
    """Published options of the input."""

    type: Modality = refused(Modality.IMAGE, "kind of input", ("IMAGE",))
    prenet_depth: int = refused(4, "blocks before the shared ones", (0,))
    prenet_layerdrop: float = option(0.0, "layer drop of the prenet (unused)")
    start_drop_path_rate: float = option(0.0, "drop path of the prenet's first block (unused)")
    end_drop_path_rate: float = option(0.0, "drop path of the prenet's last block (unused)")
    mask_prob_min: Optional[float] = refused(None, "lower end of a random mask_prob", (None,))
    keep_masked_pct: float = refused(0.0, "share of hidden patches that stays visible", (0,))
    add_masks: bool = refused(False, "1-D mask variant", (False,))
    remove_masks: bool = refused(False, "1-D mask variant", (False,))
    mask_dropout: float = refused(0.0, "share of blocks drawn in excess", (0,))
    mask_channel_prob: float = refused(0.0, "share of channels that is hidden", (0,))
    mask_channel_length: int = option(64, "length of a hidden span of channels (unused)")
    use_alibi_encoder: bool = refused(False, "relative position bias", (False,))
    alibi_scale: float = option(1.0, "scale of the position bias (unused)")
    learned_alibi: bool = refused(False, "learned position bias", (False,))
    alibi_max_pos: Optional[int] = option(None, "reach of a learned position bias (unused)")
    learned_alibi_scale: bool = refused(False, "learned scale of the position bias", (False,))
    learned_alibi_scale_per_head: bool = refused(False, "one scale per head", (False,))
    learned_alibi_scale_per_layer: bool = refused(False, "one scale per layer", (False,))
    num_alibi_heads: int = option(follow("model.num_heads"), "heads with a position bias (unused)")
    model_depth: int = option(follow("model.depth"), "number of shared blocks (unused)")
    alibi_dims: int = option(2, "dimensions of the position bias (unused)")
    alibi_distance: str = option("manhattan", "distance of the position bias (unused)")
    transformer_decoder: bool = refused(False, "a transformer as decoder", (False,))
    enc_dec_transformer: bool = refused(False, "an encoder-decoder transformer", (False,))


@dataclass
class PublishedModelOptions:
    """Published options of the model."""

    supported_modality: Optional[Modality] = refused(None, "kind of input", (None, "IMAGE"))
    shared_decoder: Any = refused(None, "a second decoder", (None,))
    max_update: int = option(follow("optimization.max_update"), "updates of the run")
    seed: int = option(follow("common.seed"), "seed of the run (unused)")


def check_published_options(section: str, options: Any, declared: type) -> None:
    """Raise ``ValueError`` if ``options`` have values that ``declared``, a class above, refuses."""
    for declaration in fields(declared):
        accepted = declaration.metadata.get("accepted")
        if accepted is None:  # no effect; maybe an interpolation that cannot be resolved
            continue
        value = getattr(options, declaration.name)
        value = value.name if isinstance(value, Enum) else value
        choices = " or ".join("null" if choice is None else str(choice) for choice in accepted)
        rule = f"this published option is not implemented, the only choice is {choices}"
        require(value in accepted, f"{section}.{declaration.name}", value, rule)


def square_patches(options: Dict[str, Any]) -> Dict[str, Any]:
    """Give ``patch_size``, if it is among some options, its published form, one number.

    Raises:
        ValueError: the sides differ.
    """
    if "patch_size" in options:
        sides = patch_sides(options["patch_size"])
        rule = "it has no published name: the patches of published code are square"
        require(sides[0] == sides[1], "model.modalities.image.patch_size", list(sides), rule)
        options["patch_size"] = sides[0]
    return options
