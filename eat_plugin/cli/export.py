"""Rewrite a checkpoint with the names of the published code.

example: eat export --checkpoint checkpoint_best.pt --out published.pt --format published

The file has the published keys and configuration and gives the same features and logits. It is for
loading and fine-tuning elsewhere: it has no optimizer state, so training cannot be resumed from it.
The published code has no statistics of your own data; they are folded into the weights of the patch
embedding, and inputs are normalised by the published ones (task.norm=bins: only if a patch has all
128 mel bins). Other options without a published name
are an error if they affect the results; options that affect training alone are listed and left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eat_plugin.cli import say
from eat_plugin.cli.outputs import check_file
from eat_plugin.data.files import replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", metavar="C", type=Path, required=True, help="checkpoint to rewrite"
    )
    parser.add_argument("--out", metavar="F", type=Path, required=True, help="file to write, .pt")
    parser.add_argument(
        "--format",
        choices=("published",),
        default="published",
        help="names to use (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    import torch

    from eat_plugin.inference import load_state
    from eat_plugin.inference.conversion import check_same, convert_to_published
    from eat_plugin.models.interop import read_checkpoint

    check_file(args.out, (".pt",), "a PyTorch checkpoint")
    if args.out.exists() and args.out.samefile(args.checkpoint):
        raise ValueError(f"--out is {args.out}, the checkpoint itself; choose another file")
    state, cpu = read_checkpoint(args.checkpoint), torch.device("cpu")
    loaded = load_state(args.checkpoint, state, cpu)
    converted, left_out = convert_to_published(state, loaded)
    reloaded = load_state(args.checkpoint, converted, cpu)
    check_same(loaded, reloaded)
    if reloaded.front_end != loaded.front_end:
        mean, std = loaded.front_end.mean, loaded.front_end.std
        own = f"task.norm_mean={mean} and task.norm_std={std}"
        if isinstance(mean, tuple):
            own = "the means and deviations of the mel bins (task.norm=bins)"
        sys.stderr.write(
            f"eat export: {own} were folded into the patch embedding; normalise inputs by "
            f"{reloaded.front_end.mean} and {reloaded.front_end.std}\n"
        )
    if left_out:
        sys.stderr.write(f"eat export: left out, no published name: {', '.join(left_out)}\n")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as file:
        torch.save(converted, file)
    task, model = (converted["cfg"][part]["_name"] for part in ("task", "model"))
    say(
        f"{args.out}: published checkpoint (task {task}, model {model}), same results, no "
        "optimizer state: load or fine-tune it, training cannot be resumed"
    )
    return 0
