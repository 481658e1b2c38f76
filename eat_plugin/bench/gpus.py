"""What GPUs can do at most."""

from __future__ import annotations

import torch

# Dense matrix products in bfloat16, in operations a second, by the makers' data sheets. The first
# name that is part of the device's own counts.
PEAKS = {
    "H200 NVL": 835e12, "H200": 989e12,
    "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12,
    "A100": 312e12,
}  # fmt: skip


def peak_of(device: torch.device) -> float | None:
    """Return the most operations a second that a device does in bfloat16; None if unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
