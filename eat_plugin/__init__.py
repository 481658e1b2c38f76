"""EAT (Efficient Audio Transformer) for fairseq: importing it registers everything by name.

Tasks, models, criterions and the optimizer are registered here rather than by fairseq's scan of a
``user_dir``, which reads ``tasks/`` and ``models/`` alone, and nothing at all where the package was
imported before.
"""

import logging

# fairseq recommends a package for speech synthesis whenever it is imported.
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import MODEL_REGISTRY
from fairseq.optim import OPTIMIZER_REGISTRY
from fairseq.tasks import TASK_REGISTRY

from . import criterions, models, optim, tasks

__version__ = "0.1.0"

__all__ = ["criterions", "models", "optim", "tasks"]

REGISTERED = {
    "task": (
        TASK_REGISTRY,
        (
            "eat_pretraining", "eat_classification",
            "mae_image_pretraining", "mae_image_classification",
        ),
    ),
    "model": (
        MODEL_REGISTRY,
        ("eat", "eat_classifier", "data2vec_multi", "mae_image_classification"),
    ),
    "criterion": (CRITERION_REGISTRY, ("eat_pretraining", "eat_classification")),
    "optimizer": (OPTIMIZER_REGISTRY, ("eat_adamw",)),
}


def _refuse_name_clashes() -> None:
    """Raise ImportError if another package has one of the names; fairseq would keep its class."""
    for kind, (registry, names) in REGISTERED.items():
        for name in names:
            owner = registry[name].__module__
            if not owner.startswith(f"{__name__}."):
                raise ImportError(
                    f"fairseq has a {kind} {name!r} from {owner} already; import eat_plugin first, "
                    "or leave that package out"
                )


_refuse_name_clashes()
