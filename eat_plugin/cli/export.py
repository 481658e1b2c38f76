"""Rewrite a checkpoint for use elsewhere: published names, Hugging Face, safetensors or ONNX.

Examples:
  eat export --checkpoint checkpoint_best.pt --out published.pt
  eat export --checkpoint checkpoint_best.pt --out model.safetensors --clips dog.wav rain.flac
  eat export --checkpoint checkpoint_best.pt --out model.onnx
  eat export --checkpoint checkpoint_best.pt --out folder --format hf --metrics metrics.json

The file (hf: the folder) is written under a temporary name, read again and compared with the
checkpoint on clips; the largest difference is printed. Only then it gets its name.

published (.pt): the keys and configuration of the published code, to be loaded and fine-tuned
elsewhere. It has no optimizer state, so training cannot be resumed from it. The published code has
no statistics of your own data; they are folded into the weights of the patch embedding, and inputs
are normalised by the published ones (task.norm=bins: only if a patch has all 128 mel bins). Other
options without a published name are an error if they affect the results; options that affect
training alone are listed and left out.

safetensors (.safetensors): the weights of encoder and classifier, the configuration and labels in
the metadata. All commands that take a checkpoint take it, eat finetune too.

hf (a new folder): AutoModel, AutoFeatureExtractor and, with a classifier,
AutoModelForAudioClassification of transformers 4.51 and later load it with trust_remote_code=True,
without fairseq and this package: config.json, model.safetensors, preprocessor_config.json, code,
and README.md, a model card. The comparison runs the folder's code but for what is of transformers.
eat import reads the folder.

onnx (.onnx): opset 18, batch and time dynamic. Input spectrogram, float32 [batch, 1, frames, 128],
normalised, frames a multiple of the patch; outputs tokens [batch, 1 + patches, width] of the last
block and, with a classifier, probabilities [batch, classes]. The metadata say how the spectrogram
is made, and the labels. With --waveform the front end is in the graph: input waveform, float32
[batch, samples], 400 or more (task.frontend=db: 513) at 16 kHz. It rounds in another way than ours:
features differ by up to 1e-3.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eat_plugin.cli import say
from eat_plugin.cli.outputs import check_file, check_folder
from eat_plugin.data.files import drafted
from eat_plugin.data.frames import FRAMES_A_SECOND

if TYPE_CHECKING:
    from eat_plugin.inference.clips import Clip
    from eat_plugin.inference.loaded import Loaded
    from eat_plugin.inference.portable import Difference

# Format -> the ending of its file; "" for a folder.
FORMATS = {"published": ".pt", "safetensors": ".safetensors", "onnx": ".onnx", "hf": ""}
CLIPS = 6  # synthetic ones, without --clips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", metavar="C", type=Path, required=True, help="checkpoint to rewrite"
    )
    parser.add_argument(
        "--out", metavar="F", type=Path, required=True,
        help="file to write, .pt, .safetensors or .onnx; hf: a new folder",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=FORMATS, help="format (default: by the ending of --out; never hf)"
    )
    parser.add_argument(
        "--clips", metavar="FILE", type=Path, nargs="+",
        help="audio to compare on (default: the synthetic sounds of eat demo)",
    )  # fmt: skip
    parser.add_argument(
        "--waveform", action="store_true", help="onnx: the graph takes waveforms at 16 kHz"
    )
    parser.add_argument(
        "--metrics", metavar="FILE", type=Path,
        help="hf: metrics.json of eat evaluate, for the model card",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    import torch

    from eat_plugin.inference import load_state
    from eat_plugin.inference.recordings import classifies_frames
    from eat_plugin.models.interop import read_checkpoint

    by_ending = {ending: name for name, ending in FORMATS.items() if ending}
    chosen = args.format or by_ending.get(args.out.suffix.lower(), "published")
    _check_out(args, chosen)
    state = read_checkpoint(args.checkpoint)
    loaded = load_state(args.checkpoint, state, torch.device("cpu"))
    clips = args.clips or _synthesise()
    if loaded.images is not None and chosen != "published":  # whose own message says why not
        raise ValueError(
            f"{args.checkpoint} is a model of images (task.images), which --format {chosen} does "
            "not take"
        )
    if chosen == "hf" and classifies_frames(loaded):
        raise ValueError(
            f"{args.checkpoint} labels time steps (benchmark=frames), for which transformers has "
            "no class of models; --format safetensors takes it"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if chosen == "hf":
        description, difference = _folder(args, state, loaded, clips)
    else:
        writers: dict[str, Callable[..., tuple[str, Difference]]] = {
            "published": _published, "safetensors": _safetensors,
            "onnx": partial(_onnx, waveform=args.waveform),
        }  # fmt: skip
        with drafted(args.out) as draft:
            description, difference = writers[chosen](args.out, draft, state, loaded, clips)
    say(f"{args.out}: {description}; largest difference on {difference}")
    return 0


def _check_out(args: argparse.Namespace, chosen: str) -> None:
    """Raise ValueError unless the output and the options fit the format."""
    for option, is_given, of in (
        ("--waveform", args.waveform, "onnx"), ("--metrics", args.metrics is not None, "hf")
    ):  # fmt: skip
        if is_given and chosen != of:
            raise ValueError(f"{option} is for --format {of}, not for {chosen}")
    if chosen == "hf":
        check_folder(args.out, "a new folder for --format hf")
        if args.out.is_dir() and any(args.out.iterdir()):
            raise ValueError(f"--out is {args.out}, which is not empty; give a new folder")
        return
    content = "a PyTorch checkpoint" if chosen == "published" else f"a file of --format {chosen}"
    check_file(args.out, (FORMATS[chosen],), content)
    if args.out.exists() and args.out.samefile(args.checkpoint):
        raise ValueError(f"--out is {args.out}, the checkpoint itself; choose another file")


def _folder(
    args: argparse.Namespace, state: dict[str, Any], loaded: Loaded, clips: list[Clip]
) -> tuple[str, Difference]:
    from eat_plugin.huggingface.card import read_metrics
    from eat_plugin.huggingface.folder import write_folder

    metrics = None if args.metrics is None else read_metrics(args.metrics, loaded)
    if metrics and os.path.realpath(str(metrics.get("checkpoint"))) != os.path.realpath(
        loaded.path
    ):
        sys.stderr.write(f"eat export: {args.metrics} is of {metrics.get('checkpoint')}\n")
    kind = "AutoModel" if loaded.labels is None else "AutoModelForAudioClassification"
    difference = write_folder(args.out, state, loaded, clips, metrics)
    return (
        f"folder for transformers ({kind}), compared by its own code without transformers"
    ), difference


def _synthesise() -> list[Clip]:
    from eat_plugin.prepare.demo_sounds import KINDS, synthesise_clip

    sounds = (synthesise_clip(kind, number) for number, kind in enumerate(KINDS[:CLIPS]))
    return [(sound.samples.T, sound.encoding.sample_rate) for sound in sounds]


def _published(
    out: Path, draft: Path, state: dict[str, Any], loaded: Loaded, clips: list[Clip]
) -> tuple[str, Difference]:
    import torch

    from eat_plugin.checkpoint_files import read_data
    from eat_plugin.inference import load_state
    from eat_plugin.inference.conversion import ROUNDING, check_same, convert_to_published
    from eat_plugin.inference.portable import TOLERANCE, compare

    converted, left_out = convert_to_published(state, loaded)
    with draft.open("wb") as file:  # torch.save itself does not say why it cannot write
        torch.save(converted, file)
    reloaded = load_state(loaded.path, read_data(draft), loaded.device)
    check_same(loaded, reloaded)
    is_folded = reloaded.front_end != loaded.front_end
    difference = compare(loaded, reloaded, clips)
    difference.check(str(out), ROUNDING if is_folded else TOLERANCE)
    if is_folded:
        _report_folding(loaded, reloaded)
    if left_out:
        sys.stderr.write(f"eat export: left out, no published name: {', '.join(left_out)}\n")
    same = "same results"
    if loaded.eval_windows:
        seconds = loaded.front_end.target_length / FRAMES_A_SECOND
        same += f" for clips of up to {seconds:g} s"
        sys.stderr.write(
            f"eat export: of clips longer than {seconds:g} s published code scores the start, this "
            f"model the mean of {loaded.eval_windows} windows (task.length=crop)\n"
        )
    task, model = (converted["cfg"][part]["_name"] for part in ("task", "model"))
    return (
        f"published checkpoint (task {task}, model {model}), {same}, no optimizer state: "
        "load or fine-tune it, training cannot be resumed"
    ), difference


def _report_folding(loaded: Loaded, reloaded: Loaded) -> None:
    mean, std = loaded.front_end.mean, loaded.front_end.std
    own = f"task.norm_mean={mean} and task.norm_std={std}"
    if isinstance(mean, tuple):
        own = "the means and deviations of the mel bins (task.norm=bins)"
    sys.stderr.write(
        f"eat export: {own} were folded into the patch embedding; normalise inputs by "
        f"{reloaded.front_end.mean} and {reloaded.front_end.std}\n"
    )


def _safetensors(
    out: Path, draft: Path, state: dict[str, Any], loaded: Loaded, clips: list[Clip]
) -> tuple[str, Difference]:
    from eat_plugin.inference import load_state
    from eat_plugin.inference.portable import compare, portable_state
    from eat_plugin.safetensors_files import read_safetensors, write_safetensors

    write_safetensors(draft, portable_state(state, loaded))
    difference = compare(loaded, load_state(out, read_safetensors(draft), loaded.device), clips)
    difference.check(str(out))
    return "weights, configuration and labels of encoder and classifier", difference


def _onnx(
    out: Path,
    draft: Path,
    state: dict[str, Any],
    loaded: Loaded,
    clips: list[Clip],
    waveform: bool,
) -> tuple[str, Difference]:
    from eat_plugin.inference import onnx_export
    from eat_plugin.inference.portable import TOLERANCE

    onnx_export.export_onnx(loaded, draft, waveform)
    difference = onnx_export.compare_onnx(draft, loaded, clips, waveform)
    difference.check(str(out), onnx_export.WAVEFORM_TOLERANCE if waveform else TOLERANCE)
    contents = "front end and model" if waveform else "model"
    return (
        f"ONNX graph of {contents}, opset {onnx_export.OPSET}, batch and time of any size"
    ), difference
