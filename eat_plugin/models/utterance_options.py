"""Options of the objectives that the published code does not have: of whole clips, of mixtures.

``eat export`` leaves them out, and with them the parts of the model that they add.
"""

from dataclasses import dataclass, fields
from typing import Any, Mapping

from ..options import option

CLS_TARGETS = ("targets", "layers", "last", "cls", "last_targets")
UNIFORM = ("targets", "last_targets")  # after instance norm nearly the same for every clip
PARTS = ("dino_head.",)  # prefixes of weights


@dataclass
class UtteranceOptions:
    """Targets and losses of whole clips."""

    cls_target: str = option(
        "targets",
        "what the teacher gives for a whole clip: targets, the mean of the patch targets (after "
        "instance norm nearly the same for every clip); layers, the mean over patches of the "
        "averaged blocks without instance norm; last, the same of the last block; cls, the CLS "
        "token (these three with LayerNorm); last_targets, the mean of targets of the last block",
    )
    dino_loss: float = option(0.0, "weight of DINO with prototypes; it needs another cls_target")
    dino_prototypes: int = option(256, "number of DINO's prototypes")


@dataclass
class MixtureOptions:
    """Mixtures of the clips of a batch, see ``source_retention``."""

    retention_loss: float = option(
        0.0,
        "weight of source retention on mixtures of the batch's clips (SSLAM); above 0 the student "
        "sees each clip and a mixture",
    )
    mixed_share: float = option(34 / 64, "share of a clip's time steps that are mixed")


def default_options() -> dict[str, Any]:
    """Return the options above with their defaults."""
    return {
        one.name: one.default for kind in (UtteranceOptions, MixtureOptions) for one in fields(kind)
    }


def without_parts(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the weights that these options add, the averages' (``_ema``) too."""
    kept = {name: value for name, value in weights.items() if not name.startswith(PARTS)}
    if isinstance(kept.get("_ema"), Mapping):
        kept["_ema"] = without_parts(kept["_ema"])
    return kept
