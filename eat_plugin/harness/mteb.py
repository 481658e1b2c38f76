"""MTEB and its audio tasks, MAEB (package ``mteb``).

import mteb
from eat_plugin.harness.mteb import load_model

results = mteb.evaluate(load_model("checkpoint_best.pt", device="cuda"), mteb.get_tasks(...))
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.fingerprints import take_fingerprint
from ..inference import choose_device
from .embedder import Embedder


class MtebModel(Embedder):
    """A model of ``mteb.EncoderProtocol``, see ``load_model``.

    Attributes:
        mteb_model_meta: its description, a ``mteb.ModelMeta``.
    """

    def __init__(self, checkpoint: str | os.PathLike[str], name: str, layer: int | str) -> None:
        super().__init__(checkpoint, layer)
        self.mteb_model_meta = self._describe(name)

    def _describe(self, name: str) -> Any:
        from mteb.models import ModelMeta

        path, weights = self.loaded.path, list(self.parameters())
        digest = take_fingerprint(path, checksum=True).sha256
        assert digest is not None
        return ModelMeta(
            loader=None,
            name=name or f"eat_plugin/{Path(path).stem}",
            revision=f"{digest[:12]}-layer{self.layer}",  # results are kept by name and revision
            release_date=None,
            languages=None,
            n_parameters=sum(weight.numel() for weight in weights),
            memory_usage_mb=sum(weight.nbytes for weight in weights) / 2**20,
            max_tokens=None,
            embed_dim=self.width,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name="cosine",
            use_instructions=False,
            training_datasets=None,
            modalities=["audio"],
        )

    def encode(self, inputs: Iterable[Mapping[str, Any]], **_: Any) -> np.ndarray:
        """Embed the clips of all batches, of any rate: float32 [N, D].

        Batches have a list ``audio`` of items with ``array`` and ``sampling_rate``. The further
        arguments of the protocol (task, split, prompt) make no difference to a model of sound.
        """
        batches = (batch["audio"] for batch in inputs)
        rows = [
            self.embed_clips(
                [(np.asarray(item["array"]), int(item["sampling_rate"])) for item in batch]
            )
            for batch in batches
        ]
        return np.concatenate(rows)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compute the cosines of all pairs: [N, D] and [M, D] to [N, M]."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compute the cosine of each pair: [N, D] twice to [N]."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def load_model(
    checkpoint: str | os.PathLike[str],
    device: str = "cpu",
    name: str = "",
    layer: int | str = -1,
) -> MtebModel:
    """Load a checkpoint.

    Args:
        checkpoint: the file, ours or published.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        name: ``organisation/model`` of the results; by default ``eat_plugin/`` and the name of the
            file. The revision is a checksum of the file and the layer, so that MTEB does not take
            the results of another one.
        layer: block whose output is taken, see ``Loaded.features``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an EAT checkpoint of sound, or an argument is invalid.
        ModuleNotFoundError: mteb is not installed.
    """
    found = choose_device(device)
    return MtebModel(checkpoint, name, layer).to(found)
