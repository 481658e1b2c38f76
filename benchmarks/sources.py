"""How fast clips of each source are read: files, archives, HDF5, a feature cache; side by side.

    .venv/bin/python benchmarks/sources.py

The same clips are written in every form. One process on one thread reads them in turn, as a data
worker does in pre-training: decode, resample, log-mel, 16 masks. Files are in the system's cache:
what is measured is the work and not the disk. All forms must give the same spectrograms (mp3, which
is lossy, apart; the cache, which is float16, within its rounding).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import soundfile
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from eat_plugin.data.dataset import ClipDataset  # noqa: E402
from eat_plugin.data.frontend import FrontEnd  # noqa: E402
from eat_plugin.data.manifest import read_manifest  # noqa: E402
from eat_plugin.data.reader import SpectrogramReader  # noqa: E402
from eat_plugin.masking import MaskSpec  # noqa: E402

RATE, SECONDS, FRAMES, MASKS = 32_000, 10, 1024, 16
FRONT_END = FrontEnd(FRAMES, -4.268, 4.569)
EAT = [sys.executable, "-m", "eat_plugin"]


def main() -> int:
    """Write, check and measure all forms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=32, metavar="N")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        forms = write_forms(Path(folder), args.clips)
        datasets = {form: open_form(data) for form, data in forms.items()}
        check(datasets)
        seconds = measure(datasets, args.rounds)
    wav = seconds["wav"]
    say(f"{args.clips} clips of {SECONDS} s at {RATE} Hz, 16 bits; {MASKS} masks each\n")
    say("| source | ms a clip | clips a second | of wav |\n|---|---|---|---|")
    for form, value in seconds.items():
        say(f"| {form} | {1000 * value:.2f} | {1 / value:.0f} | {wav / value:.2f} |")
    return 0


def write_forms(folder: Path, clips: int) -> dict[str, Path]:
    """Write the clips in every form, and list each; return the folders of the manifests."""
    rng = np.random.default_rng(0)
    samples = [
        (rng.normal(0, 3000, SECONDS * RATE)).clip(-32768, 32767).astype(np.int16)
        for _ in range(clips)
    ]
    audio = {form: folder / "audio" / form for form in ("wav", "flac", "mp3", "zip", "tar", "h5")}
    for path in audio.values():
        path.mkdir(parents=True)
    for number, clip in enumerate(samples):
        for ending in ("wav", "flac", "mp3"):
            soundfile.write(audio[ending] / f"{number:04d}.{ending}", clip, RATE)
    with zipfile.ZipFile(audio["zip"] / "clips.zip", "w") as archive:
        for path in sorted(audio["wav"].iterdir()):
            archive.write(path, path.name)
    with tarfile.open(audio["tar"] / "clips.tar", "w") as archive:
        for path in sorted(audio["flac"].iterdir()):
            archive.add(path, path.name)
    with h5py.File(audio["h5"] / "clips.h5", "w") as file:
        for number, clip in enumerate(samples):
            file[f"{number:04d}"] = clip
        file.attrs["sample_rate"] = RATE
    names = {"zip": "zip of wav", "tar": "tar of flac", "h5": "HDF5, int16"}
    forms = {}
    for form, path in audio.items():
        data = forms[names.get(form, form)] = folder / "data" / form
        run("manifest", path, "--out", data)
    forms["feature cache"] = folder / "cache"
    run("cache", forms["wav"], "--out", forms["feature cache"])
    return forms


def run(*arguments: object) -> None:
    """Run `eat`, silently."""
    subprocess.run([*EAT, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True)


def open_form(data: Path) -> ClipDataset:
    """Make the data set of pre-training."""
    reader = SpectrogramReader(read_manifest(data / "train.tsv"), FRONT_END)
    return ClipDataset(reader, masks=MaskSpec((FRAMES // 16, 8)), num_masks=MASKS)


def check(datasets: dict[str, ClipDataset]) -> None:
    """Make sure that all forms give the same."""
    for form, dataset in datasets.items():
        if form == "mp3":
            continue
        for index in range(len(dataset)):
            got, expected = dataset[index], datasets["wav"][index]
            difference = float((got["source"] - expected["source"]).abs().max())
            allowed = 5e-4 if form == "feature cache" else 0
            if difference > allowed or not torch.equal(got["mask"], expected["mask"]):
                raise SystemExit(f"{form} differs from wav in clip {index}: by {difference}")


def measure(datasets: dict[str, ClipDataset], rounds: int) -> dict[str, float]:
    """Return the median seconds a clip of each form, taken in turn."""
    times: dict[str, list[float]] = {form: [] for form in datasets}
    for _ in range(rounds):
        for form, dataset in datasets.items():
            began = time.perf_counter()
            for index in range(len(dataset)):
                dataset[index]
            times[form].append((time.perf_counter() - began) / len(dataset))
    return {form: statistics.median(values) for form, values in times.items()}


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
