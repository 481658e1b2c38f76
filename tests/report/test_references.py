import math

import pytest
import torch

from eat_plugin.inference import load_checkpoint
from eat_plugin.masking import MaskSpec, draw_masks
from eat_plugin.report.example import read_configuration
from eat_plugin.report.references import find_references


def values_of(references, name):
    return {(kind, value) for kind, value, _ in references[name]}


def test_find_references__are_the_losses_of_predicting_zero(make_checkpoint):
    path = make_checkpoint("pretraining", model_recon_loss=0.5, model_d2v_loss=2.0)
    references = find_references(read_configuration(path))
    model = load_checkpoint(path).model
    for linear in (model.patch_encoder.decoder.proj, model.recon_proj):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    source = torch.randn(2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    masks = draw_masks(MaskSpec((8, 8)), 2 * model.cfg.clone_batch)
    step = model.make_step(source, source, masks)
    for objective in model.objectives:
        if objective.needs_decoder:
            loss, items = objective.compute(step)
            ((kind, value),) = values_of(references, f"loss_{objective.name}")
            assert kind == "line"
            assert loss.sum().item() / items == pytest.approx(value, rel=1e-3)


def test_find_references__targets_reach_at_most_the_limit(make_checkpoint):
    path = make_checkpoint("pretraining", model_min_target_var=0.2)
    references = find_references(read_configuration(path))
    assert values_of(references, "target_var") == {("line", 1.0), ("band", 0.2)}


def test_find_references__dino_is_compared_with_a_uniform_prediction(make_checkpoint):
    path = make_checkpoint("pretraining", model_cls_loss=0.5, model_utterance_level=True)
    references = find_references(read_configuration(path))
    assert values_of(references, "loss_cls") == {("line", 0.5 * math.log(32))}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model_loss_beta": 1.0}, "loss_regression"),
        ({"model_layer_norm_targets": False}, "loss_regression"),
        ({"model_layer_norm_targets": False}, "target_var"),
        ({"model_cls_loss": 1.0}, "loss_cls"),
        ({}, "loss_recon"),
        ({}, "gnorm"),
    ],
)
def test_find_references__has_none_where_nothing_is_known(make_checkpoint, changes, name):
    assert name not in find_references(
        read_configuration(make_checkpoint("pretraining", **changes))
    )


def test_find_references__of_the_optimization():
    cfg = {"optimization": {"clip_norm": 4.0}, "lr_scheduler": {"warmup_updates": 20}}
    references = find_references(cfg)
    assert values_of(references, "gnorm") == {("line", 4.0)}
    assert values_of(references, "lr") == {("update", 20)}
    assert find_references({}) == {}
