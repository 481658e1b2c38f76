"""``config.json`` and ``preprocessor_config.json`` of a folder, from a checkpoint."""

from __future__ import annotations

from typing import Any

from ..data.frames import MEL_BINS, SAMPLE_RATE
from ..inference.loaded import Loaded
from ..models.classifier import EatClassifier
from ..models.config import EatConfig
from ..sections import plain
from .network_eat import FINE_TUNED

WEIGHTS, CONFIG, INPUT, CARD = (
    "model.safetensors", "config.json", "preprocessor_config.json", "README.md",
)  # fmt: skip
MULTI_LABEL, SINGLE_LABEL = "multi_label_classification", "single_label_classification"


def describe_model(loaded: Loaded) -> dict[str, Any]:
    """Return the contents of ``config.json``."""
    auto_map = {
        "AutoConfig": "configuration_eat.EATConfig", "AutoModel": "modeling_eat.EATModel",
    }  # fmt: skip
    config = {
        "model_type": "eat",
        "architectures": ["EATModel"],
        "auto_map": auto_map,
        "torch_dtype": "float32",
        "model_variant": "pretrain",
        **_encoder_options(loaded.encoder.cfg),
    }
    config["img_size"] = [loaded.front_end.target_length, MEL_BINS]
    if isinstance(loaded.model, EatClassifier):
        auto_map["AutoModelForAudioClassification"] = "modeling_eat.EATForAudioClassification"
        config.update(_describe_classifier(loaded, loaded.model))
    return config


def _encoder_options(cfg: EatConfig) -> dict[str, Any]:
    image = cfg.modalities.image
    return {
        "embed_dim": cfg.embed_dim, "depth": cfg.depth, "num_heads": cfg.num_heads,
        "patch_size": plain(image.patch_size), "stride": plain(image.patch_size),
        "in_chans": image.in_chans, "mel_bins": MEL_BINS, "max_length": image.max_length,
        "mlp_ratio": cfg.mlp_ratio, "qkv_bias": True, "drop_rate": cfg.encoder_dropout,
        "attn_drop_rate": cfg.attention_dropout, "activation_dropout": cfg.activation_dropout,
        "post_mlp_drop": cfg.post_mlp_drop, "start_drop_path_rate": cfg.start_drop_path_rate,
        "end_drop_path_rate": cfg.end_drop_path_rate, "layer_norm_first": cfg.layer_norm_first,
        "norm_eps": cfg.norm_eps, "norm_affine": cfg.norm_affine,
        "fixed_positions": image.fixed_positions, "num_extra_tokens": image.num_extra_tokens,
        "patch_embed_dim": None if image.embed_dim == cfg.embed_dim else image.embed_dim,
        "mel_by_time": image.mel_by_time, "positions": image.positions,
        "attention_gate": cfg.attention_gate,
    }  # fmt: skip


def _describe_classifier(loaded: Loaded, model: EatClassifier) -> dict[str, Any]:
    labels = loaded.require_labels()
    # label2id needs names of which none occurs twice.
    names = labels.names if len(set(labels.names)) == len(labels) else labels.ids
    assert model.cfg.prediction_mode is not None
    problem_type = SINGLE_LABEL if model.objective.loss == "ce" else MULTI_LABEL
    return {
        "architectures": ["EATForAudioClassification"],
        "model_variant": FINE_TUNED,
        "num_classes": len(labels),
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": problem_type,
        # What transformers has no name for, and for which classes: they may be replaced there.
        "trained": {
            "names": list(names),
            "problem_type": problem_type,
            "ids": list(labels.ids),
            "single_label": loaded.single_label,
        },
        "pooling": model.cfg.prediction_mode.name,
        "segments": model.cfg.segments,
        "use_fc_norm": model.cfg.use_fc_norm,
    }


def describe_input(loaded: Loaded) -> dict[str, Any]:
    """Return the contents of ``preprocessor_config.json``."""
    return {
        "feature_extractor_type": "EATFeatureExtractor",
        "auto_map": {"AutoFeatureExtractor": "feature_extraction_eat.EATFeatureExtractor"},
        "feature_size": MEL_BINS,
        "sampling_rate": SAMPLE_RATE,
        "padding_value": 0.0,
        **plain(loaded.front_end),
        "eval_windows": loaded.eval_windows,
    }
