"""The configuration of EAT for Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from .network_eat import DEFAULTS


class EATConfig(PretrainedConfig):
    """Options of the network; ``network_eat.DEFAULTS`` has their names."""

    model_type = "eat"
    attribute_map = {  # noqa: RUF012, as transformers declares it
        "hidden_size": "embed_dim", "num_hidden_layers": "depth",
        "num_attention_heads": "num_heads",
    }  # fmt: skip

    def __init__(self, **kwargs: Any) -> None:
        own = {name: kwargs.pop(name, default) for name, default in DEFAULTS.items()}
        super().__init__(**kwargs)
        # Not before: max_length has another meaning in transformers 4.
        for name, value in own.items():
            setattr(self, name, value)

    def _get_generation_parameters(self) -> dict[str, Any]:
        """Say that max_length is none of text generation; transformers 5 saves none of these."""
        return {}

    _get_non_default_generation_parameters = _get_generation_parameters  # of transformers 4
