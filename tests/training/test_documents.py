"""The shell and Python blocks of README and docs, run in order on small sounds and models.

The command is `bash scripts/test.sh -m slow -k documents`.
"""

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from eat_plugin import cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# tests/test_extend.py carries out the one, the other has no commands.
DOCUMENTS = [path for path in DOCUMENTS if path.name not in {"extend.md", "architecture.md"}]
# Beginning of a command that is not run -> the reason.
SKIPPED = {
    "bash scripts/quickstart.sh": "installs; see CONTRIBUTING.md",
    "DATA=/my/sounds LAYOUT=folders bash scripts/quickstart.sh": "the same",
    "bash scripts/test.sh": "runs these tests",
    "pip install": "changes the environment",
    ". .venv/bin/activate": "the tests have an environment already",
    "eat bench": "takes minutes; see tests/benchmarks",
    "torchrun": "needs two machines; tests/training/test_processes.py has two processes",
    "srun": "needs Slurm",
    "sbatch": "needs Slurm",
    "eat manifest /my/audio --out /my/data --merge": "needs the parts of Slurm's jobs",
    "eat manifest s3://": "needs an object store; see test_remote.py",
    "SUBMITIT_PREEMPT_SIGNAL=USR1 fairseq-hydra-train -m": "needs Slurm and submitit",
}
# A part of a command or of a block in Python -> the package without which it is skipped.
NEEDS = {
    "hydra/sweeper=optuna": "hydra_plugins.hydra_optuna_sweeper",
    ".safetensors": "safetensors",
    "/my/folder": "transformers",
    ".onnx": "onnxscript",
    "import mteb": "mteb",
    "/my/sed/evaluation": "sed_scores_eval",
}
RUN = ("eat ", "cp ", "fairseq-hydra-train ", "fairseq-train ", "fairseq-validate ", "eval ")
# Added to training commands: a block takes seconds.
SMALL = [
    "common.cpu=true", "common.fp16=false", "common.bf16=false", "common.log_interval=1",
    "distributed_training.distributed_world_size=1", "dataset.num_workers=0",
    "dataset.batch_size=4", "optimization.max_update=2", "lr_scheduler.warmup_updates=1",
    "model.depth=2", "model.embed_dim=32", "model.num_heads=4", "model.average_top_k_layers=2",
]  # fmt: skip
SMALL_FLAGS = (
    "--cpu --num-workers 0 --batch-size 4 --max-update 2 --warmup-updates 1 --target-length 64 "
    "--depth 2 --embed-dim 32 --num-heads 4 --average-top-k-layers 2"
)
SMALL_PRETRAINING = ["model.clone_batch=2", "model.modalities.image.decoder.decoder_dim=32"]
FINETUNING = re.compile(r"^eat finetune |--config-name finetune")
SOUND, IMAGES = ["task.target_length=64"], ["task.images.size=[64,64]"]
KINDS = ("clock", "dog", "rain")  # the classes of `make_checkpoint`


