"""``checkpoint.finetune_from_model``: the checkpoint that a new run starts from."""

from typing import Any, Dict, Optional, Tuple

from omegaconf import OmegaConf, open_dict

from ..checkpoint_files import read_data
from ..data.statistics import WHOLE
from ..options import require
from .choosing import Known, front_end_of
from .option_checks import check_checkpoints
from .resumed import UNREADABLE
from .run_config import RunConfig
from .same_model import OF_ENCODER, describe_difference

NAME = "checkpoint.finetune_from_model"


def resolve_start(run: RunConfig) -> Optional[int]:
    """Make a classifier start from ``checkpoint.finetune_from_model``.

    From a pre-trained model it takes the encoder, as with ``model.model_path``; from a classifier
    the options of its encoder, and fairseq loads all weights.

    Returns:
        The number of classes of that classifier; None for another start.

    Raises:
        ValueError: the file does not exist, or ``model.model_path`` is another file; or the
            classifier has another head.
    """
    path = run.get(NAME)
    if not path or run.root is None:
        return None
    check_checkpoints(run)
    given = run.get("model.model_path")
    require(given in (None, path), "model.model_path", given, f"{NAME} is {path}: give one of them")
    options = _read_options(path, "model")
    encoder = options.get("pretrained_model_args")
    if encoder:
        _check_head(run, path, options)
    with open_dict(run.root):
        run.root.model.model_path = None if encoder else path
        if encoder:
            run.root.model.pretrained_model_args = OmegaConf.create(encoder)
            OmegaConf.set_struct(run.root.model.pretrained_model_args, False)
        else:
            run.root.checkpoint.finetune_from_model = None
    return options.get("num_classes") if encoder else None


def _check_head(run: RunConfig, path: str, before: Dict[str, Any]) -> None:
    now: Any = OmegaConf.to_container(run.get("model"), resolve=True, enum_to_str=True)
    shared = {"num_classes": None, OF_ENCODER: before[OF_ENCODER]}  # classes are compared later
    _refuse(path, describe_difference({**before, **shared}, {**now, **shared}, is_same_run=True))


def _refuse(path: str, difference: Optional[Tuple[str, str]]) -> None:
    if difference is not None:
        raise ValueError(
            f"{NAME} is {path!r}, which has {difference[0]}, this run {difference[1]}: give the "
            "same settings"
        )


def check_front_end(run: RunConfig, now: str) -> None:
    """Refuse a checkpoint to start from that was trained on other spectrograms.

    Args:
        run: the configuration; published names of tasks have no option for it.
        now: the front end of the task.

    Raises:
        ValueError: the checkpoint has another one.
    """
    start = Known(run).start
    if start is None:
        return
    before = front_end_of(start)
    rule = f"the checkpoint to start from was trained with {before}: set it to {before}"
    if run.get("task.frontend") is None and before != now:
        rule += f"; task._name={run.get('task._name')} has {now} alone"
    require(now == before, "task.frontend", now, rule)


# Weights of an objective: it is on in both runs, or in none.
WITH_WEIGHTS = ("recon_loss", "dino_loss")


def check_first_stage(run: RunConfig) -> None:
    """Refuse a checkpoint from which pre-training cannot continue.

    Raises:
        ValueError: it is a classifier or an encoder, which has no decoder; its model has other
            weights; or its inputs were normalised in another way.
    """
    path = run.get(NAME)
    before = _read_options(path, "model") if path else {}
    if before.get("pretrained_model_args"):
        raise ValueError(
            f"{NAME} is {path!r}, a classifier; pre-training starts from a pre-trained model"
        )
    if before.get("skip_ema"):
        raise ValueError(
            f"{NAME} is {path!r}, an encoder without decoder and teacher, as eat import and "
            "eat export --format safetensors write it; pre-training starts from a pre-trained model"
        )
    if not before:
        return
    now: Any = OmegaConf.to_container(run.get("model"), resolve=True, enum_to_str=True)
    task = run.get("task") or {}
    found = describe_difference(before, now, is_same_run=False)
    for name in WITH_WEIGHTS:
        values = [part.get(name) or 0 for part in (before, now)]
        if found is None and bool(values[0]) != bool(values[1]):
            found = (f"model.{name}={values[0]}", f"model.{name}={values[1]}")
    norms = [str(part.get("norm") or WHOLE) for part in (_read_options(path, "task"), task)]
    if found is None and norms[0] != norms[1]:
        found = (f"task.norm={norms[0]}", f"task.norm={norms[1]}")
    _refuse(path, found)


def _read_options(path: str, section: str) -> Dict[str, Any]:
    """Return a section of a checkpoint; nothing if it cannot be read: the model says why."""
    try:
        return dict(read_data(path, check=False, only_data=True)["cfg"][section])
    except UNREADABLE:
        return {}
