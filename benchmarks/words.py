"""Do words need labels? Twenty words in many synthetic voices, one of them held out.

espeak-ng (Debian: apt-get install espeak-ng) speaks each word several times in each voice, at
random speed and pitch. The clips have a rate of 8 kHz, with random pauses, noise and level. A tiny
model is pre-trained on the other voices with the packaged recipe, and compared with random weights
and simple statistics as in benchmarks.esc10; with all labels, and with a tenth of them.

    python -m benchmarks.words --out runs/words

An interrupted run resumes. Results: OUT/table.md and OUT/results.json.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from eat_plugin.data.resampling import resample

from .launching import BIN, ROOT, compare, format_means, make_parser, run, say, write_results

WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go",
]  # fmt: skip
VOICES = [
    "en-us", "en-us+f2", "en-gb+m3", "en-gb+f4", "en-gb-scotland+m1", "en-029+f1",
    "en-gb-x-rp+m7", "en-us+klatt4", "en-us+Alicia", "en-gb+Andy", "en-us-nyc+m5",
    "en-gb-x-gbclan+f5", "en-us+belinda", "en-gb+Michael",
]  # fmt: skip
TAKES = 9  # of each word in each voice
RATE = 8000
SHARES = {"all labels": 1, "a tenth": 10}  # every n-th clip has a label


def main() -> int:
    """Run the missing trainings, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "words", metavar="DIR")
    parser.add_argument("--voices", type=int, nargs="+", default=[4], metavar="N", help="held out")
    parser.add_argument("--pretraining", type=int, default=1000, metavar="UPDATES")
    parser.add_argument("--finetuning", type=int, default=500, metavar="UPDATES")
    args = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        raise SystemExit("espeak-ng is not installed; on Debian: apt-get install espeak-ng")
    out = args.out.resolve()
    began = time.monotonic()
    results: dict[str, dict[str, dict[str, float]]] = {share: {} for share in SHARES}
    speak_all(out / "audio")
    for voice in args.voices:
        for share, every in SHARES.items():
            folder = out / f"voice{voice}" / share.replace(" ", "_")
            data = prepare(out / "audio", voice, every, folder)
            if every > 1:  # the same pre-training
                folder.mkdir(parents=True, exist_ok=True)
                link = folder / "pretraining"
                link.exists() or link.symlink_to(out / f"voice{voice}" / "all_labels/pretraining")
            found = compare(data, folder, (args.pretraining, args.finetuning), [])
            results[share][VOICES[voice]] = found
            scores = ", ".join(f"{name} {value:.1%}" for name, value in found.items())
            say(f"{VOICES[voice]}, {share}: {scores}")
    write_results(out, format_means(results, "labels, mean over voices"), results, began)
    return 0


def speak_all(audio: Path) -> None:
    """Write the clips that are missing: audio/WORD/VOICE_TAKE.wav."""
    for voice, name in enumerate(VOICES):
        for index, word in enumerate(WORDS):
            for take in range(TAKES):
                path = audio / word / f"{voice:02d}_{take}.wav"
                if not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    samples = speak(name, word, np.random.default_rng([voice, index, take]))
                    soundfile.write(path, samples, RATE)


def speak(voice: str, word: str, rng: np.random.Generator) -> np.ndarray:
    """Speak a word: float32 [n] at 8 kHz, with pauses, noise of 8 to 35 dB below, random level."""
    speed, pitch = rng.integers(130, 230), rng.integers(25, 75)
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    spoken = subprocess.run(command, capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(spoken), dtype="float32")
    heard = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    wide = resample(torch.from_numpy(samples[heard[0] : heard[-1] + 1]), rate)  # 16 kHz
    spectrum = np.fft.rfft(wide.numpy())  # halve the rate: keep the lower half of the spectrum
    narrow = np.fft.irfft(spectrum[: len(spectrum) // 2 + 1]) / 2
    pauses = [np.zeros(int(RATE * length)) for length in rng.uniform(0.02, 0.25, size=2)]
    clip = np.concatenate([pauses[0], narrow, pauses[1]])
    noise = rng.standard_normal(len(clip)) * narrow.std() * 10 ** (-rng.uniform(8, 35) / 20)
    clip = clip + noise
    return (clip * (rng.uniform(0.1, 0.9) / np.abs(clip).max())).astype(np.float32)


def prepare(audio: Path, held_out: int, every: int, folder: Path) -> Path:
    """List the clips with a voice held out; every n-th of the others has a label.

    Returns:
        The data folder.
    """
    data, table = folder / "data", folder / "clips.csv"
    if (data / "eval.lbl").is_file():
        return data
    folder.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "label", "split"])
        kept = 0
        for path in sorted(audio.glob("*/*.wav")):
            voice = int(path.stem.split("_")[0])
            kept += voice != held_out
            if voice == held_out or kept % every == 0:
                split = "eval" if voice == held_out else "train"
                rows.writerow([f"{path.parent.name}/{path.name}", path.parent.name, split])
    command = [BIN / "eat", "manifest", audio, "--layout", "csv", "--csv", table]
    run([*command, "--split-column", "split", "--out", data], folder / "manifest.log")
    return data


if __name__ == "__main__":
    sys.exit(main())
