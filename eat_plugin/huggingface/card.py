"""The model card of a folder: what the model is, its numbers, how it was trained and is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.channels import FIRST, LOUDEST, MEAN
from ..data.frames import DB, FRAMES_A_SECOND, SAMPLE_RATE, UNCHANGED
from ..data.json_text import parse_json
from ..inference.loaded import Loaded
from .description import MULTI_LABEL

METRICS = ("accuracy", "mAP", "mAUC", "d_prime")  # of eat evaluate
# Options of training in the card, where a checkpoint has them: section, option, what it is.
TRAINING = (
    ("optimization", "lr", "learning rate"),
    ("optimization", "max_update", "updates of the recipe"),
    ("lr_scheduler", "warmup_updates", "updates of warm-up"),
    ("dataset", "batch_size", "clips of a batch on each device"),
    ("distributed_training", "distributed_world_size", "devices"),
    ("common", "fp16", "float16"),
    ("common", "bf16", "bfloat16"),
    ("model", "mixup", "mixup"),
    ("model", "mask_ratio", "largest share of an axis that SpecAugment masks"),
    ("model", "label_smoothing", "label smoothing"),
    ("model", "layer_decay", "layer-wise decay of the learning rate"),
    ("model", "linear_probe", "encoder frozen"),
    ("model", "clone_batch", "masks of each clip"),
    ("model", "average_top_k_layers", "blocks of the teacher in the targets"),
    ("model", "d2v_loss", "weight of the patch loss"),
    ("model", "cls_loss", "weight of the utterance loss"),
    ("model", "retention_loss", "weight of source retention (SSLAM)"),
)
PRETRAINED = ("clone_batch", "average_top_k_layers", "d2v_loss", "cls_loss", "retention_loss")


# By task.channels: what is heard, in words and in Python.
CHANNEL = {
    MEAN: "the mean of the channels", FIRST: "the first channel", LOUDEST: "the loudest channel",
}  # fmt: skip
MIX = {
    MEAN: "samples.mean(axis=1)", FIRST: "samples[:, 0]",
    LOUDEST: "samples[:, (samples**2).sum(axis=0).argmax()]",
}  # fmt: skip


def read_metrics(path: Path, loaded: Loaded) -> dict[str, Any]:
    """Read ``metrics.json`` of ``eat evaluate`` of a model.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is something else, or of a model with other classes.
    """
    try:
        metrics = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    names = {"on", "split", "n_classes", *METRICS}
    if not (
        isinstance(metrics, dict)
        and names <= metrics.keys()
        and all(isinstance(metrics[name], (float, int, type(None))) for name in METRICS)
    ):
        raise ValueError(f"{path} is not the metrics.json of eat evaluate")
    classes = 0 if loaded.labels is None else len(loaded.labels)
    if metrics["n_classes"] != classes:
        raise ValueError(
            f"{path} is of a model with {metrics['n_classes']} classes, this one has {classes}"
        )
    return metrics


def write_card(
    state: Mapping[str, Any],
    loaded: Loaded,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any] | None,
) -> str:
    """Return a model card in Markdown with its head in YAML.

    Args:
        state: the result of ``read_checkpoint``.
        loaded: the same checkpoint.
        config: the contents of ``config.json``.
        metrics: of ``eat evaluate``; None without.
    """
    measured = _measured(state, metrics)
    parts = [
        _head(loaded, measured), _introduction(loaded, config), _input(loaded),
        _numbers(measured, metrics), _training(state, loaded), _use(loaded, config),
    ]  # fmt: skip
    return "\n".join(parts)


def _head(loaded: Loaded, measured: Mapping[str, float]) -> str:
    task = "feature-extraction" if loaded.labels is None else "audio-classification"
    lines = [
        "---", "library_name: transformers", f"pipeline_tag: {task}", "tags:", "- audio", "- eat",
        "- self-supervised-learning",
    ]  # fmt: skip
    if measured and loaded.labels is not None:
        lines += [
            "model-index:", "- name: EAT", "  results:", f"  - task:\n      type: {task}",
            "    dataset:\n      type: own\n      name: held-out clips", "    metrics:",
        ]  # fmt: skip
        for name, value in measured.items():
            lines += [f"    - type: {json.dumps(name)}\n      value: {value}"]
    return "\n".join([*lines, "---", ""])


def _introduction(loaded: Loaded, config: Mapping[str, Any]) -> str:
    kind = "An encoder, pre-trained by self-supervised learning on unlabelled audio"
    if loaded.labels is not None:
        kind = f"A classifier of {len(loaded.labels)} classes of audio, fine-tuned"
    return (
        "# EAT: Efficient Audio Transformer\n\n"
        f"{kind} (Chen et al., IJCAI 2024, arXiv 2401.03497). Width {config['embed_dim']}, "
        f"{config['depth']} blocks, {config['num_heads']} heads, patches of "
        f"{config['patch_size']} frames and mel bins.\n"
    )


def _input(loaded: Loaded) -> str:
    front_end = loaded.front_end
    seconds = front_end.target_length / FRAMES_A_SECOND
    length = f"padded to {seconds:g} s"
    if front_end.patch:
        length = f"left at their length, up to {seconds:g} s"
    energies = "log-mel energies of 128 bins in frames of 10 ms (as Kaldi's)"
    if front_end.kind == DB:
        energies = (
            "mel energies of 128 bins in frames of 10 ms, in decibels, at most 80 below the "
            "largest of the clip, scaled to 0 to 1 in each clip"
        )
    norm = f"; values are (x - {front_end.mean}) / (2 x {front_end.std})"
    if not isinstance(front_end.mean, float):
        norm = "; values are (x - mean) / (2 x std) of each mel bin, see preprocessor_config.json"
    elif (front_end.mean, front_end.std) == UNCHANGED:
        norm = ""
    return (
        f"Input: {CHANNEL[front_end.channels]}, resampled to {SAMPLE_RATE} Hz; {energies}; clips "
        f"are cut to {seconds:g} s or {length}{norm}. `AutoFeatureExtractor` does this, from one "
        "channel.\n"
    )


def _measured(state: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the numbers of an evaluation, or that of a checkpoint in its own validation."""
    if metrics is not None:
        return {name: metrics[name] for name in METRICS if metrics.get(name) is not None}
    checkpoint = state["cfg"].get("checkpoint") or {}
    own = (state.get("extra_state") or {}).get("val_loss")  # the metric, when it was saved
    name = checkpoint.get("best_checkpoint_metric")
    return {name: float(own)} if name and isinstance(own, (int, float)) and own else {}


