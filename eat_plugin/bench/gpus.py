"""What GPUs can do at most, and how to do without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

# Dense matrix products in bfloat16, in operations a second, by the makers' data sheets. The first
# name that is part of the device's own counts.
PEAKS = {
    "H200 NVL": 835e12, "H200": 989e12,
    "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12,
    "A100": 312e12,
}  # fmt: skip


@contextmanager
def hide_gpus() -> Iterator[None]:
    """Let fairseq see no GPU: where it sees one, it clips gradients of the CPU there."""
    with mock.patch.object(torch.cuda, "is_available", return_value=False):
        yield


def peak_of(device: torch.device) -> float | None:
    """Return the most operations a second that a device does in bfloat16; None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
