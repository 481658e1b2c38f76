"""Options of BAT's ingredients (Ghaffari et al. 2026, arXiv 2602.16305), each of its own.

The defaults are EAT's. ``eat export`` leaves them out of published configurations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Optional

from ..modules.patches import ORDERS, PUBLISHED
from ..options import option, require

DECODERS = CONVOLUTIONS, VIT = ("conv", "vit")
LOSS_AVERAGES = PUBLISHED_AVERAGE, ELEMENTS = (PUBLISHED, "elements")


@dataclass
class BatModelOptions:
    """Options of the model."""

    attention_gate: bool = option(
        False, "multiply the output of attention by sigmoid(gate(x)) before its last projection"
    )
    target_norm_eps: float = option(1e-5, "epsilon of the norms that make the targets")
    loss_average: str = option(
        PUBLISHED,
        "published (by EAT): errors summed over width, divided by its root; the utterance loss "
        "summed over the clones of a batch. elements: means over width, hidden patches and clones",
    )


@dataclass
class BatImageOptions:
    """Options of patches and positions."""

    extra_token_std: float = option(
        1.0, "standard deviation of the extra tokens at the start, but for init_extra_token_zero"
    )
    positions: str = option(
        "grid",
        "order of the table of positions: grid; published, transposed as in BAT's published code "
        "(over max_length time steps)",
    )


@dataclass
class BatDecoderOptions:
    """Options of the decoder."""

    decoder_kind: str = option(
        "conv", "conv (convolutions over the grid) or vit (transformer blocks with mask tokens)"
    )
    decoder_heads: Optional[int] = option(None, "vit: attention heads; null: the model's number")
    decoder_mlp_ratio: float = option(4.0, "vit: hidden width of the MLPs over decoder_dim")
    hidden_share: float = option(
        1.0,
        "vit: share of the hidden patches of each mask that the decoder gets and predicts in "
        "training, drawn at random",
    )


def validate_ingredients(cfg: Any) -> None:
    """Refuse invalid values of the options of model and input.

    Raises:
        ValueError: names the option, its value and the choices.
    """
    image = cfg.modalities.image
    name, value = "model.loss_average", cfg.loss_average
    require(value in LOSS_AVERAGES, name, repr(value), f"choose {' or '.join(LOSS_AVERAGES)}")
    name, value = "model.target_norm_eps", cfg.target_norm_eps
    require(value > 0, name, value, "it must be above 0")
    name, value = "model.modalities.image.positions", image.positions
    require(value in ORDERS, name, repr(value), f"choose {' or '.join(ORDERS)}")
    name, value = "model.modalities.image.extra_token_std", image.extra_token_std
    require(value >= 0, name, value, "it must be 0 or more")


def validate_decoder(cfg: Any) -> None:
    """Refuse an invalid decoder of a model that is trained.

    Raises:
        ValueError: names the option, its value and the choices.
    """
    decoder, section = cfg.modalities.image.decoder, "model.modalities.image.decoder"
    kind, share = decoder.decoder_kind, decoder.hidden_share
    rule = f"choose {' or '.join(DECODERS)}"
    require(kind in DECODERS, f"{section}.decoder_kind", repr(kind), rule)
    require(0 < share <= 1, f"{section}.hidden_share", share, "it must be above 0, at most 1")
    rule = f"convolutions need all patches: leave it at 1, or set {section}.decoder_kind={VIT}"
    require(share == 1 or kind == VIT, f"{section}.hidden_share", share, rule)
    if kind != VIT:
        groups = decoder.decoder_groups
        for name, width in (("decoder_dim", decoder.decoder_dim), ("embed_dim", cfg.embed_dim)):
            rule = f"it must be divisible by decoder_groups={groups}"
            require(groups >= 1 and width % groups == 0, f"model {name}", width, rule)
        return
    for name in ("add_positions_masked", "add_positions_all"):
        value = getattr(decoder, name)
        rule = f"decoder_kind={VIT} has positions of its own: leave it out"
        require(not value, f"{section}.{name}", value, rule)
    width, layers = decoder.decoder_dim, decoder.decoder_layers
    heads = cfg.num_heads if decoder.decoder_heads is None else decoder.decoder_heads
    rule = f"it must be divisible by decoder_heads={heads}"
    require(heads >= 1 and width % heads == 0, f"{section}.decoder_dim", width, rule)
    rule = "it must be divisible by 4 (two axes, sine and cosine)"
    require(width % 4 == 0, f"{section}.decoder_dim", width, rule)
    require(layers >= 1, f"{section}.decoder_layers", layers, "it must be 1 or more")


def require_convolutions(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a model; raise ValueError if its decoder has no published name."""
    decoder = options["modalities"]["image"].get("decoder") or {}
    kind = decoder.get("decoder_kind", CONVOLUTIONS)
    require(kind == CONVOLUTIONS, "decoder_kind", kind, "it has no published name")
    return options


def remove_ingredients(options: dict[str, Any]) -> None:
    """Remove the options above from those of a model, and of the sections in it.

    Raises:
        ValueError: the model has a gate, whose weights have no published name among EAT's.
    """
    gate = options.get("attention_gate", False)
    require(not gate, "model.attention_gate", "true", "it has no published name")
    image = options["modalities"]["image"]
    of_sections = (
        (BatModelOptions, options),
        (BatImageOptions, image),
        (BatDecoderOptions, image.get("decoder") or {}),
    )
    for kind, section in of_sections:
        for each in fields(kind):
            section.pop(each.name, None)
