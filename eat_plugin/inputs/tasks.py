"""The input of a checkpoint's model, from the options of its task, ours or published ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.frontend import FrontEnd
from ..sections import fill
from .images import make_image_front_end
from .published import (
    PublishedClassification,
    PublishedPretraining,
    check_key,
    published_norm,
)
from .sound import AUDIOSET, InputConfig, choose_norm, make_front_end

if TYPE_CHECKING:
    from ..images.image_reader import ImageFrontEnd

CLASSIFICATION = ("eat_classification", "mae_image_classification")
# Published name -> its options, what it is, and the name of its input.
PUBLISHED: dict[str, tuple[type[PublishedPretraining], str, str]] = {
    "mae_image_pretraining": (PublishedPretraining, "pre-training", "source"),
    "mae_image_classification": (PublishedClassification, "fine-tuning", "imgs"),
}
TASKS = ("eat_pretraining", "eat_classification", *PUBLISHED)


class Input(NamedTuple):
    """What a model hears or sees; ``images`` is None for sound."""

    front_end: FrontEnd
    images: ImageFrontEnd | None


def read_input(cfg: Mapping[str, Any]) -> Input:
    """Return the input of a checkpoint's model.

    Args:
        cfg: the whole configuration in the checkpoint, with one of ``TASKS`` in ``task._name``.

    Raises:
        ValueError: an option is invalid; the message names it.
    """
    options = cfg["task"]
    if options["_name"] in PUBLISHED:
        kind, what, key = PUBLISHED[options["_name"]]
        published = fill(kind, options, "task", cfg, ignore_unknown=True)
        check_key(published, what, key)
        task = InputConfig(published.target_length)
        task.norm_mean, task.norm_std = published_norm(published)
    else:
        task = fill(InputConfig, options, "task", cfg, ignore_unknown=True)
    choose_norm(task)
    if task.norm_mean is None:  # of an older version, or of images, which have their own
        task.norm_mean, task.norm_std = AUDIOSET
    return Input(make_front_end(task), make_image_front_end(task))
