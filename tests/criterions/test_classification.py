"""The criterion of fine-tuning: the objective of fairseq's stock one, and scores."""

import pytest
import torch
from fairseq.criterions.model_criterion import ModelCriterion
from fairseq.logging import metrics

from eat_plugin.criterions.classification import ClassificationCriterion


class Model(torch.nn.Module):
    """Returns fixed losses; scores in evaluation."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, num_clips=2):
        output = {
            "losses": {"main": torch.full((num_clips, 3), 0.5) * self.weight},
            "sample_size": torch.tensor(4.0),
        }
        if not self.training:
            output.update(_predictions=torch.rand(2, 3), _targets=torch.eye(3)[:2])
        return output


SAMPLE = {"id": torch.arange(2), "net_input": {}}


def test_forward__objective_equals_the_stock_criterions():
    model = Model()
    ours, size, _ = ClassificationCriterion(None)(model, SAMPLE)
    stock, stock_size, _ = ModelCriterion(None, {}, [])(model, SAMPLE)
    assert ours.item() == pytest.approx(stock.item()) == 3
    assert size == stock_size == 4
    assert ours.requires_grad


def test_forward__scores_in_evaluation_only():
    _, _, log = ClassificationCriterion(None)(Model().eval(), SAMPLE)
    assert {"_predictions", "_targets"} < log.keys()
    _, _, log = ClassificationCriterion(None)(Model().train(), SAMPLE)
    assert not any(name.startswith("_") for name in log)


def test_reduce_metrics__averages_over_ranks_by_sample_size():
    logs = [{"loss": 6.0, "sample_size": 2}, {"loss": 6.0, "sample_size": 4}]
    with metrics.aggregate(new_root=True) as total:
        ClassificationCriterion.reduce_metrics(logs)
    assert total.get_smoothed_values()["loss"] == 2
