"""Checkpoints in Python: loading, features, predictions, long recordings."""

from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.data import windows
from eat_plugin.data.features import FrontEnd
from eat_plugin.data.sources import read_audio
from eat_plugin.inference import choose_device, load_checkpoint
from eat_plugin.models.interop import read_checkpoint

RATE = 16_000


@pytest.fixture(scope="module")
def pretrained(make_checkpoint):
    return load_checkpoint(make_checkpoint("pretraining", task_norm_mean=-5.0, task_norm_std=4.569))


@pytest.fixture(scope="module")
def classifier(make_checkpoint):
    return load_checkpoint(make_checkpoint("classification"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Five seconds of noise that grows louder: four windows, the last one short."""
    path = tmp_path_factory.mktemp("audio") / "noise.wav"
    samples = np.random.default_rng(0).normal(0, 1, 5 * RATE) * np.linspace(0.001, 0.2, 5 * RATE)
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture(scope="module")
def source():
    return torch.randn(3, 1, 128, 128, generator=torch.Generator().manual_seed(0))


def test_load__a_pretrained_model(pretrained):
    assert pretrained.encoder is pretrained.model
    assert pretrained.front_end == FrontEnd(128, -5.0, 4.569)
    assert pretrained.labels is None
    assert not pretrained.single_label
    assert not pretrained.model.training
    assert pretrained.cfg.task._name == "eat_pretraining"


def test_load__a_classifier_stands_alone(classifier):
    assert classifier.encoder is classifier.model.model
    assert classifier.labels.ids == ("dog", "rain", "clock")
    assert classifier.labels.names == ("A dog", "The rain", "A clock")
    assert not classifier.single_label


def test_predict__refuses_weights_that_are_no_numbers(make_checkpoint, source, tmp_path):
    state = read_checkpoint(make_checkpoint("classification"))
    state["model"]["head.weight"][0] = float("nan")
    torch.save(state, tmp_path / "broken.pt")
    with pytest.raises(ValueError, match=r"broken.pt gives scores that are no numbers"):
        load_checkpoint(tmp_path / "broken.pt").predict(source)


def test_load__pads_as_training_did(make_checkpoint):
    loaded = load_checkpoint(make_checkpoint("pretraining", task_pad_value="silence"))
    assert loaded.front_end == FrontEnd(128, -4.268, 4.569, "silence")


def test_load__takes_the_weights_of_the_file(make_checkpoint):
    path = make_checkpoint("pretraining")
    loaded = load_checkpoint(path)
    state = read_checkpoint(path)["model"]
    teacher = loaded.model.state_dict()["_ema"]  # no step of the teacher is taken
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
        ("cfg/model/_name", "wav2vec2", "holds a model 'wav2vec2'; expected a checkpoint of EAT"),
        ("cfg/task/_name", "translation", "holds a task 'translation'; expected a checkpoint of"),
        ("cfg/task", None, "holds a task None; expected a checkpoint of EAT"),
        ("cfg/task/_name", "eat_pretraining", "does not hold what .* says: .*label_set"),
        ("model/head.bias", torch.zeros(5), "does not hold what .* says: .*mismatch for head.bias"),
        ("model/unknown", torch.zeros(5), 'does not hold what .* says: .*"unknown"'),
        ("task_state", {}, "/nowhere/label_descriptors.csv: cannot be read"),
        ("task_state/label_names", ["A dog"], "1 names for 3 classes"),
        ("cfg/model/loss", "mse", "model.loss is 'mse'; choose one of bce, ce"),
        ("cfg/model/layer_decay", "small", "Value 'small' .*could not be converted to Float"),
    ],
)
def test_load__what_does_not_fit_is_named(make_checkpoint, tmp_path, place, value, message):
    state = read_checkpoint(make_checkpoint("classification"))
    *folders, name = place.split("/")
    part = state
    for folder in folders:
        part = part[folder]
    part[name] = value
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=f"bad.pt.*{message}"):
        load_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "meta", "cpu:0:0"])
def test_choose_device__unknown(name):
    with pytest.raises(ValueError, match=f"the device is '{name}'; choose cpu, cuda or cuda:N"):
        choose_device(name)


def test_choose_device__more_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="'cuda:2', but PyTorch finds 2 CUDA GPUs"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda', but PyTorch finds 0 CUDA GPUs"):
        choose_device("cuda")


def test_features__the_last_layer_is_what_extract_features_gives(pretrained, source):
    with torch.no_grad():
        expected = pretrained.model.extract_features(source, remove_extra_tokens=False)["x"]
    for layer in (-1, 2):
        torch.testing.assert_close(pretrained.features(source, "all", layer), expected)


def test_features__can_train_something_else(pretrained, source):
    features = pretrained.features(source)
    assert not features.requires_grad
    head = torch.nn.Linear(32, 1)
    head(features).sum().backward()
    torch.testing.assert_close(head.weight.grad[0], features.sum(dim=0))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_features__each_layer_is_the_output_of_its_block(make_checkpoint, source, pre_norm):
    loaded = load_checkpoint(make_checkpoint("pretraining", model_layer_norm_first=pre_norm))
    outputs = []
    for block in loaded.encoder.blocks:
        block.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    every = loaded.features(source, "all", "all")
    if pre_norm:
        with torch.no_grad():
            outputs[1] = loaded.encoder.norm(outputs[1])
    assert every.shape == (3, 2, 65, 32)
    assert torch.equal(every, torch.stack(outputs[:2], dim=1))
    assert torch.equal(loaded.features(source, "all", 1), every[:, 0])
    assert torch.equal(loaded.features(source, "all", -2), every[:, 0])
    torch.testing.assert_close(loaded.features(source, "all", "mean"), every.mean(dim=1))


def test_features__granularities(pretrained, source):
    tokens = pretrained.features(source, "all")  # [3, 1 + 64, 32]
    grid = tokens[:, 1:].reshape(3, 8, 8, 32)
    assert torch.equal(pretrained.features(source), tokens[:, 0])
    assert torch.equal(pretrained.features(source, "grid"), grid)
    torch.testing.assert_close(pretrained.features(source, "frame"), grid.mean(dim=2))
    assert pretrained.features(source, "grid", "all").shape == (3, 2, 8, 8, 32)


def test_features__time_goes_along_the_first_axis_of_the_grid(pretrained, source):
    changed = source.clone()
    changed[:, :, 16:32] += 1  # the second column of patches
    embed = pretrained.encoder.patch_encoder.embed
    with torch.no_grad():
        moved = (embed(changed) - embed(source)).abs().sum(-1).view(3, 8, 8) > 1e-4
    assert moved[:, 1].all()
    assert not moved[:, [0, *range(2, 8)]].any()


def test_features__utterance_without_a_cls_token(make_checkpoint, source):
    image = {"modalities": {"image": {"num_extra_tokens": 0}}}
    path = make_checkpoint("pretraining", model_cls_loss=0.0)
    state = read_checkpoint(path)
    state["cfg"]["model"]["modalities"]["image"].update(image["modalities"]["image"])
    for weights in (state["model"], state["model"]["_ema"]):
        weights.pop("modality_encoders.IMAGE.extra_tokens", None)
    torch.save(state, path)
    loaded = load_checkpoint(path)
    tokens = loaded.features(source, "all")
    assert tokens.shape == (3, 64, 32)
    torch.testing.assert_close(loaded.features(source), tokens.mean(dim=1))


@pytest.mark.parametrize(
    ("granularity", "layer", "message"),
    [
        ("clip", -1, "the granularity is 'clip'; choose one of utterance, frame, all, grid"),
        ("frame", 0, "the layer is 0; choose 1 to 2, -1 to -2, mean or all"),
        ("frame", 3, "the layer is 3;"),
        ("frame", -3, "the layer is -3;"),
        ("frame", "last", "the layer is 'last';"),
    ],
)
def test_features__unknown_arguments(pretrained, source, granularity, layer, message):
    with pytest.raises(ValueError, match=message):
        pretrained.features(source, granularity, layer)


def test_features__the_transposed_layout_of_a_model_does_not_matter_here(make_checkpoint, source):
    path = make_checkpoint("classification")
    plain = load_checkpoint(path)
    state = read_checkpoint(path)
    encoder = state["cfg"]["model"]["pretrained_model_args"]["model"]
    encoder["modalities"]["image"]["mel_by_time"] = True
    torch.save(state, path)
    turned = load_checkpoint(path)
    source = source[:, :, :64]
    assert torch.equal(turned.features(source, "grid"), plain.features(source, "grid"))
    assert torch.equal(turned.predict(source), plain.predict(source))


@pytest.mark.parametrize(
    ("loss", "single", "smoothed"), [("ce", True, 0.1), ("bce", True, 0.0), ("bce", False, 0.0)]
)
def test_predict__probabilities_of_the_objective(make_checkpoint, source, loss, single, smoothed):
    loaded = load_checkpoint(
        make_checkpoint(
            "classification", task_single_label=single, model_loss=loss,
            model_label_smoothing=smoothed,
        )
    )  # fmt: skip
    with torch.no_grad():
        logits = loaded.model(source)
    expected = logits.softmax(-1) if loss == "ce" else logits.sigmoid()
    assert torch.equal(loaded.predict(source), expected)
    assert loaded.single_label is single


def test_predict__needs_a_classifier(pretrained, source):
    with pytest.raises(ValueError, match="is a pre-trained checkpoint without a classifier"):
        pretrained.predict(source)


def test_spectrogram__is_made_as_in_training(pretrained, recording):
    waveform, rate = read_audio(recording)
    assert torch.equal(pretrained.spectrogram(recording), pretrained.front_end(waveform, rate))
    with pytest.raises(ValueError, match="nothing.wav: cannot be opened"):
        pretrained.spectrogram("nothing.wav")


def test_windowing__what_the_model_can_take(pretrained):
    assert pretrained.windowing().frames == 128
    assert pretrained.windowing(2.5, 1).frames == 256
    with pytest.raises(ValueError, match="the window is 2.72 s; .* positions ends at 2.56 s"):
        pretrained.windowing(2.57)


@pytest.mark.parametrize("layer", [1, "all"])
@pytest.mark.parametrize("granularity", ["utterance", "frame", "all", "grid"])
def test_extract__is_the_windows_by_hand(pretrained, recording, granularity, layer):
    waveform, rate = read_audio(recording)
    starts = [0, 1.28, 2.56, 3.84]  # 5 s in windows of 1.28 s; 7 columns of the last one count
    parts = [
        pretrained.features(
            pretrained.front_end(waveform[round(start * rate) :], rate)[None], granularity, layer
        )[0].numpy()
        for start in starts
    ]
    axis = 1 if layer == "all" else 0
    if granularity in ("frame", "grid"):
        parts[-1] = parts[-1].take(range(7), axis)
        expected = np.concatenate(parts, axis)
    else:
        expected = np.stack(parts, axis)
    x, times = pretrained.extract(recording, granularity, layer)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, expected, atol=1e-5)
    if granularity in ("frame", "grid"):
        np.testing.assert_allclose(times, (np.arange(31) + 0.5) * 0.16)
    else:
        assert times is None


def test_extract__windows_of_another_length_overlapping(pretrained, recording):
    waveform, rate = read_audio(recording)
    front_end = FrontEnd(64, -5.0, 4.569)
    expected = [
        pretrained.features(front_end(waveform[start:], rate)[None])[0].numpy()
        for start in range(0, round(4.8 * rate), round(0.5 * rate))
    ]
    x, _ = pretrained.extract(recording, window=0.6, hop=0.5)
    np.testing.assert_allclose(x, np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_extract__does_not_depend_on_the_batch_size(pretrained, recording, batch_size):
    expected, _ = pretrained.extract(recording, "grid", hop=0.5)
    x, _ = pretrained.extract(recording, "grid", hop=0.5, batch_size=batch_size)
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_extract__a_short_clip_is_one_result_without_its_padding(pretrained, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.random.default_rng(0).normal(0, 0.1, 8_000), RATE)
    utterance, _ = pretrained.extract(tmp_path / "short.wav")
    spectrogram = pretrained.spectrogram(tmp_path / "short.wav")
    np.testing.assert_allclose(utterance, pretrained.features(spectrogram[None])[0], atol=1e-5)
    frames, times = pretrained.extract(tmp_path / "short.wav", "frame")
    assert frames.shape == (3, 32)
    assert times.tolist() == pytest.approx([0.08, 0.24, 0.40])


def test_extract__never_reads_more_than_a_window(pretrained, tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 120 * RATE), RATE)
    lengths = []
    read = windows.read_opened

    def spy(*args):
        waveform = read(*args)
        lengths.append(len(waveform))
        return waveform

    monkeypatch.setattr(windows, "read_opened", spy)
    x, _ = pretrained.extract(path)
    assert x.shape == (94, 32)
    assert len(lengths) == 94
    assert max(lengths) < 1.31 * RATE


def test_extract__names_a_bad_recording(pretrained, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match="text.wav: cannot be decoded"):
        pretrained.extract(tmp_path / "text.wav")
    soundfile.write(tmp_path / "tiny.wav", np.zeros(3), RATE)
    with pytest.raises(ValueError, match="tiny.wav: has 3 samples"):
        pretrained.extract(tmp_path / "tiny.wav")


@pytest.mark.gpu
def test_load__on_a_gpu(make_checkpoint, source):
    path = make_checkpoint("classification")
    loaded, reference = load_checkpoint(path, "cuda"), load_checkpoint(path)
    assert loaded.device.type == "cuda"
    torch.testing.assert_close(
        loaded.predict(source).cpu(), reference.predict(source), atol=1e-4, rtol=1e-4
    )


@pytest.fixture(scope="module")
def own_length(make_checkpoint):
    """A pre-trained model of clips that keep their own length, up to 1.28 s."""
    return load_checkpoint(make_checkpoint("pretraining", task_length="mask"))


def write_noise(path, seconds):
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, int(seconds * RATE)), RATE)
    return path


def test_own_length__a_clip_is_seen_in_whole_patches(own_length, tmp_path):
    for seconds, columns in ((0.05, 1), (0.5, 3), (1.28, 8), (3.0, 8)):
        path = write_noise(tmp_path / "clip.wav", seconds)
        spectrogram = own_length.spectrogram(path)
        assert spectrogram.shape == (1, 16 * columns, 128)
        assert own_length.features(spectrogram[None], "grid").shape == (1, columns, 8, 32)
    assert own_length.front_end == FrontEnd(128, -4.268, 4.569, patch=16)


@pytest.mark.parametrize("granularity", ["utterance", "frame", "grid", "all"])
def test_own_length__features_do_not_depend_on_the_batch(own_length, tmp_path, granularity):
    paths = [write_noise(tmp_path / f"{s}.wav", s) for s in (0.5, 1.0, 0.51, 1.5)]
    jobs = [windows.Job(number, 0, path) for number, path in enumerate(paths)]
    compute = partial(own_length.features, granularity=granularity)
    results = own_length.map_windows(jobs, own_length.windowing(), compute, batch_size=4)
    for path, (_, row) in zip(paths, results):
        expected = compute(own_length.spectrogram(path)[None])[0]
        torch.testing.assert_close(torch.from_numpy(row), expected)


@pytest.mark.parametrize("granularity", ["utterance", "frame", "grid", "all"])
@pytest.mark.parametrize("seconds", [0.5, 0.55, 2.0])
def test_own_length__extract_joins_windows(own_length, tmp_path, granularity, seconds):
    path = write_noise(tmp_path / "clip.wav", seconds)
    x, times = own_length.extract(path, granularity)
    assert np.isfinite(x).all()
    columns = {0.5: 3, 0.55: 3, 2.0: 12}[seconds]
    shapes = {"utterance": (32,), "frame": (columns, 32), "grid": (columns, 8, 32)}
    shapes["all"] = (1 + 8 * {0.5: 3, 0.55: 4, 2.0: 8}[seconds], 32)
    lead = (2,) if seconds == 2.0 and granularity in ("utterance", "all") else ()
    assert x.shape == (*lead, *shapes[granularity])
    if times is not None:
        assert len(times) == columns


@pytest.mark.parametrize(("most", "starts"), [(1, [61]), (3, [0, 61, 122])])
def test_plan_scores__windows_all_over_a_clip(make_checkpoint, most, starts):
    loaded = load_checkpoint(
        make_checkpoint("classification", task_length="crop", task_eval_windows=most)
    )
    assert loaded.eval_windows == most
    plan = loaded.plan_scores(loaded.windowing(), 250 * 160 + 240, RATE)  # 250 frames
    assert [window.start for window in plan] == starts
    assert len(loaded.plan_scores(loaded.windowing(), RATE, RATE)) == 1


def test_plan_scores__by_the_start_alone(classifier):
    assert classifier.eval_windows == 0
    plan = classifier.plan_scores(classifier.windowing(), 5 * RATE, RATE)
    assert [window.start for window in plan] == [0]
