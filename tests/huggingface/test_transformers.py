"""What transformers makes of a folder: the same numbers as the checkpoint."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from eat_plugin.inference import load_checkpoint

ENCODERS, CLASSIFIERS = ["pretraining", "bat"], ["classification", "other"]
KINDS_OF_MODELS = [*ENCODERS, *CLASSIFIERS]

# Runs in a process that can import neither fairseq nor the plugin.
ALONE = """
import sys
for name in ("eat_plugin", "fairseq", "hydra", "omegaconf", "soundfile"):
    sys.modules[name] = None
import numpy as np, torch, transformers
clips, out, *folders = sys.argv[1:]
found = {}
for number, folder in enumerate(folders):
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    models = [transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)]
    if "AutoModelForAudioClassification" in models[0].config.auto_map:
        kind = transformers.AutoModelForAudioClassification
        models.append(kind.from_pretrained(folder, trust_remote_code=True))
    for name, clip in np.load(clips).items():
        inputs = extractor(clip, sampling_rate=int(name), return_tensors="pt")
        found[f"{number}.{name}.input"] = inputs["input_values"].numpy()
        with torch.no_grad():
            outputs = [model(**inputs) for model in models]
        found[f"{number}.{name}.tokens"] = outputs[0].last_hidden_state.numpy()
        if len(models) > 1:
            found[f"{number}.{name}.logits"] = outputs[1].logits.numpy()
