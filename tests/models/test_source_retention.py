"""Source retention (SSLAM): its inputs and target by hand, EAT's losses, any shape of input."""

import json

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.inference import load_checkpoint
from eat_plugin.masking import MaskSpec, draw_masks, join_masks
from eat_plugin.models.mixtures import draw_mixing
from eat_plugin.modules.patches import column_padding
from tests.models.conftest import GOLDEN, MICRO

LAYOUTS = json.loads((GOLDEN / "state_dict_layouts.json").read_text())
TASK = json.loads((GOLDEN / "pretraining_micro.json").read_text())["task"]
SEED = 3  # of the batch
CPU = torch.device("cpu")
ON = {"retention_loss": 1.0, "cls_target": "last_targets"}
EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture
def make_both(make_model):
    """A model of the second stage, and one of EAT with the same weights."""

    def make(**changes):
        return make_model(**ON, **changes), make_model(cls_target="last_targets", **changes)

    return make


@pytest.fixture
def three(batch):
    """Three clips, so that the clip before another is not the one behind it."""
    source, masks = batch["source"], batch["precomputed_mask"]
    return {
        "source": torch.cat([source, 0.5 * source[:1].flip(2)]),
        "precomputed_mask": torch.cat([masks, masks[:3]]),
    }


def steps_of(model, monkeypatch):
    """Keep the steps that a model makes."""
    make, steps = model.make_step, []

    def keep(**inputs):
        steps.append(make(**inputs))
        return steps[-1]

    monkeypatch.setattr(model, "make_step", keep)
    return steps


def test_inputs__are_clips_and_mixtures_under_the_same_masks(make_model, batch, monkeypatch):
    model = make_model(**ON)
    steps = steps_of(model, monkeypatch)
    result = model(**batch, noise_seed=SEED)
    (step,) = steps
    source, columns = batch["source"], draw_mixing((8, 8), 2, None, 34 / 64, SEED, CPU).columns
    frames = columns[0].repeat_interleave(16)
    larger = torch.maximum(source, source.flip(0))  # of two clips each follows the other
    assert torch.equal(step.source[:2], source)
    assert torch.equal(step.source[2:, :, frames], larger[:, :, frames])
    assert torch.equal(step.source[2:, :, ~frames], source[:, :, ~frames])
    assert int(columns.sum()) == 4  # 34 of 64, on 8 columns
    rows = step.split.visible
    assert torch.equal(rows[:6], rows[6:])
    assert result["sample_size"] == 2 * 6 * (64 - 12)
    assert step.targets.shape == (4, 64, 32)
    assert result["losses"]["cls"].shape == (12, 32)
    assert result["losses"]["regression"].shape == (2 * 6 * 52, 32)
    assert result["losses"]["retention"].shape == (6 * 52, 32)


