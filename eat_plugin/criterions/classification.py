"""Criterion ``eat_classification``: the loss of the classifier, and scores in evaluation."""

from typing import Any, Dict, List, Tuple

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor, nn

SCORES = ("_predictions", "_targets")


@register_criterion("eat_classification", dataclass=FairseqDataclass)
class ClassificationCriterion(FairseqCriterion):
    """Sum the loss over clips; the task computes metrics from the scores.

    The objective equals that of fairseq's stock ``model`` criterion.
    """

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Any, Dict[str, Any]]:
        """Return the summed loss, the divisor of gradients, and the log.

        The model returns ``outputs.ClassificationOutput``; ``reduce`` is ignored.
        """
        output = model(**sample["net_input"])
        loss = torch.stack([loss.sum() for loss in output["losses"].values()]).sum()
        log: Dict[str, Any] = {
            "loss": loss.detach(),
            "ntokens": output["sample_size"],
            "nsentences": sample["id"].numel(),
            "sample_size": output["sample_size"],
        }
        log.update((name, output[name]) for name in SCORES if name in output)
        return loss, output["sample_size"], log

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Average over micro-batches and ranks."""
        loss = sum(log.get("loss", 0) for log in logging_outputs)
        sample_size = sum(log.get("sample_size", 0) for log in logging_outputs)
        metrics.log_scalar("loss", loss / sample_size, sample_size, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Return True: the task has removed the scores, only sums are left."""
        return True
