"""Work of the first of several processes, of which all learn the result."""

from typing import Any, Callable, List, TypeVar

import torch

Result = TypeVar("Result")


def in_first_process(function: Callable[[], Result]) -> Result:
    """Call a function in the first process; all processes return its result or raise its error.

    Raises:
        ValueError: the function raised a ValueError or OSError.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    shared: List[Any] = [None, ""]
    if not distributed or torch.distributed.get_rank() == 0:
        try:
            shared[0] = function()
        except OSError as error:
            shared[1] = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        except ValueError as error:
            shared[1] = str(error)
    if distributed:
        torch.distributed.broadcast_object_list(shared, src=0)
    if shared[1]:
        raise ValueError(shared[1])
    result: Result = shared[0]
    return result
