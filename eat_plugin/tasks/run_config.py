"""fairseq's whole configuration, as a task reaches it."""

from typing import Any, List, Optional

from omegaconf import DictConfig


class RunConfig:
    """fairseq's whole configuration, reached from a task's section.

    Args:
        task: the task's options as fairseq passes them; without a parent, every option is None.

    Attributes:
        root: the whole configuration; None if the task's options have no parent.
        choices: options that were chosen at start, as overrides.
    """

    def __init__(self, task: Any) -> None:
        root: Any = task._get_parent() if isinstance(task, DictConfig) else None
        self.root: Optional[DictConfig] = root if isinstance(root, DictConfig) else None
        self.choices: List[str] = []

    def get(self, path: str) -> Any:
        """Return an option by ``section.option``; None if it does not exist.

        (``get`` of omegaconf 2.0 raises for a field that a dataclass does not have.)
        """
        node: Any = self.root
        for name in path.split("."):
            if not isinstance(node, DictConfig) or name not in node:
                return None
            node = node[name]
        return node
