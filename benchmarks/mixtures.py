r"""Does SSLAM's second stage pay where sounds overlap? Mixtures of two clips of ESC-10 (or ESC-50).

In each fold a tiny model is pre-trained on the audio of the training folds only, with the packaged
recipe. From its checkpoint training continues in three ways, with the same rate and schedules:

    stage 2       SSLAM (config/sslam.yaml)
    same updates  as before, for as many updates
    same time     as before, for as long: updates by the ratio of `eat bench stage2_tiny`

The frozen features of all four models are probed (eat probe) on mixtures: two clips of different
classes, added at a random difference of levels, with the labels of both. Training mixtures are of
the training folds, scored ones of the held-out fold. The figure is mAP of the linear probe.

    python -m benchmarks.mixtures --esc /data/ESC-50-master --out runs/mixtures --seeds 1 2 3

An interrupted run resumes. Results: OUT/table.md and OUT/results.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from eat_plugin.data.label_set import read_label_set
from eat_plugin.data.labels import read_labels
from eat_plugin.data.manifest import read_manifest, write_manifest
from eat_plugin.data.resampling import resample

from .esc10 import prepare
from .launching import ROOT, format_table, make_parser, pretrain, probe, quote, say, write_results
from .second_stage import CASES
from .timing import Place, compare

RATE = 16_000  # Hz, of mixtures
LEVELS = 10.0  # dB, largest difference of the two clips
PEAK = 0.9
DESCRIPTORS = "label_descriptors.csv"
STAGE_2, UPDATES, TIME = "stage 2", "same updates", "same time"


def main() -> int:
    """Run the missing trainings, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--esc", type=Path, required=True, metavar="DIR", help="folder with meta/esc50.csv, audio/"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "mixtures", metavar="DIR")
    parser.add_argument("--folds", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--first", type=int, default=3000, metavar="UPDATES", help="of stage 1")
    parser.add_argument("--second", type=int, default=1500, metavar="UPDATES", help="of stage 2")
    parser.add_argument(
        "--mixtures", type=int, nargs=2, default=[400, 200], metavar="N",
        help="to learn from, and to score",
    )  # fmt: skip
    parser.add_argument(
        "--layer", default="-1", metavar="LAYER", help="of eat probe; all takes four times as long"
    )
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    began, results = time.monotonic(), {}
    ratio = measure_ratio(out)
    say(f"an update of stage 1 takes {ratio:.2f} of the time of one of stage 2")
    for number in args.folds:
        clips = prepare(args.esc.resolve(), number, out / f"fold{number}")
        mixtures = make_mixtures(clips, out / f"fold{number}" / "mixtures", args.mixtures, number)
        for seed in args.seeds:
            name = f"{number}, seed {seed}"
            folder = out / f"fold{number}" / f"seed{seed}"
            results[name] = compare_stages(clips, mixtures, folder, args, ratio, seed)
            say(f"fold {name}: " + ", ".join(f"{k} {v:.1%}" for k, v in results[name].items()))
    table = format_table(results, "fold") + "\n" + format_gains(results)
    write_results(out, table, {"stage_1_over_stage_2": ratio, "mAP": results}, began)
    return 0


def measure_ratio(out: Path) -> float:
    """Return the time of an update of stage 1 over that of one of stage 2; measured once."""
    done = out / "ratio.json"
    if not done.is_file():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        case = CASES["stage2_tiny"](Place(out, device))
        done.write_text(json.dumps(compare("stage2_tiny", case, 50, device).ratio))
    return float(json.loads(done.read_text(encoding="utf-8")))


def compare_stages(
    clips: Path, mixtures: Path, folder: Path, args: argparse.Namespace, ratio: float, seed: int
) -> dict[str, float]:
    """Train all models of a seed; return the mAP of each on the mixtures, and of the baselines.

    Args:
        clips: data folder of the clips.
        mixtures: data folder of the mixtures.
        folder: of the runs.
        args: the numbers of updates, and the layer to probe.
        ratio: see ``measure_ratio``.
        seed: of all runs.
    """
    common, second = ["size=tiny", f"common.seed={seed}"], args.second
    own = [*common, f"optimization.max_update={args.first}"]
    start = pretrain("pretrain", clips, folder / "stage_1", own)
    common.append(f"checkpoint.finetune_from_model={quote(start)}")
    found = {"stage 1": start}
    # Without mixtures the clones are those of the first stage.
    as_before = ["model.retention_loss=0", "model.cls_target=targets", "model.clone_batch=8"]
    for name, updates, options in (
        (STAGE_2, second, []),
        (UPDATES, second, as_before),
        (TIME, round(second / ratio), as_before),
    ):
        own = [f"optimization.max_update={updates}", f"lr_scheduler.warmup_updates={updates // 8}"]
        path = folder / name.replace(" ", "_")
        found[name] = pretrain("sslam", clips, path, [*common, *own, *options])
    result, scores = {}, {}
    for name, checkpoint in found.items():
        path = folder / f"probe_{name.replace(' ', '_')}"
        scores = probe(mixtures, checkpoint, path, f"--layer={args.layer}")
        result[name] = scores.pop("probe model")
    return {**result, **scores}  # the baselines are the same for all


def make_mixtures(clips: Path, folder: Path, numbers: list[int], seed: int) -> Path:
    """Mix clips of each split of a data folder in pairs; return the new data folder."""
    if (folder / "done").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    label_set = read_label_set(clips / DESCRIPTORS)
    for split, number in zip(("train", "eval"), numbers):
        rng = np.random.default_rng((seed, number))
        manifest = read_manifest(clips / f"{split}.tsv")
        labels = read_labels(clips / f"{split}.lbl", label_set, manifest, single_label=True)
        classes = labels.multi_hot(np.arange(len(manifest))).argmax(axis=1)
        sounds = [read_sound(Path(manifest.path(index))) for index in range(len(manifest))]
        (folder / split).mkdir(parents=True)
        rows, lines = [], []
        for index in range(number):
            pair = rng.choice(len(sounds), 2, replace=False)
            while classes[pair[0]] == classes[pair[1]]:
                pair = rng.choice(len(sounds), 2, replace=False)
            first, second = (sounds[clip] for clip in pair)
            wave = add(first, second, rng.uniform(-LEVELS, LEVELS))
            name = f"{index:04d}.wav"
            soundfile.write(folder / split / name, wave, RATE)
            rows.append((name, len(wave)))
            lines.append(f"{name}\t{','.join(label_set.ids[classes[clip]] for clip in pair)}\n")
        write_manifest(folder / f"{split}.tsv", folder / split, rows)
        (folder / f"{split}.lbl").write_text("".join(lines), encoding="utf-8")
    shutil.copy(clips / DESCRIPTORS, folder)
    (folder / "done").touch()
    return folder


def read_sound(path: Path) -> np.ndarray:
    """Read a file as one channel at ``RATE``, [samples]."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return resample(torch.from_numpy(wave.mean(axis=1)), rate, RATE).numpy()


def add(first: np.ndarray, second: np.ndarray, level: float) -> np.ndarray:
    """Add two sounds [samples], the second one ``level`` dB above the first, at a common peak."""
    powers = [max(float(np.square(wave).mean()), 1e-10) for wave in (first, second)]
    gain = (powers[0] / powers[1]) ** 0.5 * 10 ** (level / 20)
    length = min(len(first), len(second))
    wave = first[:length] + gain * second[:length]
    return wave * (PEAK / max(float(np.abs(wave).max()), 1e-10))


def format_gains(results: dict[str, dict[str, float]]) -> str:
    """Format what stage 2 gains over the other models: mean, standard deviation, number of wins."""
    lines = []
    for other in ("stage 1", UPDATES, TIME):
        gains = 100 * np.array([row[STAGE_2] - row[other] for row in results.values()])
        spread = f" ± {gains.std(ddof=1):.1f}" if len(gains) > 1 else ""
        wins = f"better in {(gains > 0).sum()} of {len(gains)}"
        lines.append(f"stage 2 - {other}: {gains.mean():+.1f}{spread} mAP, {wins}\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
