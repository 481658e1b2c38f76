"""What a monitor measures of a model, which stays as it was."""

import pytest
import torch


def test_examine__leaves_the_model_and_the_generator_alone(make_model, batch):
    model = make_model(encoder_dropout=0.5, layerdrop=0.5).train()
    model.blocks[0].eval()  # a part that someone has frozen
    model.teacher.encoder.blocks[1].compiled_in_evaluation = True
    before = torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    first, second = (model.examine(batch["source"]) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert model.teacher.encoder.blocks[1].compiled_in_evaluation
    for name in ("targets", "patches", "cls"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert not getattr(first, name).requires_grad


def test_examine__gives_targets_features_and_cls(make_model, batch):
    model, source = make_model().eval(), batch["source"]
    found = model.examine(source)
    features = model.extract_features(source, remove_extra_tokens=False)["x"]
    assert torch.equal(found.cls, features[:, 0])
    assert torch.equal(found.patches, features[:, 1:])
    assert torch.equal(found.targets, model.teacher.make_targets(model, source, None)[0])
    assert found.padding is None
    assert model.examine(source, with_targets=False).targets is None


def test_examine__does_not_depend_on_padding(make_model, batch):
    model, padding = make_model().eval(), torch.zeros(2, 64, dtype=torch.bool)
    padding[1, 32:] = True
    source = batch["source"].clone()
    found = model.examine(source, padding)
    source[1, :, 64:] = torch.nan
    again = model.examine(source, padding)
    assert torch.equal(found.targets[~padding], again.targets[~padding])
    assert found.patches[~padding].numpy() == pytest.approx(again.patches[~padding].numpy())
