"""Names of weights: in a checkpoint, and in a Hugging Face folder, ours or a published one.

Published folders: huggingface.co/worstchan/EAT-base_epoch30_pretrain and _finetune_AS2M. They have
neither the decoder nor the teacher (``_ema``).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..models.encoder import MODALITY
from ..models.interop import CLASSIFIER_PREFIX

PREFIX = "model."  # of all names in a folder
_PATCHES = f"modality_encoders.{MODALITY}."
# Beginning of a name in ``EatEncoder`` -> in a folder, after ``PREFIX``.
ENCODER = {
    f"{_PATCHES}context_encoder.norm.": "pre_norm.",
    f"{_PATCHES}extra_tokens": "extra_tokens",
    f"{_PATCHES}local_encoder.": "local_encoder.",
    f"{_PATCHES}fixed_positional_encoder.": "fixed_positional_encoder.",
    "blocks.": "blocks.",
    "norm.": "norm.",
}
HEAD = {"fc_norm.": "fc_norm.", "head.": "head."}  # of a classifier


def _table(is_classifier: bool) -> dict[str, str]:
    """Return the beginnings of all names in a checkpoint, and of those in a folder."""
    own = CLASSIFIER_PREFIX if is_classifier else ""
    table = {f"{own}{name}": f"{PREFIX}{other}" for name, other in ENCODER.items()}
    if is_classifier:
        table.update({name: f"{PREFIX}{other}" for name, other in HEAD.items()})
    return table


def name_in_folder(name: str, is_classifier: bool) -> str:
    """Return the name in a folder of a weight of a checkpoint's encoder or classifier.

    Raises:
        ValueError: folders have no such weight.
    """
    found = _rename(name, _table(is_classifier))
    if found is None:
        raise ValueError(f"a Hugging Face folder has no weight for {name!r}")
    return found


def name_in_checkpoint(name: str, is_classifier: bool) -> str | None:
    """Do the reverse; None for a name that no folder of EAT has."""
    return _rename(name, {start: own for own, start in _table(is_classifier).items()})


def _rename(name: str, table: Mapping[str, str]) -> str | None:
    for start, other in table.items():
        if name.startswith(start):
            return other + name[len(start) :]
    return None