np.savez(out, **found)
"""


@pytest.fixture(scope="module")
def made(make_any, export, transformers):
    """A function from a kind to its checkpoint, loaded, and its folder; each is made once."""
    known = {}

    def make(kind):
        if kind not in known:
            path = make_any(kind)
            code, folder = export(path)
            assert code == 0
            known[kind] = load_checkpoint(path), folder
        return known[kind]

    return make


@pytest.fixture
def open_folder(made, transformers):
    """Load a folder: the checkpoint, the feature extractor and the model."""

    def open_folder(kind, auto="AutoModel", **options):
        loaded, folder = made(kind)
        options["trust_remote_code"] = True
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
        return loaded, extractor, getattr(transformers, auto).from_pretrained(folder, **options)

    return open_folder


def read(path):
    samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate


def gap(first, second):
    return float((first - second).abs().max())


def test_folder_alone__gives_the_same(made, clips, tmp_path):
    files = [tmp_path / "clips.npz", tmp_path / "out.npz"]
    given = {str(rate): samples for samples, rate in map(read, clips)}
    np.savez(files[0], **given)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["HF_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-c", ALONE, *files, *(made(kind)[1] for kind in KINDS_OF_MODELS)]
    done = subprocess.run(
        [*map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("newly initialized", "not used", "MISSING", "UNEXPECTED"):
        assert word not in done.stderr
    found = {name: torch.from_numpy(value) for name, value in np.load(files[1]).items()}
    for number, kind in enumerate(KINDS_OF_MODELS):
        loaded, _ = made(kind)
        for name, path in zip(given, clips):
            source = loaded.spectrogram(path)[None]
            assert gap(found[f"{number}.{name}.input"], source) < 1e-4
            tokens = loaded.features(source, "all")
            assert gap(found[f"{number}.{name}.tokens"], tokens) < 1e-5 * tokens.abs().max()
            logits = found.get(f"{number}.{name}.logits")
            assert (logits is None) == (kind in ENCODERS)
            if logits is not None:
                assert gap(loaded.model.probabilities(logits), loaded.predict(source)) < 1e-5


def test_model__attention_mask_is_length_mask(open_folder, clips):
    loaded, extractor, model = open_folder("other", "AutoModelForAudioClassification")
    assert loaded.front_end.patch == 16
    batch = extractor([read(clips[0])[0], read(clips[0])[0][:5_000]], 16_000, return_tensors="pt")
    assert batch["attention_mask"].sum(dim=1).tolist() == [80, 32]
    with torch.no_grad():
        result = model(**batch, output_hidden_states=True)
        batch["input_values"][1, :, 32:] = torch.nan  # padding has no effect
        again = model(**batch)
    assert torch.equal(result.logits, again.logits)
    assert len(result.hidden_states) == 3
    for row, samples in enumerate((read(clips[0])[0], read(clips[0])[0][:5_000])):
        source = loaded.spectrogram((samples, 16_000))[None]
        tokens = loaded.features(source, "all")
        found = result.hidden_states[-1][row, : tokens.size(1)]
        assert gap(found, tokens[0]) < 1e-5 * tokens.abs().max()
        assert gap(result.logits[row].softmax(-1), loaded.predict(source)[0]) < 1e-5
    with pytest.raises(ValueError, match="attention_mask has shape .2, 79.; expected .2, 80."):
        model(batch["input_values"], batch["attention_mask"][:, :79])


def test_model__without_a_mask_all_is_heard(open_folder, clips):
    _, extractor, model = open_folder("classification")
    inputs = extractor(*read(clips[0]), return_tensors="pt")
    assert set(inputs) == {"input_values"}
    mask = torch.ones(1, 128)
    mask[:, 65:] = 0  # 4 whole patches and a frame of the fifth
    with torch.no_grad():
        whole, part = model(**inputs), model(**inputs, attention_mask=mask)
        short = model(inputs["input_values"][:, :, :80])
    assert gap(part.pooler_output, whole.pooler_output) > 1e-3
    assert gap(part.pooler_output, short.pooler_output) < 1e-5


@pytest.mark.parametrize("kind", KINDS_OF_MODELS)
def test_model__is_saved_and_loaded_again(open_folder, transformers, clips, tmp_path, kind):
    auto = "AutoModel" if kind in ENCODERS else "AutoModelForAudioClassification"
    _, extractor, model = open_folder(kind, auto)
    model.save_pretrained(tmp_path / "again")
    extractor.save_pretrained(tmp_path / "again")
    again = getattr(transformers, auto).from_pretrained(tmp_path / "again", trust_remote_code=True)
    other = transformers.AutoFeatureExtractor.from_pretrained(
        tmp_path / "again", trust_remote_code=True
    )
    inputs, others = (e(*read(clips[1]), return_tensors="pt") for e in (extractor, other))
    with torch.no_grad():
        assert torch.equal(model(**inputs)[0], again(**others)[0])
    assert again.config.id2label == model.config.id2label


def test_model__hidden_states_tuples_and_the_published_method(open_folder, clips):
    loaded, extractor, model = open_folder("pretraining")
    inputs = extractor(*read(clips[1]), return_tensors="pt")
    with torch.no_grad():
        result = model(**inputs, output_hidden_states=True)
        assert model(**inputs).hidden_states is None
        assert torch.equal(model(**inputs, return_dict=False)[0], result.last_hidden_state)
        assert torch.equal(model.extract_features(inputs["input_values"]), result.last_hidden_state)
    blocks = loaded.features(inputs["input_values"], "all", layer="all")[0]
    assert len(result.hidden_states) == 3
    for own, found in zip(blocks, result.hidden_states[1:]):
        assert gap(found[0], own) < 1e-5
    cls = loaded.features(inputs["input_values"])
    assert gap(result.pooler_output, cls) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_model__half_precision(open_folder, clips, dtype):
    _, extractor, model = open_folder("classification", "AutoModelForAudioClassification")
    half = copy.deepcopy(model).to(dtype)
    inputs = extractor(*read(clips[0]), return_tensors="pt")
    with torch.no_grad():
        logits, exact = half(**inputs).logits, model(**inputs).logits
    assert logits.dtype == dtype
    assert gap(logits.float(), exact) < 0.1 * exact.abs().max()
    assert model.dtype == torch.float32  # the copy has weights of its own


def test_model__fine_tunes_with_other_classes(open_folder, clips):
    options = {
        "num_labels": 5,
        "ignore_mismatched_sizes": True,
        "id2label": dict.fromkeys(range(5), ""),
    }
    _, extractor, model = open_folder("classification", "AutoModelForAudioClassification")
    _, _, other = open_folder("classification", "AutoModelForAudioClassification", **options)
    assert other.model.head.weight.shape == (5, 32)
    assert 0.005 < float(other.model.head.weight.std()) < 0.05
    for own, found in ((model, other),):
        assert torch.equal(own.model.extra_tokens, found.model.extra_tokens)
        assert torch.equal(own.model.blocks[1].mlp.fc2.weight, found.model.blocks[1].mlp.fc2.weight)
    inputs = extractor(*read(clips[0]), return_tensors="pt")
    labels = torch.tensor([[1.0, 0, 0, 1, 0]])
    other.train()
    result = other(**inputs, labels=labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(result.logits, labels)
    assert torch.equal(result.loss, expected)
    result.loss.backward()
    missing = [n for n, p in other.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert not other.model.fixed_positional_encoder.positions.requires_grad


def test_model__from_its_configuration_alone(made, transformers):
    loaded, folder = made("pretraining")
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = transformers.AutoModel.from_config(config, trust_remote_code=True)
    own = loaded.encoder.patch_encoder.fixed_positional_encoder.positions
    assert torch.equal(model.model.fixed_positional_encoder.positions, own)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 2, 4)


def test_pipeline__gives_our_probabilities(made, transformers, clips):
    loaded, folder = made("classification")
    classify = transformers.pipeline(
        "audio-classification", model=str(folder), feature_extractor=str(folder),
        trust_remote_code=True,
    )  # fmt: skip
    samples, _ = read(clips[0])
    found = {
        each["label"]: each["score"] for each in classify(samples, function_to_apply="sigmoid")
    }
    scores = loaded.predict((samples, 16_000))
    assert found == pytest.approx(dict(zip(loaded.labels.names, scores.tolist())), abs=1e-5)


@pytest.mark.slow
def test_model__compiles(open_folder, clips):
    _, extractor, model = open_folder("classification")
    inputs = extractor(*read(clips[0]), return_tensors="pt")
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        assert gap(compiled(**inputs)[0], model(**inputs)[0]) < 1e-5


@pytest.mark.parametrize(
    ("clip", "rate", "message"),
    [
        (np.zeros(16_000, np.float32), None, "give sampling_rate"),
        (np.zeros(300, np.float32), 16_000, "a clip of 300 samples is shorter than one frame"),
        (np.zeros((16_000, 2), np.float32), 16_000, "mix stereo to one channel first"),
        (np.zeros(0, np.float32), 16_000, "there is no clip, or it has no samples"),
        ([], 16_000, "there is no clip"),
        (np.full(900, np.nan, np.float32), 16_000, "samples that are not finite"),
        (np.zeros(900, np.int32), 16_000, "samples of type int32; of integers give int16"),
        (np.zeros((2, 2, 900), np.float32), 16_000, "expected the samples .n. of one channel"),
        (np.zeros(900, np.float32), 0, "rates must be positive"),
    ],
)
def test_feature_extractor__refuses(open_folder, clip, rate, message):
    _, extractor, _ = open_folder("classification")
    with pytest.raises(ValueError, match=message):
        extractor(clip, sampling_rate=rate)


def test_feature_extractor__takes_lists_arrays_and_int16(open_folder):
    _, extractor, _ = open_folder("classification")
    whole = (np.random.default_rng(0).normal(0, 3_000, 9_000)).astype(np.int16)
    exact = (whole / 32768).astype(np.float32)
    expected = extractor(exact, 22_050)["input_values"]
    assert expected.shape == (1, 1, 128, 128)
    for given in (whole, exact.tolist(), torch.from_numpy(exact), exact[None]):
        assert np.array_equal(extractor(given, 22_050)["input_values"], expected)
    both = extractor([exact, exact[:2_000]], 22_050, return_tensors="pt")["input_values"]
    assert torch.equal(both[0], torch.from_numpy(expected)[0])
    assert both.shape == (2, 1, 128, 128)
