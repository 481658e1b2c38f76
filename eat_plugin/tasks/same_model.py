"""A run has the model of the checkpoint that it resumes or starts from."""

import os
from typing import Any, Dict, Mapping, Optional, Tuple

from omegaconf import DictConfig, OmegaConf

from ..options import patch_sides
from .resumed import ResumedRun

IMAGE = "modalities.image"
# Options that decide the shape of weights, or how they are used. All others may change.
ENCODER = (
    "depth", "embed_dim", "num_heads", "mlp_ratio", "layer_norm_first", "norm_affine",
    "dino_prototypes",
    f"{IMAGE}.patch_size", f"{IMAGE}.in_chans", f"{IMAGE}.embed_dim", f"{IMAGE}.image_size",
    f"{IMAGE}.input_size", f"{IMAGE}.max_length", f"{IMAGE}.num_extra_tokens",
    f"{IMAGE}.fixed_positions", f"{IMAGE}.decoder.decoder_dim", f"{IMAGE}.decoder.decoder_groups",
    f"{IMAGE}.decoder.decoder_kernel", f"{IMAGE}.decoder.decoder_layers",
    f"{IMAGE}.decoder.decoder_heads", f"{IMAGE}.decoder.decoder_mlp_ratio",
)  # fmt: skip
KIND = f"{IMAGE}.decoder.decoder_kind"
# More of them, and what older checkpoints, which do not name them, have.
NEWER = {"attention_gate": False, f"{IMAGE}.positions": "grid", KIND: "conv"}
CLASSIFIER = ("num_classes", "use_fc_norm", "segments")
# Options that may change if the optimizer is reset; not with a transformer as decoder, which has
# learned the positions of a window.
SAME_RUN = (f"{IMAGE}.target_length",)
SAME_CLASSIFIER = ("prediction_mode",)
OF_ENCODER = "pretrained_model_args"  # of a classifier: the options of its encoder
MOST_SHOWN = 4


def check_same_model(resumed: ResumedRun, cfg: DictConfig, encoder: Any = None) -> None:
    """Compare the model of a run with that of the checkpoint it resumes.

    Args:
        resumed: the checkpoint.
        cfg: options of the new model.
        encoder: of a classifier, ``pretrained_model_args`` of the new model.

    Raises:
        ValueError: names the options that differ.
    """
    options: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    if encoder is not None:
        options[OF_ENCODER] = encoder
    found = describe_difference(resumed.model, options, bool(resumed.optimizer))
    if found is None:
        return
    same = "settings" if encoder is None else "settings and model.model_path"
    raise ValueError(
        f"{os.path.abspath(resumed.path)} has {found[0]}, this run {found[1]}: choose another run "
        f"folder (hydra.run.dir) or the same {same}"
    )


def describe_difference(
    before: Mapping[str, Any], now: Mapping[str, Any], is_same_run: bool
) -> Optional[Tuple[str, str]]:
    """Compare the options of two models; return those that differ, of each; None if none does."""
    before, now = (_pick(part, is_same_run) for part in (before, now))
    different = [name for name in before if name in now and _read(name, before) != _read(name, now)]
    if not different:
        return None
    there, here = (
        ", ".join(
            f"model.{name}={'null' if part[name] is None else part[name]}"
            for name in different[:MOST_SHOWN]
        )
        for part in (before, now)
    )
    more = f" ({len(different) - MOST_SHOWN} more differ)" if len(different) > MOST_SHOWN else ""
    return there, f"{here}{more}"


def _read(name: str, options: Mapping[str, Any]) -> Any:
    """Return the value of an option; two forms of the same patches are equal."""
    value = options[name]
    return patch_sides(value) if name.endswith(".patch_size") else value


def _pick(options: Mapping[str, Any], is_same_run: bool) -> Dict[str, Any]:
    """Return the options above that a model has, by name."""
    if not options:
        return {}
    classifier = OF_ENCODER in options
    encoder = (options[OF_ENCODER] or {}).get("model") or {} if classifier else options
    # The kind has no option of its own: the names of models have published aliases.
    picked: Dict[str, Any] = {"num_classes": None, **NEWER}
    of_encoder = (*ENCODER, *NEWER, *SAME_RUN)
    of_classifier = (CLASSIFIER + SAME_CLASSIFIER * is_same_run) * classifier
    for names, values in ((of_classifier, options), (of_encoder, encoder)):
        for name in names:
            value: Any = values
            for part in name.split("."):
                value = value.get(part, ...) if isinstance(value, Mapping) else ...
            if value is not ...:
                picked[name] = value
    if not is_same_run and (classifier or picked[KIND] != "vit"):
        for name in SAME_RUN:
            picked.pop(name, None)
    return picked