def read_commands(block):
    """The commands of a shell block, one per line, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return list(filter(None, (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines)))


def needs_other_package(code):
    """Whether a package that the code needs is not installed."""
    return any(part in code and not is_installed(name) for part, name in NEEDS.items())


def is_installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False


def shorten(command):
    """A command as it is run; empty if it is skipped."""
    if command.startswith(tuple(SKIPPED)) or needs_other_package(command):
        return ""
    assert command.startswith(RUN), f"neither in RUN nor in SKIPPED: {command}"
    if command.startswith("fairseq-train "):
        command = command.replace("--fp16 --memory-efficient-fp16 ", "")
        small = "--clone-batch 2 --decoder-dim 32" if "pretraining" in command else ""
        return f"{command} {SMALL_FLAGS} {small}"
    if not re.match(r"eat (pretrain|finetune|doctor --data) |fairseq-hydra-train ", command):
        return command
    small = [*SMALL, *(IMAGES if "/my/images" in command else SOUND)]
    small += [] if FINETUNING.search(command) else SMALL_PRETRAINING
    return " ".join([command, *small])


def write_noise(path, rng, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, rng.normal(0, 0.1, int(rate * rng.uniform(0.7, 1.5))), rate)


def write_shard(path, source):
    """Clips and their labels as WebDataset stores them."""
    with tarfile.open(path, "w") as shard:
        for number, kind in enumerate(KINDS * 4):
            shard.add(source, f"{number}.wav")
            label = f'{{"label": "{kind}"}}'.encode()
            info = tarfile.TarInfo(f"{number}.json")
            info.size = len(label)
            shard.addfile(info, io.BytesIO(label))


def write_tables(my):
    """A table of tags, and ESC-50 with two folds and three classes."""
    lines = ["file,tags"]
    (my / "ESC-50-master" / "meta").mkdir(parents=True)
    esc = ["filename,fold,target,category"]
    rng = np.random.default_rng(1)
    for number, kind in enumerate(KINDS * 4):
        write_noise(my / "tagged" / f"{number}.wav", rng)
        lines.append(f"{number}.wav,{kind};{KINDS[number // 4]}")
        write_noise(my / "ESC-50-master" / "audio" / f"{number}.wav", rng)
        esc.append(f"{number}.wav,{1 + number % 2},{number % 3},{kind}")
    (my / "tagged" / "tags.csv").write_text("\n".join(lines) + "\n")
    (my / "ESC-50-master" / "meta" / "esc50.csv").write_text("\n".join(esc) + "\n")


def write_scenes(my):
    """Clips with strong labels."""
    rng = np.random.default_rng(2)
    for split in ("train", "eval"):
        lines = ["filename\tonset\toffset\tevent_label"]
        for number, kind in enumerate(KINDS * 2):
            write_noise(my / "scenes" / split / f"{split}{number}.wav", rng)
            lines.append(f"{split}{number}.wav\t0.1\t0.4\t{kind}")
        (my / "scenes" / f"{split}_strong.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    """A working folder with the files that documents name; `/my` is its folder `my`."""
    pillow = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    my = tmp_path / "my"
    for number in range(18):
        kind = KINDS[number % 3]
        write_noise(my / "audio" / f"{number}.wav", rng, rate=22_050)
        write_noise(my / "sounds" / kind / f"{number}.wav", rng)
        (my / "images" / kind).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
        pillow.fromarray(pixels).save(my / "images" / kind / f"{number}.png")
    for name in ("dog.wav", "rain.flac", "an_hour.wav", "scene.wav"):
        write_noise(tmp_path / name, rng)
    assert cli.main(["manifest", str(my / "audio"), "--out", str(my / "data")]) == 0
    (my / "shards").mkdir()
    write_shard(my / "shards" / "0.tar", tmp_path / "dog.wav")
    write_tables(my)
    write_scenes(my)
    return tmp_path


def give_checkpoints(folder, text, make_checkpoint):
    """Make the models that a document uses and does not train itself."""
    classifier = make_checkpoint("classification")
    shutil.copy(classifier, folder / "checkpoint_best.pt")
    for run, source, name in (
        ("run", make_checkpoint("pretraining"), "checkpoint_last.pt"),
        ("finetuned", classifier, "checkpoint_best.pt"),
        ("other", classifier, "checkpoint_best.pt"),
    ):
        if not re.search(rf"(--out |hydra\.run\.dir=|--save-dir )/my/{run}\b", text):
            path = folder / "my" / run / "checkpoints" / name
            path.parent.mkdir(parents=True)
            shutil.copy(source, path)


def give_labels(folder, text):
    """List labelled sounds for a document that does not."""
    my = folder / "my"
    table = ["--csv", my / "tagged" / "tags.csv", "--path-column", "file", "--label-column", "tags"]
    for name, command in (
        ("labelled", [my / "sounds", "--layout", "folders"]),
        ("multilabel", [my / "tagged", "--layout", "csv", *table, "--label-separator", ";"]),
    ):
        if f"/my/{name}" in text and f"--out /my/{name}" not in text:
            command = ["manifest", *command, "--valid", "0.1", "--out", my / name]
            assert cli.main([str(part) for part in command]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents__their_code_runs(path, folder, make_checkpoint):
    text = path.read_text(encoding="utf-8")
    give_checkpoints(folder, text, make_checkpoint)
    give_labels(folder, text)
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    python = ""  # of all blocks so far: later ones use names of earlier ones
    for language, block in BLOCK.findall(text):
        if language == "python":
            if needs_other_package(block):
                continue
            python += block
            program, code = [sys.executable, "-c"], python
        else:
            program = ["bash", "-euo", "pipefail", "-c"]
            code = "\n".join(filter(None, map(shorten, read_commands(block))))
        result = subprocess.run(
            [*program, code.replace("/my/", f"{folder}/my/")], cwd=folder, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{block}\n{result.stdout[-1500:]}\n{result.stderr[-3000:]}"
