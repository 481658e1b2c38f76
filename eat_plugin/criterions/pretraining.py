"""Criterion ``eat_pretraining``: the sum of the model's weighted losses; logs each of them."""

from typing import Any, Dict, List, Tuple

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from torch import Tensor, nn

STATISTICS = (
    "pred_var", "target_var", "masked_pct", "ema_decay", "model_norm", "ema_norm",
    "dino_entropy", "dino_entropy_of_mean", "dino_log_prototypes",
)  # fmt: skip


@register_criterion("eat_pretraining", dataclass=FairseqDataclass)
class PretrainingCriterion(FairseqCriterion):
    """Sum the losses of the model.

    The objective equals that of fairseq's stock ``model`` criterion. The log differs: each loss is
    the mean of one of its items, and a step does not make a GPU wait for the host.
    """

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Return the summed loss, the divisor of gradients, and the log.

        The model returns ``outputs.PretrainingOutput``; ``reduce`` is ignored.
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
        """Average over micro-batches and ranks, weighted by the number of hidden patches."""

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
        """Return True: fairseq may add up the logs of all ranks."""
        return True
