"""Arguments of `eat bench`, without PyTorch: its help is fast."""

from __future__ import annotations

import argparse

CPU, CUDA = "cpu", "cuda"
OF_WORKERS = (
    "resample", "resample_44k", "log_mel", "decibels", "masks", "read_wav", "load_wav", "load_flac",
    "load_mp3",
)  # fmt: skip
OF_MODELS = (
    "features_1", "features_32", "finetune_1", "finetune_32", "update_tiny", "update_base",
    "stage2_tiny", "stage2_base", "train_tiny", "update_bat_tiny", "update_bat_small",
    "update_bat_small_half", "update_bat", "update_bat_2", "update_bat_half",
)  # fmt: skip
COUNTED = (
    "operations", "activations", "activations_gelu", "stage2_activations",
    "activations_bat_small", "activations_bat", "activations_bat_half",
)  # fmt: skip
OF_STORES = ("store_1", "store_2", "store_1_cached", "store_2_cached")
ROUNDED = ("bfloat16_tiny", "bfloat16_base")
ON_CPU = (*OF_WORKERS, *OF_STORES, *OF_MODELS, *ROUNDED, *COUNTED)
OF_GPUS = ("train_base_12", "train_base_48", "train_base_96", "train_large_12")
ON_GPU = (*OF_MODELS, *OF_GPUS, *COUNTED)
EPILOG = f"""
examples:
  eat bench
  eat bench log_mel load_flac --rounds 200
  eat bench --device cuda
  eat bench --json > bench.json

Each computation runs in two forms, in turn, in one process: ours, and a plain form that follows the
definition (benchmarks/plain*.py). Times are medians. Ratios are medians of the ratios per round, so
that other load affects both forms. The column `difference` is the largest difference of the two
results / the largest value. Models are base, except in the tiny cases: float32 on the CPU, bfloat16
on a GPU. Cases with bat are of the recipe bat; in half our decoder predicts half of the hidden
patches, the plain one all. The cases stage2_* compare an update of SSLAM's second stage with one of
the first stage, which has the place of the plain form; the cases bfloat16_* compare our update in
bfloat16 with that in float32, which has it too. In the cases store_*, which need aiohttp,
data workers read clips through a local web server; the plain form reads them from the disk.

cases on the CPU:
  {", ".join(ON_CPU)}
cases on a GPU (--device cuda):
  {", ".join(ON_GPU)}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = EPILOG
    parser.add_argument(
        "cases", metavar="CASE", nargs="*", help="cases (default: all of the device)"
    )
    parser.add_argument(
        "--device", choices=(CPU, CUDA), default=CPU, help="device (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=int,
        default=50,
        help="rounds; slow cases have fewer on the CPU (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", metavar="N", type=int,
        help="threads of PyTorch (default: 1 for data workers, PyTorch's default for models)",
    )  # fmt: skip
    parser.add_argument(
        "--profile", action="store_true",
        help="also print the time of each stage of our form: products, attention, convolution, ...",
    )  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="compile our models")
    parser.add_argument(
        "--cuda-graph", action="store_true",
        help="with model.cuda_graph=true; in the cases train_* on a GPU",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="write JSON")
