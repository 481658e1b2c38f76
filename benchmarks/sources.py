"""Reading speed per source: files, archives, HDF5, a feature cache.

    python -m benchmarks.sources

The same clips are written in every form. One process with one thread reads the forms in turn, as a
data worker does in pre-training: decode, resample, log-mel, 16 masks. Files are in the page cache,
so that disks do not count. All forms must give equal spectrograms, except mp3 (lossy) and the cache
(float16, within its rounding).
"""

from __future__ import annotations

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

from eat_plugin.data.frontend import FrontEnd
from eat_plugin.data.manifest import read_manifest
from eat_plugin.data.reader import SpectrogramReader
from eat_plugin.masking import MaskSpec
from eat_plugin.tasks.dataset import ClipDataset

from .launching import ROOT, make_parser, say

RATE, SECONDS, FRAMES, MASKS = 32_000, 10, 1024, 16
FRONT_END = FrontEnd(FRAMES, -4.268, 4.569)
EAT = [sys.executable, "-m", "eat_plugin"]


def main() -> int:
    """Write, check and measure all forms."""
    parser = make_parser(__doc__)
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
    say("| source | ms per clip | clips/s | relative to wav |\n|---|---|---|---|")
    for form, value in seconds.items():
        say(f"| {form} | {1000 * value:.2f} | {1 / value:.0f} | {wav / value:.2f} |")
    return 0


def write_forms(folder: Path, clips: int) -> dict[str, Path]:
    """Write the clips with a manifest in every form; return the folders of the manifests."""
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
    """Run `eat` without output."""
    subprocess.run([*EAT, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True)


def open_form(data: Path) -> ClipDataset:
    """Make a pre-training data set."""
    reader = SpectrogramReader(read_manifest(data / "train.tsv"), FRONT_END)
    return ClipDataset(reader, masks=MaskSpec((FRAMES // 16, 8)), num_masks=MASKS)


def check(datasets: dict[str, ClipDataset]) -> None:
    """Check that all forms give the same samples."""
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
    """Return the median seconds per clip of each form; the forms run in turn."""
    times: dict[str, list[float]] = {form: [] for form in datasets}
    for _ in range(rounds):
        for form, dataset in datasets.items():
            began = time.perf_counter()
            for index in range(len(dataset)):
                dataset[index]
            times[form].append((time.perf_counter() - began) / len(dataset))
    return {form: statistics.median(values) for form, values in times.items()}


if __name__ == "__main__":
    sys.exit(main())
