"""EAT for Hugging Face's transformers: an encoder, and an audio classifier."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from ..modules.patches import FixedPositions
from .configuration_eat import EATConfig
from .network_eat import EATNetwork, NetworkOutput


class EATPreTrainedModel(PreTrainedModel):
    """What both models share: initialisation of weights that a folder does not have."""

    config_class = EATConfig
    main_input_name = "input_values"
    _supports_sdpa = True
    _no_split_modules = ["TransformerBlock"]  # noqa: RUF012, as transformers declares it

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, EATNetwork) and module.extra_tokens is not None:
            nn.init.normal_(module.extra_tokens)
        elif isinstance(module, FixedPositions):
            module.reset_parameters()

    def _run(
        self, input_values: Tensor, attention_mask: Tensor | None, output_hidden_states: bool | None
    ) -> tuple[NetworkOutput, tuple[Tensor, ...] | None]:
        """Run the network; return its output, and the hidden states if they are wanted."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        found = self.model(input_values, attention_mask)
        return found, found.states if output_hidden_states else None


class EATModel(EATPreTrainedModel):
    """The encoder. The classifier of a fine-tuned folder is left out."""

    _auto_class = "AutoModel"  # save_pretrained saves the code, too
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012, as transformers declares it
        r"model\.fc_norm\.", r"model\.head\.",
    ]  # fmt: skip

    def __init__(self, config: EATConfig) -> None:
        super().__init__(config)
        self.model = EATNetwork(config)
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode spectrograms [B, 1, T, 128], as ``EATFeatureExtractor`` makes them.

        Returns:
            ``last_hidden_state`` [B, 1 + L, D]: CLS, then the patches, time-major;
            ``pooler_output`` [B, D]: CLS; ``hidden_states``: the tokens that enter the blocks, then
            the output of each block.
        """
        found, states = self._run(input_values, attention_mask, output_hidden_states)
        result = BaseModelOutputWithPooling(
            last_hidden_state=found.states[-1], pooler_output=found.pooled, hidden_states=states
        )
        return result if _wants_dict(self.config, return_dict) else result.to_tuple()

    def extract_features(self, x: Tensor) -> Tensor:
        """Return the tokens of the last block, [B, 1 + L, D], as the published model does."""
        tokens: Tensor = self.model(x).states[-1]
        return tokens


class EATForAudioClassification(EATPreTrainedModel):
    """The encoder with a linear classifier on its pooled output."""

    _auto_class = "AutoModelForAudioClassification"

    def __init__(self, config: EATConfig) -> None:
        super().__init__(config)
        self.model = EATNetwork(config, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify spectrograms [B, 1, T, 128], as ``EATFeatureExtractor`` makes them.

        Args:
            input_values: the spectrograms.
            attention_mask: [B, T], 1 for frames of a clip, 0 for padding.
            labels: to compute the loss: classes [B], or with the problem type
                ``multi_label_classification`` one number per class, [B, classes].
            output_hidden_states: return the hidden states, too.
            return_dict: False for a tuple.
        """
        found, states = self._run(input_values, attention_mask, output_hidden_states)
        loss = None
        if labels is not None and found.logits is not None:
            loss = self._compare(found.logits, labels)
        result = SequenceClassifierOutput(loss=loss, logits=found.logits, hidden_states=states)
        return result if _wants_dict(self.config, return_dict) else result.to_tuple()

    def _compare(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.problem_type == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return F.cross_entropy(logits, labels.to(torch.long))


def _wants_dict(config: EATConfig, return_dict: bool | None) -> bool:
    return bool(getattr(config, "return_dict", True)) if return_dict is None else return_dict
