"""Registration of all names with fairseq.

fairseq's own scan of a ``user_dir`` reads ``tasks/`` and ``models/`` alone, and nothing if the
package was imported before.
"""

import functools
import typing
from types import ModuleType

NAMES = {
    "task": (
        "eat_pretraining", "eat_classification", "mae_image_pretraining",
        "mae_image_classification",
    ),
    "model": ("eat", "eat_classifier", "data2vec_multi", "mae_image_classification"),
    "criterion": ("eat_pretraining", "eat_classification"),
    "optimizer": ("eat_adamw",),
}  # fmt: skip


def register() -> None:
    """Import everything that registers a name.

    Raises:
        ImportError: another package has one of the names; fairseq would keep its class.
    """
    from fairseq.criterions import CRITERION_REGISTRY
    from fairseq.models import MODEL_REGISTRY
    from fairseq.optim import OPTIMIZER_REGISTRY
    from fairseq.tasks import TASK_REGISTRY

    from . import criterions, optim, registered, tasks  # noqa: F401

    registries = {
        "task": TASK_REGISTRY, "model": MODEL_REGISTRY,
        "criterion": CRITERION_REGISTRY, "optimizer": OPTIMIZER_REGISTRY,
    }  # fmt: skip
    for kind, names in NAMES.items():
        # A name may be missing while its own module is being imported.
        for name in registries[kind].keys() & set(names):
            owner = registries[kind][name].__module__
            if not owner.startswith(f"{__package__}."):
                raise ImportError(
                    f"fairseq has a {kind} {name!r} from {owner} already; import eat_plugin first, "
                    "or leave that package out"
                )


def read_unions(utils: ModuleType) -> None:
    """Let fairseq read ``Optional[str]`` in Python 3.14, where it prints as ``str | None``.

    Args:
        utils: ``fairseq.dataclass.utils``, before the tasks of fairseq are imported.
    """
    given = utils.interpret_dc_type

    @functools.wraps(given)
    def interpret(field_type: typing.Any) -> typing.Any:
        kinds = typing.get_args(field_type)
        return kinds[0] if type(None) in kinds else given(field_type)

    utils.interpret_dc_type = interpret  # type: ignore[attr-defined]
