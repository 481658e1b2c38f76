"""Does pre-training pay on images? The 1,797 handwritten digits of scikit-learn, on a CPU.

The digits are written as PNG of 8 x 8 grey pixels; a fifth of each class is held out. A tiny model
is pre-trained on the other images without labels, and compared with random weights at the same
number of updates:

    scratch      the whole model trained from random weights
    fine-tuned   the whole model trained from the pre-trained weights
    probe random a linear classifier on a frozen random encoder
    probe        a linear classifier on the frozen pre-trained encoder

Accuracies are those after the last update: no checkpoint is chosen on the held-out images.

    python -m benchmarks.digits --out runs/digits

An interrupted run resumes. Results: OUT/table.md and OUT/results.json.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from .launching import BIN, ROOT, finetune_arms, make_parser, pretrain, run, write_results

# 64 patches, as many as a digit has pixels. No flips and no small crops: a mirrored digit is no
# digit, and a digit fills its image. Mean and deviation are those of all pixels.
SIZE = [
    "task.images.size=[32,32]", "task.images.channels=1", "task.images.mean=[0.305]",
    "task.images.std=[0.376]", "task.images.flip=0", "task.images.crop_scale=[0.6,1]",
    "task.images.eval_crop=1", "model.modalities.image.patch_size=4", "model.depth=4",
    "model.embed_dim=96", "model.num_heads=3", "dataset.batch_size=32", "dataset.num_workers=1",
]  # fmt: skip
PRETRAINING = [
    "optimization.max_update=1000", "lr_scheduler.warmup_updates=100", "optimization.lr=[0.001]",
    "model.average_top_k_layers=4", "model.clone_batch=8", "model.recon_loss=1",
    "model.ema_decay=0.99", "model.ema_end_decay=0.999",
    "model.ema_anneal_end_step=${optimization.max_update}",
    "model.modalities.image.decoder.decoder_dim=96",
    "model.modalities.image.decoder.decoder_groups=8",
    "model.modalities.image.decoder.decoder_layers=2",
    "checkpoint.save_interval=1000", "checkpoint.save_interval_updates=500",
]  # fmt: skip
PROBE = ["model.linear_probe=true", "optimization.lr=[0.01]"]
# Layer-wise learning rate decay protects pre-trained weights; random weights need none.
ARMS = {
    "scratch": ["model.model_path=null", "model.layer_decay=1"],
    "fine-tuned": ["model.layer_decay=0.75"],
    "probe random": ["model.model_path=null", *PROBE],
    "probe": PROBE,
}
FINETUNING = [
    "optimization.max_update=300", "lr_scheduler.warmup_updates=30", "model.drop_path_rate=0",
    "model.mixup=0", "model.cutmix=0", "dataset.validate_interval=1000",
    "checkpoint.save_interval=1000", "checkpoint.save_interval_updates=0",
]  # fmt: skip


def main() -> int:
    """Run the missing trainings, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "digits", metavar="DIR")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    data = prepare(out)
    pretrained = pretrain("image_pretrain", data, out / "pretraining", [*SIZE, *PRETRAINING])
    options = [*SIZE, *FINETUNING]
    results = finetune_arms("image_finetune", data, pretrained, out, options, ARMS)
    lines = ["| arm | accuracy |", "|---|---|"]
    lines += [f"| {arm} | {accuracy:.1%} |" for arm, accuracy in results.items()]
    write_results(out, "\n".join(lines) + "\n", results, began)
    return 0


def prepare(out: Path) -> Path:
    """Write the digits as images with manifests; return the folder of the manifests."""
    images, data = out / "images", out / "data"
    if not (data / "eval.lbl").is_file():
        digits = load_digits()
        for number, (pixels, digit) in enumerate(zip(digits.images, digits.target)):
            path = images / str(digit) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(pixels * 255 / 16).astype(np.uint8)).save(path)
        command = [BIN / "eat", "manifest", images, "--images", "--layout", "folders"]
        run([*command, "--valid", 0.2, "--out", data], out / "manifest.log")
    return data


if __name__ == "__main__":
    sys.exit(main())
