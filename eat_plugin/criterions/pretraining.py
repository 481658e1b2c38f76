"""Criterion ``eat_pretraining``: the sum of the model's weighted losses, each term logged."""

from typing import Any, Dict, List, Tuple

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor, nn

STATISTICS = ("pred_var", "target_var", "masked_pct", "ema_decay", "model_norm", "ema_norm")


@register_criterion("eat_pretraining", dataclass=FairseqDataclass)
class PretrainingCriterion(FairseqCriterion):
    """Sum the losses that the model returns.

    The objective is that of fairseq's stock ``model`` criterion. What differs is the log: each term
    is shown as the mean of one item of its own kind (a hidden patch, an utterance), and nothing in
    a step makes a GPU wait for the host.
    """

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Compute the loss of a batch.

        Args:
            model: returns ``eat_plugin.outputs.PretrainingOutput``.
            sample: has ``net_input`` for the model, and the clips' ``id``.
            reduce: part of fairseq's interface; the loss is always summed.

        Returns:
            The summed loss, the sample size that fairseq divides gradients by (hidden patches), and
            what is logged.
        """
        output = model(**sample["net_input"])
        sums = {name: loss.sum() for name, loss in output["losses"].items()}
        loss = torch.stack(list(sums.values())).sum()
        sample_size = output["sample_size"]
        log: Dict[str, Any] = {
            "loss": loss.detach(),
            "ntokens": sample_size,
            "nsentences": sample["id"].numel(),
            "sample_size": sample_size,
            "num_outputs": 1,
        }
        for name, value in sums.items():
            log[f"loss_{name}"] = value.detach() * (sample_size / output["loss_items"][name])
        log.update((name, output[name]) for name in STATISTICS if name in output)
        return loss, sample_size, log

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Average over micro-batches and processes, and hand over to fairseq's meters.

        All terms are means over hidden patches; an utterance counts in proportion to its own.
        """

        def total(name: str) -> Any:
            return sum(log.get(name, 0) for log in logging_outputs)

        sample_size = total("sample_size")
        metrics.log_scalar("loss", total("loss") / sample_size, sample_size, round=3)
        for name in logging_outputs[0]:
            if name.startswith("loss_"):
                metrics.log_scalar(name, total(name) / sample_size, sample_size, round=4)
            elif name in STATISTICS:
                metrics.log_scalar(name, total(name) / total("num_outputs"), round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Whether fairseq may add up what processes log before it is reduced: yes."""
        return True
