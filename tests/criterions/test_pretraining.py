"""The criterion: the objective of fairseq's stock one, and a mean per item of each loss."""

import pytest
import torch
from fairseq.criterions.model_criterion import ModelCriterion
from fairseq.logging import metrics

from eat_plugin.criterions.pretraining import PretrainingCriterion
from tests.versions import fairseq_main


class Model(torch.nn.Module):
    """Returns fixed losses of clips with 3 clones and some hidden patches each."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, num_clips=2, num_hidden=4):
        hidden, rows = num_clips * 3 * num_hidden, num_clips * 3
        return {
            "losses": {
                "regression": torch.full((hidden, 5), 0.2) * self.weight,
                "cls": torch.full((rows, 5), 0.4) * hidden * self.weight,
            },
            "loss_items": {"regression": float(hidden), "cls": float(hidden * rows)},
            "sample_size": hidden,
            "masked_pct": 0.8,
            "pred_var": torch.tensor(0.5) * self.weight.detach(),
            "target_var": torch.tensor(0.9),
            "ema_decay": 999.8,
        }


def make_sample(num_clips=2, num_hidden=4):
    net_input = {"num_clips": num_clips, "num_hidden": num_hidden}
    return {"id": torch.arange(num_clips), "net_input": net_input}


@fairseq_main
def test_forward__objective_equals_the_stock_criterions():
    model = Model()
    ours, size, _ = PretrainingCriterion(None)(model, make_sample())
    stock, stock_size, _ = ModelCriterion(None, {}, [])(model, make_sample())
    assert ours.item() == pytest.approx(stock.item())
    assert size == stock_size == 24
    assert ours.requires_grad


def test_forward__logs_tensors():
    _, _, log = PretrainingCriterion(None)(Model(), make_sample())
    for name in ("loss", "loss_cls", "loss_regression", "pred_var", "target_var"):
        assert torch.is_tensor(log[name]), name
        assert not log[name].requires_grad


def test_reduce__each_term_is_the_mean_of_one_item():
    criterion = PretrainingCriterion(None)
    logs = [
        criterion(Model(1.0), make_sample(2))[2],
        criterion(Model(4.0), make_sample(4))[2],
    ]
    with metrics.aggregate() as aggregate:
        criterion.reduce_metrics(logs)
        values = aggregate.get_smoothed_values()
    # One hidden patch: 5 * 0.2 = 1; one utterance: 5 * 0.4 = 2; times (1 * 2 + 4 * 4) / 6 clips.
    assert values["loss_regression"] == pytest.approx(3.0)
    assert values["loss_cls"] == pytest.approx(6.0)
    assert values["loss"] == pytest.approx((24 + 24 * 12 + 4 * 48 + 4 * 48 * 24) / 72)
    assert values["pred_var"] == pytest.approx((0.5 + 2.0) / 2)
    assert values["masked_pct"] == pytest.approx(0.8)


def test_reduce__weights_batches_by_hidden_patches():
    criterion = PretrainingCriterion(None)
    logs = [
        criterion(Model(1.0), make_sample(4, num_hidden=1))[2],
        criterion(Model(4.0), make_sample(1, num_hidden=8))[2],
    ]
    with metrics.aggregate() as aggregate:
        criterion.reduce_metrics(logs)
        values = aggregate.get_smoothed_values()
    # 12 hidden patches at 1, 24 at 4; 4 utterances of one hidden patch each at 2, one of 8 at 8.
    assert values["loss_regression"] == pytest.approx((12 * 1 + 24 * 4) / 36)
    assert values["loss_cls"] == pytest.approx((4 * 1 * 2 + 1 * 8 * 8) / 12)


def test_reduce__of_summed_logs_is_the_same():
    criterion = PretrainingCriterion(None)
    logs = [criterion(Model(scale), make_sample())[2] for scale in (1.0, 3.0)]
    summed = {name: logs[0][name] + logs[1][name] for name in logs[0]}
    results = []
    for outputs in (logs, [summed]):
        with metrics.aggregate() as aggregate:
            criterion.reduce_metrics(outputs)
            results.append(aggregate.get_smoothed_values())
    assert criterion.logging_outputs_can_be_summed()
    assert results[0] == pytest.approx(results[1])