def test_loss__by_hand(make_model, three, monkeypatch):
    model = make_model(**ON).eval()
    steps = steps_of(model, monkeypatch)
    result = model(**three, noise_seed=SEED)
    (step,) = steps
    encoder = model.teacher.encoder
    patches = encoder.patch_encoder
    columns = draw_mixing((8, 8), 3, None, 34 / 64, SEED, CPU).columns[0]
    is_mixed = columns.repeat_interleave(8)  # [64]

    def encode(clip, seen):
        """Targets of the patches that the teacher sees of a clip."""
        tokens = patches.embed(clip[None])[:, seen]
        x = torch.cat([patches.extra_tokens, tokens], dim=1)
        x, layers = patches.context_encoder(x), []
        for block in encoder.blocks:
            x, target = block(x)
            layers.append(F.instance_norm(target[:, 1:].transpose(1, 2)).transpose(1, 2))
        return F.layer_norm(sum(layers) / 2, (32,))[0]

    expected = []
    for clip in range(3):
        target = encode(three["source"][clip], torch.ones(64, dtype=torch.bool))
        other = encode(three["source"][clip - 1], is_mixed)
        target[is_mixed] = (target[is_mixed] + other) / 2
        hidden = three["precomputed_mask"].bool()[3 * clip : 3 * clip + 3]
        expected += [target[mask] for mask in hidden]
    mixtures = step.prediction[len(step.prediction) // 2 :]
    error = (mixtures - torch.cat(expected)).square() / 32**0.5
    torch.testing.assert_close(result["losses"]["retention"], 2 * error, **EXACT)
    assert result["loss_items"]["retention"] == result["sample_size"]


@pytest.mark.parametrize("dino", [False, True])
def test_losses__without_mixing_are_those_of_eat(make_both, batch, dino):
    both = make_both(recon_loss=0.5, cls_loss=0.3, utterance_level=dino)
    model, eat = (one.eval() for one in both)
    model.objectives[-1].cfg.mixed_share = 0.0
    found, expected = (one(**batch, noise_seed=SEED) for one in (model, eat))
    assert found["sample_size"] == 2 * expected["sample_size"]
    for name, loss in expected["losses"].items():
        mean = loss.sum() / expected["loss_items"][name]
        own = found["losses"][name].sum() / found["loss_items"][name]
        if dino and name == "cls":  # a mean over utterances, times the sample size
            own, mean = found["losses"][name] / 2, loss
        torch.testing.assert_close(own, mean, **EXACT)
    regression, retention = (found["losses"][name] for name in ("regression", "retention"))
    torch.testing.assert_close(retention, 2 * regression[len(retention) :], **EXACT)


def test_losses__of_mixtures_differ_from_those_of_clips(make_model, batch):
    losses = make_model(**ON).eval()(**batch, noise_seed=SEED)["losses"]["regression"]
    first, second = losses.chunk(2)
    assert not torch.allclose(first.mean(), second.mean(), rtol=1e-3)


def test_gradients__reach_the_student_alone(make_model, batch):
    model = make_model(**ON, d2v_loss=0.0, cls_loss=0.0).train()
    losses = model(**batch, noise_seed=SEED)["losses"]
    assert list(losses) == ["retention"]
    losses["retention"].sum().backward()
    assert all(weight.grad is None for weight in model.teacher.module.parameters())
    missing = {name for name, weight in model.named_parameters() if weight.grad is None}
    assert missing == {"modality_encoders.IMAGE.fixed_positional_encoder.positions"}


def test_losses__published_shape(make_model, monkeypatch):
    long = {"modalities__image__target_length": 1024, "modalities__image__max_length": 64}
    model = make_model(**ON, clone_batch=8, **long)
    steps = steps_of(model, monkeypatch)
    source = torch.randn(2, 1, 1024, 128, dtype=torch.float64)
    masks = draw_masks(MaskSpec((64, 8)), 16)
    result = model(source, precomputed_mask=masks, num_visible=102, noise_seed=SEED)
    assert result["sample_size"] == 2 * 2 * 8 * 410  # of 12 clips: 78,720
    (step,) = steps
    mixing = step.notes["retention"]
    assert (int(mixing.columns.sum()), len(mixing.kept)) == (34, 272)


def test_losses__do_not_depend_on_padding(make_model, three):
    model = make_model(**ON, recon_loss=1.0, modalities__image__mask_noise_std=0.3).eval()
    source = three["source"][:, :, :96]
    masks = draw_masks(MaskSpec((6, 8), 0.6), 9, torch.Generator().manual_seed(1))
    own = model(source, precomputed_mask=masks, noise_seed=[4, 5, 6])
    padded = torch.full_like(three["source"], float("nan"))
    padded[:, :, :96] = source
    found = model(
        padded, precomputed_mask=join_masks([masks, torch.ones(0, 64, dtype=torch.uint8)]),
        padding_mask=column_padding(torch.tensor([6, 6, 6]), (8, 8)), noise_seed=[4, 5, 6],
    )  # fmt: skip
    assert found["sample_size"] == own["sample_size"]
    for name, loss in own["losses"].items():
        torch.testing.assert_close(found["losses"][name], loss, **EXACT)


def test_losses__of_clips_of_other_lengths_are_finite(make_model, batch):
    model = make_model(**ON, recon_loss=1.0, mixed_share=0.2).train()
    lengths = [8, 2]
    masks = [draw_masks(MaskSpec((number, 8), 0.6), 3) for number in lengths]
    padded = batch["source"].clone()
    padded[1, :, 32:] = float("nan")
    result = model(
        padded, precomputed_mask=join_masks(masks), noise_seed=[4, 5],
        padding_mask=column_padding(torch.tensor(lengths), (8, 8)),
    )  # fmt: skip
    loss = sum(loss.sum() for loss in result["losses"].values())
    loss.backward()
    assert torch.isfinite(loss)
    for name, weight in model.named_parameters():
        assert weight.grad is None or torch.isfinite(weight.grad).all(), name


def test_losses__of_a_single_clip_are_not_mixed(make_model, batch):
    model = make_model(**ON).eval()
    result = model(
        batch["source"][:1], precomputed_mask=batch["precomputed_mask"][:3], noise_seed=SEED
    )
    first, second = result["losses"]["regression"].chunk(2)
    torch.testing.assert_close(first, second, **EXACT)
    torch.testing.assert_close(result["losses"]["retention"], 2 * second, **EXACT)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"modalities__image__patch_size": [4, 128], "modalities__image__max_length": 32},
         (3, 1, 128, 128)),
        ({"modalities__image__patch_size": [8, 32]}, (3, 1, 64, 128)),
        ({"modalities__image__in_chans": 3, "modalities__image__image_size": [32, 48],
          "modalities__image__patch_size": [8, 16]}, (3, 3, 32, 48)),
        ({"modalities__image__mel_by_time": True}, (3, 1, 128, 64)),
        ({"ema_encoder_only": True}, (3, 1, 64, 128)),
        ({"cls_target": "layers", "dino_loss": 1.0, "dino_prototypes": 8}, (3, 1, 64, 128)),
    ],
)  # fmt: skip
def test_losses__any_shape_and_option(make_model, changes, shape):
    model = make_model(**{**ON, "recon_loss": 1.0, **changes}).train()
    torch.manual_seed(0)
    result = model(torch.randn(shape, dtype=torch.float64), noise_seed=SEED)
    loss = sum(loss.sum() for loss in result["losses"].values())
    loss.backward()
    assert torch.isfinite(loss)
    assert len(result["losses"]["retention"]) * 2 == result["sample_size"]


