"""A CUDA graph on the CPU: operations are recorded, and run again on the same memory."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eat_plugin.modules import replay

# The host would wait for a GPU, or copy to it.
OF_HOST = {"_local_scalar_dense", "nonzero", "lift_fresh", "is_nonzero", "equal"}


def tensors_in(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def memory_of(tensor):
    return tensor.untyped_storage().data_ptr()


class Recording(TorchDispatchMode):
    """Operations, with their results, which replays overwrite.

    Attributes:
        read: tensors that are not results, the memory of each once.
        plays: number of replays.
    """

    def __init__(self):
        super().__init__()
        self.calls, self.read, self.plays = [], [], 0
        self._known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in OF_HOST, f"a graph cannot hold {name}"
        result = function(*args, **(kwargs or {}))
        for tensor in tensors_in((args, kwargs)):
            if memory_of(tensor) not in self._known:
                self._known.add(memory_of(tensor))
                self.read.append(tensor)
        self._known.update(map(memory_of, tensors_in(result)))
        self.calls.append((function, args, kwargs or {}, tensors_in(result)))
        return result

    def forget(self):
        """Blank the results: a GPU does not compute while it records."""
        read = set(map(memory_of, self.read))
        for *_, results in self.calls:
            for tensor in results:
                if memory_of(tensor) not in read:
                    tensor.data.zero_()

    @torch.no_grad()
    def replay(self):
        self.plays += 1
        for function, args, kwargs, results in self.calls:
            for old, new in zip(results, tensors_in(function(*args, **kwargs))):
                if memory_of(old) != memory_of(new):
                    old.copy_(new)


def record(function, before):
    assert before is None or isinstance(before, Recording)
    recording = Recording()
    with recording:
        result = function()
    recording.forget()
    return recording, result


def allow_on_cpu(monkeypatch):
    """Let CPUs have graphs; return those that are made."""
    made = []

    def record_and_keep(function, before):
        recording, result = record(function, before)
        made.append(recording)
        return recording, result

    monkeypatch.setattr(replay, "can_record", lambda device: True)
    monkeypatch.setattr(replay, "record", record_and_keep)
    return made
