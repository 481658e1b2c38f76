"""Training runs in this process, without the seconds that an import of fairseq takes."""

import json
import logging
from pathlib import Path

import torch
from fairseq.dataclass.initialize import add_defaults
from fairseq_cli.train import main
from omegaconf import OmegaConf

from tests.composing import compose

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "size=tiny", f"common.user_dir={ROOT / 'eat_plugin'}", "common.cpu=true", "common.fp16=false",
    "common.tensorboard_logdir=null", "dataset.num_workers=0", "dataset.batch_size=4",
    "task.target_length=64", "lr_scheduler.warmup_updates=1", "optimization.max_update=2",
    "model.depth=2", "model.embed_dim=32", "model.num_heads=4", "model.average_top_k_layers=2",
    "model.clone_batch=2", "model.modalities.image.decoder.decoder_dim=32",
    "model.convolution=channels_last",  # timed on a busy machine, runs may differ in their way
]  # fmt: skip
SCRATCH = [
    *(o for o in SMALL if not o.startswith(("model.clone_batch", "model.convolution"))),
    "model.model_path=null", "task.single_label=true", "checkpoint.best_checkpoint_metric=accuracy",
]  # fmt: skip


def compose_run(name, data, *overrides):
    """Compose the configuration of a small run."""
    small = SCRATCH if name == "finetune" else SMALL
    cfg = compose(name, [*small, f"task.data={data}", *overrides])
    add_defaults(cfg)
    return cfg


def train(name, data, *overrides):
    """Train as `fairseq-hydra-train` does after hydra; return the configuration."""
    cfg = compose_run(name, data, *overrides)
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(cfg, True)
    level = logging.getLogger().level
    main(cfg)
    logging.getLogger().setLevel(level)
    return cfg


def load(folder, file="checkpoint_last.pt"):
    """A checkpoint of a run in a folder."""
    return torch.load(Path(folder) / file, weights_only=True)


def logged_updates(caplog):
    """The values that a run has logged for each update."""
    texts = [record.getMessage() for record in caplog.records if record.name == "train_inner"]
    return [json.loads(text) for text in texts if text.startswith("{")]