def _numbers(measured: Mapping[str, float], metrics: Mapping[str, Any] | None) -> str:
    if not measured:
        return "## Numbers\n\nNone were measured.\n"
    source = "validation of this checkpoint, as it states it"
    if metrics is not None:
        source = f"`eat evaluate`, split `{metrics['split']}`, {metrics['on']}"
    rows = "".join(f"| {name} | {value:.4f} |\n" for name, value in measured.items())
    return f"## Numbers\n\n| metric | value |\n|---|---|\n{rows}\nSource: {source}.\n"


def _training(state: Mapping[str, Any], loaded: Loaded) -> str:
    updates = int((state.get("optimizer_history") or [{}])[-1].get("num_updates", 0))
    lines = [f"- updates: {updates}"] if updates else []
    for section, name, what in TRAINING if updates else ():  # an imported one has defaults there
        value = (state["cfg"].get(section) or {}).get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        used = loaded.labels is None or name not in PRETRAINED  # not by a classifier
        if used and value not in (None, False, 0, 0.0):
            lines.append(f"- {what}" if value is True else f"- {what}: {value}")
    listed = "\n".join(lines) or "The checkpoint does not state it."
    return f"## Training\n\n{listed}\n"


def _use(loaded: Loaded, config: Mapping[str, Any]) -> str:
    kind = "AutoModel" if loaded.labels is None else "AutoModelForAudioClassification"
    result = "outputs.last_hidden_state  # [1, 1 + patches, width]: CLS, then the patches"
    if loaded.labels is not None:
        is_multi = config["problem_type"] == MULTI_LABEL
        function = "sigmoid()" if is_multi else "softmax(-1)"
        result = (
            f"scores = outputs.logits.{function}[0]\n"
            "print(model.config.id2label[int(scores.argmax())])"
        )
    text = (
        "## Use\n\n"
        "transformers 4.51 or later; neither fairseq nor the EAT plugin is needed. The code is in "
        "this folder, so `trust_remote_code=True` is.\n\n"
        "```python\n"
        "import soundfile\n"
        "import torch\n"
        f"from transformers import AutoFeatureExtractor, {kind}\n\n"
        'folder = "."  # this one\n'
        "extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)\n"
        f"model = {kind}.from_pretrained(folder, trust_remote_code=True).eval()\n"
        'samples, rate = soundfile.read("dog.wav", always_2d=True)\n'
        f"samples = {MIX[loaded.front_end.channels]}\n"
        'inputs = extractor(samples, sampling_rate=rate, return_tensors="pt")\n'
        "with torch.no_grad():\n"
        "    outputs = model(**inputs)\n"
        f"{result}\n"
        "```\n"
    )
    if loaded.labels is None:
        return text
    function = "sigmoid" if config["problem_type"] == MULTI_LABEL else "softmax"
    return text + (
        "\nOr, with samples at 16 kHz:\n\n"
        "```python\n"
        "from transformers import pipeline\n\n"
        'classify = pipeline("audio-classification", model=folder, feature_extractor=folder, '
        "trust_remote_code=True)\n"
        f'classify(samples, function_to_apply="{function}")\n'
        "```\n\n"
        "transformers 4 needs both: without them it finds no feature extractor, and takes softmax "
        "for any model.\n"
    )