@pytest.mark.parametrize("recompute", ["gelu", "blocks"])
def test_gradients__recomputed_are_the_same(make_model, batch, recompute):
    gradients = []
    for way in ("none", recompute):
        model = make_model(**ON, recompute=way).train()
        losses = model(**batch, noise_seed=SEED)["losses"]
        sum(loss.sum() for loss in losses.values()).backward()
        gradients.append(model.blocks[0].mlp.fc1.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


def test_teacher__sees_its_own_input(make_model, batch):
    model = make_model(**ON).eval()
    other = batch["source"].flip(2)
    plain, given = model(**batch, noise_seed=1), model(**batch, target=other, noise_seed=1)
    same = model(**batch, target=batch["source"].clone(), noise_seed=1)
    for name, loss in plain["losses"].items():
        assert torch.equal(loss, same["losses"][name])
        assert not torch.equal(loss, given["losses"][name])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_validation__of_the_mixed_share(make_model, share):
    with pytest.raises(ValueError, match=f"mixed_share is {share}; it must lie between 0 and 1"):
        make_model(**ON, mixed_share=share)


def test_published_checkpoint__has_the_keys_of_eat_and_loads(make_model, make_classifier, tmp_path):
    state = make_model(**ON).float().state_dict()
    published = {
        name for name in LAYOUTS["EAT-base_pretrain"]["state_dict"]
        if name in state or not any(f"blocks.{n}." in name for n in range(2, 12))
    }  # fmt: skip
    assert state.keys() - {"_ema"} == published - {"_ema"}
    path = tmp_path / "sslam.pt"
    cfg = {
        "task": {**TASK, "data": "/nowhere"},
        "model": {**MICRO, "_name": "data2vec_multi", "clone_batch": 8},
        "common": {"seed": 1}, "optimization": {"max_update": 200000},
    }  # fmt: skip
    cfg["model"].pop("convolution")
    torch.save({"cfg": cfg, "model": state, "args": None}, path)
    x = load_checkpoint(path).features(torch.randn(2, 1, 128, 128))
    assert x.shape == (2, 32)
    classifier = make_classifier(model_path=str(path), double=False)
    own = classifier.model.blocks[1].mlp.fc2.weight
    assert torch.equal(own, state["blocks.1.mlp.fc2.weight"])
