"""Pre-train a model on the clips of a data folder.

Examples:
  eat manifest /my/audio --out data
  eat stats data
  eat pretrain --data data --size tiny
  eat pretrain --data data --out runs/mine dataset.batch_size=24 optimization.lr=0.0004

Chooses device, precision and data workers for this machine, unless options set them. It
prints the equal fairseq-hydra-train command, for clusters. The same command resumes a stopped run.

RUN has the checkpoints, console.txt (the full log) and tb (TensorBoard). See a run with:
  eat plot --run RUN --out losses.png
"""

from __future__ import annotations

import argparse

from eat_plugin.cli import training

CONFIG = "pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    training.add_arguments(parser, CONFIG)


def run(args: argparse.Namespace) -> int:
    return training.run(args, CONFIG, [])
