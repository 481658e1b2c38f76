"""Where a loss or gradient that is not finite comes from: the first tensor, and the clips."""

import logging
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

ELSEWHERE = "nothing is wrong in this process; see the logs of the others"


class NotFinite:
    """Watches while fairseq repeats the forward and backward of an update that has failed.

    It takes the place of fairseq's ``NanDetector``, which names modules, but neither clips nor
    inputs, weights and gradients, and prints whole tensors.

    Args:
        model: the model, without wrappers.
        task: has the data set.
        samples: the batches of the update.

    Attributes:
        found: what is not finite, in one line; empty before the end.
    """

    def __init__(self, model: nn.Module, task: Any, samples: Sequence[Any]) -> None:
        self.found = ""
        self._model, self._task, self._samples = model, task, samples
        self._batch = -1  # that is being computed
        self._handles: List[Any] = []
        self._replayed = getattr(model, "replayed", None)  # by a CUDA graph, which calls no hooks

    def __enter__(self) -> "NotFinite":
        if self._replayed is not None:
            self._model.replayed = None  # type: ignore[assignment]
        for name, weight in self._model.named_parameters():
            if not _is_finite(weight):
                self._note(f"the weight {name}")
            if weight.requires_grad:
                self._handles.append(weight.register_hook(self._check_gradient(name)))
        self._handles.append(
            self._model.register_forward_pre_hook(self._check_input, with_kwargs=True)
        )
        for name, module in _list_modules(self._model):
            self._handles.append(module.register_forward_hook(self._check_output(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        if self._replayed is not None:
            self._model.replayed = self._replayed
        self.found = self.found or ELSEWHERE

    def _check_input(self, _: nn.Module, positional: Any, named: Dict[str, Any]) -> None:
        self._batch += 1
        for name, value in _list_tensors([*positional, named]):
            if not _is_finite(value):
                clips = torch.nonzero(~value.flatten(1).isfinite().all(dim=1)).flatten().tolist()
                self._note(f"the input{name}", clips, "look at these clips, or leave them out")

    def _check_output(self, module: str) -> Any:
        def check(_: nn.Module, inputs: Any, output: Any) -> None:
            for name, value in _list_tensors(output):
                if not _is_finite(value):
                    self._note(f"the output{name} of {module or 'the model'}")

        return check

    def _check_gradient(self, name: str) -> Any:
        def check(gradient: Tensor) -> None:
            if not _is_finite(gradient):
                self._note(f"the gradient of {name}")

        return check

    def _note(
        self, what: str, rows: Sequence[int] = (), fix: str = "a smaller optimization.lr may help"
    ) -> None:
        """Keep the first that is not finite, and the names of the clips of the batch."""
        if self.found:
            return
        names = self._name_clips()
        chosen = [names[row] for row in rows if row < len(names)]
        of = "of the clips" if chosen else "with a batch of the clips"
        clips = f" {of} {', '.join(map(repr, chosen or names))}" if names else ""
        self.found = f"{what} is not finite,{clips}; {fix}"

    def _name_clips(self) -> List[str]:
        sample = self._samples[self._batch] if 0 <= self._batch < len(self._samples) else None
        if not sample:  # fairseq computes the first batch again where there is none
            return []
        manifest = self._task.dataset(self._task.train_split).reader.manifest
        replaced = sample["replaced"].tolist()
        return [
            f"{manifest.name(clip)} (replaced)" if other else manifest.name(clip)
            for clip, other in zip(sample["id"].tolist(), replaced)
        ]


def _list_modules(model: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    yield from model.named_modules()
    teacher = getattr(model, "teacher", None)
    if teacher is not None:
        for name, module in teacher.encoder.named_modules():
            yield f"teacher.{name}" if name else "teacher", module


def _list_tensors(value: Any, name: str = "") -> Iterator[Tuple[str, Tensor]]:
    """Yield the floating-point tensors in lists and dictionaries, with their names."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _list_tensors(item, f" {key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _list_tensors(item, name)


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())
