"""Turn a Hugging Face folder or a safetensors file into a checkpoint.

Examples:
  eat import folder --out checkpoint.pt
  eat import model.safetensors --out checkpoint.pt

SOURCE is a folder of eat export --format hf, a published one of EAT (config.json and
model.safetensors), or a file of eat export --format safetensors. No code of it is run.

Fine-tune the checkpoint, extract features, predict, evaluate, export it again. Neither pre-training
nor fine-tuning can be resumed from it: SOURCE has no decoder, teacher and state of an optimizer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from eat_plugin.cli import say
from eat_plugin.cli.outputs import check_file
from eat_plugin.data.files import drafted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", type=Path, help="folder or .safetensors file")
    parser.add_argument(
        "--out", metavar="F", type=Path, required=True, help="checkpoint to write, .pt"
    )


def run(args: argparse.Namespace) -> int:
    import torch

    from eat_plugin.inference import load_state

    check_file(args.out, (".pt",), "a PyTorch checkpoint")
    state = _read(args.source)
    loaded = load_state(args.source, state, torch.device("cpu"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with drafted(args.out) as draft, draft.open("wb") as file:
        torch.save(state, file)
    kind = "pre-trained encoder"
    if loaded.labels is not None:
        kind = f"classifier of {len(loaded.labels)} classes"
    size = f"width {loaded.encoder.cfg.embed_dim} x depth {len(loaded.encoder.blocks)}"
    say(
        f"{args.out}: {kind}, {size}: fine-tune it, extract features; training cannot be resumed "
        "from it (no decoder, teacher and state of an optimizer)"
    )
    return 0


def _read(source: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint."""
    from eat_plugin.huggingface.importing import import_folder
    from eat_plugin.models.interop import as_checkpoint, read_checkpoint
    from eat_plugin.safetensors_files import is_safetensors

    if source.is_dir():
        imported = import_folder(source)
        for note in imported.notes:
            sys.stderr.write(f"eat import: {note}\n")
        return imported.state
    if not is_safetensors(source):
        raise ValueError(f"{source} is neither a folder nor a .safetensors file")
    state = read_checkpoint(source)
    return as_checkpoint(state["cfg"], state["model"], state.get("task_state") or {})
