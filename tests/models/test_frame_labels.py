"""Labels of time steps and their loss."""

import pytest
import torch
import torch.nn.functional as F

from eat_plugin.models.classifier import EatClassifier
from eat_plugin.models.frame_labels import frame_losses, label_steps


def test_label_steps__average_frames_and_mark_padding():
    label = torch.zeros(2, 16, 2, dtype=torch.int8)
    label[0, 2:8, 1] = 1
    label[0, 9:] = -1  # one frame of the third step: its middle is padding
    label[1, 14:] = -1
    label[1, 12:, 0] = torch.tensor([1, 1, -1, -1])
    steps = label_steps(label, 4)
    assert steps[0, :, 1].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert steps[0, :, 2].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert steps[1, :, 0].tolist() == [0.0, 0.0, 0.0, 1.0]  # of the frames with sound
    assert steps[1, :, 2].tolist() == [1.0] * 4


def test_label_steps__the_first_one_is_always_sound():
    label = torch.full((1, 8, 2), -1, dtype=torch.int8)
    label[0, 0] = torch.tensor([0, 1])
    steps = label_steps(label, 4)
    assert steps[0].tolist() == [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_frame_losses__leave_out_padding():
    logits = torch.randn(2, 3, 2)
    label = torch.tensor([[0.0, 1.0, 1.0], [0.5, 0.0, 1.0], [0.0, 0.0, 0.0]]).expand(2, 3, 3)
    found = frame_losses(logits, label, training=False)
    expected = F.binary_cross_entropy_with_logits(logits[:, :2], label[:, :2, :2], reduction="none")
    torch.testing.assert_close(found["losses"]["main"][:, :2], expected)
    assert not found["losses"]["main"][:, 2].any()
    assert int(found["sample_size"]) == 4
    torch.testing.assert_close(found["_predictions"], logits.sigmoid())
    assert found["_targets"][0].tolist() == [[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]
    assert "_predictions" not in frame_losses(logits, label, training=True)


def test_frame_losses__of_a_mixture_count_a_lone_clip_in_full():
    label = torch.tensor(
        [[[0.3, 0.0, 1.0], [0.3, 0.0, 0.3]]]
    )  # the second step: one clip has sound
    loss = frame_losses(torch.zeros(1, 2, 2), label, training=False)
    assert loss["_targets"][0].tolist() == [[0.0, 0.0], [1.0, 0.0]]


@pytest.fixture
def model(make_checkpoint):
    from eat_plugin.inference import load_checkpoint

    options = {"prediction_mode": "FRAMES", "mixup": 0.0, "specaug": False, "drop_path_rate": 0.0}
    changes = {f"model_{name}": value for name, value in options.items()}
    path = make_checkpoint("classification", task_events=True, **changes)
    return load_checkpoint(path).model


def test_classifier__gives_a_row_of_each_time_step(model):
    assert isinstance(model, EatClassifier)
    source = torch.randn(2, 1, 128, 128)
    logits = model(source)
    assert logits.shape == (2, 8, 3)
    tokens, _ = model.model.encode(source, keep_targets=False)
    frames = tokens[:, 1:].unflatten(1, (8, 8)).mean(dim=2)
    torch.testing.assert_close(logits, model.head(model.fc_norm(frames)))


def test_classifier__mixes_labels_of_frames(model, monkeypatch):
    model.cfg.mixup, model.cfg.mixup_prob = 0.5, 1.0
    label = torch.zeros(2, 128, 3, dtype=torch.int8)
    label[0, :64, 0] = 1
    label[1, 64:, 2] = 1
    seen = {}

    def keep(logits, label, training):
        seen["label"] = label
        return frame_losses(logits, label, training)

    monkeypatch.setattr("eat_plugin.models.classifier.frame_losses", keep)
    torch.manual_seed(0)
    model.train()(torch.randn(2, 1, 128, 128), label)
    own = seen["label"][0, 0, 0]
    assert 0 < own < 1
    torch.testing.assert_close(seen["label"][0, :4, 0], own.expand(4))
    torch.testing.assert_close(seen["label"][0, 4:, 2], (1 - own).expand(4))
    torch.testing.assert_close(seen["label"][..., 3], torch.ones(2, 8))
