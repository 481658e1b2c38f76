"""Use of models where nothing but PyTorch, NumPy and soundfile is installed."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
OTHERS = (
    "fairseq", "fairseq_cli", "hydra", "omegaconf", "antlr4", "tqdm", "argcomplete", "matplotlib",
    "PIL", "sklearn", "h5py", "torchaudio", "yaml",
)  # fmt: skip
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({OTHERS}))\n"
# fairseq builds its registered model from the checkpoint; ours gives it the same input.
WITH_FAIRSEQ = """
import dataclasses
import fairseq
import omegaconf
from eat_plugin.inference import loading
own = loading.load_state
def load_state(path, state, device, labels=None):
    loaded = own(path, state, device, labels)
    content = {name: state[name] for name in ("model", "task_state")}
    content["cfg"] = omegaconf.OmegaConf.create(state["cfg"])
    load = fairseq.checkpoint_utils.load_model_ensemble_and_task
    (model,), cfg, task = load([str(path)], state=content)
    assert isinstance(model, fairseq.models.BaseFairseqModel)
    assert task.front_end == loaded.front_end
    encoder = model.eval() if loaded.labels is None else model.eval().model
    return dataclasses.replace(loaded, model=model, encoder=encoder)
loading.load_state = load_state
"""
USE = """
import sys
import numpy as np
from eat_plugin import load
from eat_plugin.cli import main
pretrained, classifier, sounds, data = sys.argv[1:]
clip = np.random.default_rng(0).uniform(-0.1, 0.1, 30_000)
model = load(pretrained)
features = model.features([f"{sounds}/a.wav", (clip, 44_100), f"{sounds}/c.wav"], "frame", "all")
scores = load(classifier).predict([f"{sounds}/a.wav", (clip, 44_100)])
np.savez("python.npz", scores, *features)
for arguments in (
    ["features", "--checkpoint", pretrained, sounds, "--out", "features.npz"],
    ["predict", "--checkpoint", classifier, sounds, "--json", "--window", "1"],
    ["evaluate", "--checkpoint", classifier, "--data", data, "--json"],
):
    assert main(arguments) == 0, arguments
"""
EXPORT = """
for name, checkpoint in (("pretrained", pretrained), ("classifier", classifier)):
    assert main(["export", "--checkpoint", checkpoint, "--out", f"{name}.pt"]) == 0
loaded = sorted({name.partition(".")[0] for name, found in sys.modules.items() if found})
sys.stderr.write(f"modules {' '.join(loaded)}")
"""


@pytest.fixture
def checkpoints(make_checkpoint):
    return make_checkpoint("pretraining"), make_checkpoint("classification")


def use(python, code, arguments, out, **environment):
    """Run a program in a new folder; return its output, and the modules that it has imported."""
    out.mkdir()
    done = subprocess.run(
        [str(python), "-c", code, *map(str, arguments)],
        capture_output=True, text=True, cwd=out, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.rpartition("modules ")[2].split())


def assert_same_arrays(first, second):
    with np.load(first) as before, np.load(second) as after:
        assert before.files == after.files
        for name in before.files:
            np.testing.assert_array_equal(before[name], after[name], strict=True)


def assert_same_results(found, expected):
    for name in ("python.npz", "features.npz"):
        assert_same_arrays(found / name, expected / name)


def test_use__is_bit_equal_without_fairseq(checkpoints, sounds, labelled, tmp_path):
    arguments = (*checkpoints, sounds, labelled)
    bare, full = tmp_path / "bare", tmp_path / "full"
    shown, modules = use(sys.executable, BLOCK + USE + EXPORT, arguments, bare)
    assert not modules & set(OTHERS)
    expected, _ = use(sys.executable, WITH_FAIRSEQ + USE, arguments, full)
    assert shown.startswith(expected)
    _, prediction, *_ = expected.splitlines()
    assert json.loads(prediction)["windows"][0]["predictions"]
    assert_same_results(bare, full)


def test_export__without_fairseq_is_what_fairseq_loads(checkpoints, sounds, labelled, tmp_path):
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    from eat_plugin import load

    use(sys.executable, BLOCK + USE + EXPORT, (*checkpoints, sounds, labelled), tmp_path / "bare")
    source = torch.randn(2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    for name, checkpoint in zip(("pretrained", "classifier"), checkpoints):
        (model,), _, _ = load_model_ensemble_and_task([str(tmp_path / "bare" / f"{name}.pt")])
        encoder = model.eval() if name == "pretrained" else model.eval().model
        with torch.no_grad():
            found = encoder.block_outputs(source)[-1]
        assert torch.equal(found, load(checkpoint).features(source, "all"))


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["pretrain", "--data", "DATA"], "fairseq"),
        (["finetune", "--data", "DATA", "--checkpoint", "none"], "fairseq"),
        (["flags", "eat_base"], "fairseq"),
    ],
)
def test_training__says_what_to_install(arguments, package, tmp_path):
    (tmp_path / "train.tsv").write_text("/nowhere\na.wav\t100\n")
    arguments = [str(tmp_path) if text == "DATA" else text for text in arguments]
    arguments += ["--out", str(tmp_path / "run")] if len(arguments) > 2 else []
    code = f"{BLOCK}from eat_plugin.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"eat {arguments[0]}: error: needs the package {package}, which is not installed: "
        "pip install 'eat-plugin[train]'\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_install__has_what_use_needs(checkpoints, sounds, labelled, tmp_path):
    """The wheel in a new environment; downloads PyTorch."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pins = ROOT / "requirements" / ("pins.txt" if sys.version_info >= (3, 11) else "pins-py39.txt")
    install = [python, "-m", "pip", "install", "-c", pins, ROOT]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "No matching distribution found for torch" in done.stderr:
        pytest.skip("no registry of packages")
    assert done.returncode == 0, done.stderr
    arguments = (*checkpoints, sounds, labelled)
    _, modules = use(python, USE + EXPORT, arguments, tmp_path / "bare", PYTHONPATH="")
    assert not modules & set(OTHERS)
    use(sys.executable, USE, arguments, tmp_path / "full")
    assert_same_results(tmp_path / "bare", tmp_path / "full")
