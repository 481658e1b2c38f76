"""X-ARES (package ``xares``): the base of an encoder, which is a file of three lines.

    from eat_plugin.harness import xares

    class MyModelEncoder(xares.EncoderBase):
        checkpoint = "/my/finetuned/checkpoints/checkpoint_best.pt"

X-ARES keeps embeddings and results under the name of the class: each checkpoint needs its own.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ..data.frames import SAMPLE_RATE
from .embedder import Embedder


class EncoderBase(Embedder):
    """An encoder of X-ARES; a subclass whose name ends in ``Encoder`` sets ``checkpoint``.

    Attributes:
        sampling_rate: in Hz.
        output_dim: D.
        hop_size_in_ms: from a column to the next one.
    """

    checkpoint: ClassVar[str] = ""
    layer: int | str = -1
    sampling_rate = SAMPLE_RATE

    def __init__(self) -> None:
        if not self.checkpoint:
            raise ValueError(f"set checkpoint in the class {type(self).__name__} to a file")
        super().__init__(self.checkpoint, type(self).layer)
        self.output_dim = self.width
        self.hop_size_in_ms = 1000 * self.hop // SAMPLE_RATE

    def forward(self, audio: Tensor) -> Tensor:
        """Embed clips [B, samples] along time: float32 [B, T, D]."""
        return self.embed_frames(audio).x
