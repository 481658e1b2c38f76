"""Loading checkpoints, ours and published ones."""

import pytest
import torch

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.label_set import LabelSet
from eat_plugin.inference import choose_device, load_checkpoint
from eat_plugin.models.interop import read_checkpoint


def test_load__a_pretrained_model(pretrained):
    assert pretrained.encoder is pretrained.model
    assert pretrained.front_end == FrontEnd(128, -5.0, 4.569)
    assert pretrained.labels is None
    assert not pretrained.single_label
    assert not pretrained.model.training
    assert pretrained.cfg["task"]["_name"] == "eat_pretraining"


def test_load__a_classifier_needs_no_other_file(classifier):
    assert classifier.encoder is classifier.model.model
    assert classifier.labels.ids == ("dog", "rain", "clock")
    assert classifier.labels.names == ("A dog", "The rain", "A clock")
    assert not classifier.single_label


def test_load__pads_as_in_training(make_checkpoint):
    loaded = load_checkpoint(make_checkpoint("pretraining", task_pad_value="silence"))
    assert loaded.front_end == FrontEnd(128, -4.268, 4.569, "silence")


def test_load__takes_the_weights_of_the_file(make_checkpoint):
    path = make_checkpoint("pretraining")
    loaded = load_checkpoint(path)
    state = read_checkpoint(path)["model"]
    teacher = loaded.model.state_dict()["_ema"]  # without an EMA step
    assert all(torch.equal(teacher[name], value) for name, value in state.pop("_ema").items())
    assert all(torch.equal(loaded.model.state_dict()[name], v) for name, v in state.items())


def test_load__published_checkpoint_gives_the_published_logits(shared, tmp_path):
    golden = torch.load(shared / "golden" / "finetune_tiny.pt", weights_only=True)["audioset"]
    state = read_checkpoint(shared / "golden" / "ckpt_finetune_tiny.pt")
    torch.save({**state, "model": golden["state_dict"]}, tmp_path / "published.pt")
    loaded = load_checkpoint(tmp_path / "published.pt")
    source = golden["net_input"]["imgs"]
    with torch.no_grad():
        assert (loaded.model(source) - golden["eval_logits"]).abs().max() < 1e-5
    probabilities = golden["eval_result"]["_predictions"]
    assert (loaded.predict(source) - probabilities).abs().max() < 1e-5
    assert (loaded.features(source, "all") - golden["eval_features_all"]).abs().max() < 1e-5
    assert loaded.labels.ids[7] == loaded.labels.names[7] == "/m/007"
    assert loaded.front_end == FrontEnd(256, -4.268, 4.569)


def test_load__published_pretrained_checkpoint(shared):
    loaded = load_checkpoint(shared / "golden" / "ckpt_pretrain_tiny.pt")
    assert loaded.labels is None
    assert loaded.front_end.target_length == 256


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("cfg/model/_name", "wav2vec2", "holds a model 'wav2vec2'; expected an EAT checkpoint"),
        ("cfg/task/_name", "translation", "holds a task 'translation'; expected an EAT"),
        ("cfg/model/_name", ["eat"], r"holds a model \['eat'\]; expected an EAT checkpoint"),
        ("task_state", ["dog"], "does not match its configuration: task_state is no dictionary"),
        ("cfg/task", None, "holds a task None; expected an EAT checkpoint"),
        ("cfg/task/_name", "eat_pretraining", "does not match its configuration: .*label"),
        ("model/head.bias", torch.zeros(5), "not match its configuration: .*mismatch for head.b"),
        ("model/unknown", torch.zeros(5), 'does not match its configuration: .*"unknown"'),
        ("task_state", {}, "there is no /nowhere/label_descriptors.csv"),
        ("task_state/label_names", ["A dog"], "1 names for 3 classes"),
        ("cfg/model/loss", "mse", "model.loss is 'mse'; choose one of bce, ce"),
        ("cfg/model/layer_decay", "small", "model.layer_decay is 'small'; it must be a number"),
    ],
)
def test_load__names_the_mismatch(make_checkpoint, tmp_path, place, value, message):
    state = read_checkpoint(make_checkpoint("classification"))
    *folders, name = place.split("/")
    part = state
    for folder in folders:
        part = part[folder]
    part[name] = value
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=f"bad.pt.*{message}"):
        load_checkpoint(tmp_path / "bad.pt")


def rewrite(path, out, **changes):
    state = read_checkpoint(path)
    out_state = {**state, "task_state": {**state["task_state"], **changes}}
    torch.save(out_state, out)
    return out


def test_load__audioset_ids_without_names_get_names(make_checkpoint, tmp_path):
    path = make_checkpoint("classification")
    ids = ("/m/07hvw1", "/m/09x0r", "/m/unknown")
    indices = {label: str(index) for index, label in enumerate(ids)}
    named = rewrite(path, tmp_path / "named.pt", labels=indices)
    assert load_checkpoint(named).labels.names == ("A dog", "The rain", "A clock")
    for names in ([], list(ids)):
        bare = rewrite(path, tmp_path / "bare.pt", labels=indices, label_names=names)
        labels = load_checkpoint(bare).labels
        assert labels.ids == ids
        assert labels.names == ("Field recording", "Speech", "/m/unknown")


def test_load__527_classes_without_labels_are_those_of_audioset(make_checkpoint, tmp_path, caplog):
    state = read_checkpoint(make_checkpoint("classification"))
    state["cfg"]["model"]["num_classes"] = 527
    weights = {n: v for n, v in state["model"].items() if n.startswith("head.") and len(v) == 3}
    assert weights
    for name, value in weights.items():
        state["model"][name] = value.repeat(176, *[1] * (value.dim() - 1))[:527]
    torch.save({**state, "task_state": {}}, tmp_path / "bare.pt")
    labels = load_checkpoint(tmp_path / "bare.pt").labels
    assert (labels.ids[0], labels.names[0], len(labels)) == ("/m/09x0r", "Speech", 527)
    assert (
        f"{tmp_path}/bare.pt has no labels; its 527 classes are read as AudioSet's" in caplog.text
    )


def test_load__given_labels_replace_those_of_the_file(make_checkpoint):
    path = make_checkpoint("classification")
    given = LabelSet(("a", "b", "c"), ("An a", "A b", "A c"))
    assert load_checkpoint(path, labels=given).labels == given
    with pytest.raises(ValueError, match=f"2 labels are given for the 3 classes of {path}"):
        load_checkpoint(path, labels=LabelSet(("a", "b")))


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "meta", "cpu:0:0"])
def test_choose_device__unknown(name):
    with pytest.raises(ValueError, match=f"the device is '{name}'; choose cpu, cuda or cuda:N"):
        choose_device(name)


def test_choose_device__refuses_a_missing_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="'cuda:2', but PyTorch finds 2 CUDA GPUs"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda', but PyTorch finds 0 CUDA GPUs"):
        choose_device("cuda")


@pytest.mark.gpu
def test_load__on_a_gpu(make_checkpoint, source):
    path = make_checkpoint("classification")
    loaded, reference = load_checkpoint(path, "cuda"), load_checkpoint(path)
    assert loaded.device.type == "cuda"
    torch.testing.assert_close(
        loaded.predict(source).cpu(), reference.predict(source), atol=1e-4, rtol=1e-4
    )
