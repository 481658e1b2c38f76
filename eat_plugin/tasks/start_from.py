"""``checkpoint.finetune_from_model`` for a classifier."""

from typing import Any, Dict, Optional

from omegaconf import OmegaConf, open_dict

from ..checkpoint_files import read_data
from ..options import require
from .option_checks import check_checkpoints
from .resumed import UNREADABLE
from .run_config import RunConfig


def resolve_start(run: RunConfig) -> Optional[int]:
    """Make a classifier start from ``checkpoint.finetune_from_model``.

    From a pre-trained model it takes the encoder, as with ``model.model_path``; from a classifier
    the options of its encoder, and fairseq loads all weights.

    Returns:
        The number of classes of that classifier; None for another start.

    Raises:
        ValueError: the file does not exist, or ``model.model_path`` is another file.
    """
    name = "checkpoint.finetune_from_model"
    path = run.get(name)
    if not path or run.root is None:
        return None
    check_checkpoints(run)
    given = run.get("model.model_path")
    require(given in (None, path), "model.model_path", given, f"{name} is {path}: give one of them")
    options = _read_model_options(path)
    encoder = options.get("pretrained_model_args")
    with open_dict(run.root):
        run.root.model.model_path = None if encoder else path
        if encoder:
            run.root.model.pretrained_model_args = OmegaConf.create(encoder)
            OmegaConf.set_struct(run.root.model.pretrained_model_args, False)
        else:
            run.root.checkpoint.finetune_from_model = None
    return options.get("num_classes") if encoder else None


def refuse_classifier(run: RunConfig) -> None:
    """Raise ValueError if pre-training is to start from a classifier, which has no decoder."""
    path = run.get("checkpoint.finetune_from_model")
    if path and _read_model_options(path).get("pretrained_model_args"):
        raise ValueError(
            f"checkpoint.finetune_from_model is {path!r}, a classifier; pre-training starts from a "
            "pre-trained model"
        )


def _read_model_options(path: str) -> Dict[str, Any]:
    """Return the model's options in a checkpoint; none if it cannot be read: the model says why."""
    try:
        return dict(read_data(path, check=False, only_data=True)["cfg"]["model"])
    except UNREADABLE:
        return {}
