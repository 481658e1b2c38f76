"""EVAR (https://github.com/nttcslab/eval-audio-repr): a representation for its linear evaluation.

In a checkout of EVAR write ``evar/ar_eat_plugin.py`` with the line

    from eat_plugin.harness.evar import AR_EAT

add ``import evar.ar_eat_plugin`` to ``lineareval.py``, and set ``audio_repr: ar_eat_plugin.AR_EAT``
and ``weight_file`` in a copy of ``config/eat.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..data.frames import SAMPLE_RATE
from .embedder import Embedder


class AR_EAT(Embedder):  # noqa: N801, as EVAR names its classes
    """A representation of EVAR.

    Args:
        cfg: configuration of EVAR: ``weight_file``, the checkpoint; ``sample_rate``; optionally
            ``layer``, see ``Embedder``.

    Raises:
        OSError: the checkpoint cannot be read.
        ValueError: the rate is not 16 kHz, or the checkpoint or layer is invalid.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        if cfg["sample_rate"] != SAMPLE_RATE:
            raise ValueError(f"sample_rate is {cfg['sample_rate']}; the model needs {SAMPLE_RATE}")
        super().__init__(cfg["weight_file"], cfg.get("layer", -1))
        self.cfg = cfg

    def precompute(self, device: Any, data_loader: Any) -> None:
        """Do nothing: the checkpoint has the statistics of its inputs."""

    def encode_frames(self, batch_audio: Tensor) -> Tensor:
        """Embed clips [B, samples] along time: float32 [B, D, T]."""
        return self.embed_frames(batch_audio).x.transpose(1, 2)

    def forward(self, batch_audio: Tensor) -> Tensor:
        """Embed whole clips [B, samples]: float32 [B, D]."""
        return self.embed_frames(batch_audio).x.mean(dim=1)
