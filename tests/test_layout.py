"""Who may import whom, what a pre-training run imports, what importing the package registers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eat_plugin.cli import SUBCOMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "eat_plugin"
# The rooms of training. They alone import fairseq, hydra and omegaconf. The others are the core,
# which imports them inside functions at most.
TRAINING = {"registration", "registered", "criterions", "tasks", "optim", "launch", "flags"}
TRAINING_PACKAGES = {"fairseq", "fairseq_cli", "hydra", "omegaconf"}
CORE_PACKAGES = {"eat_plugin", "numpy", "soundfile", "torch"}
# Imported on demand, or by transformers, with another package.
OPTIONAL = {
    "modules.triton_convolution": {"triton"},
    **{
        f"huggingface.{name}": {"transformers"}
        for name in ("configuration_eat", "feature_extraction_eat", "modeling_eat")
    },
}
METRICS = {"metrics", "ranking"}
# Room -> the rooms that it may import.
MAY_IMPORT = {
    "": {"registration", "inference"},
    "registration": {"registered", "criterions", "tasks", "optim"},
    "registered": {"choices", "flags", "models", "options"},
    "__main__": {"cli"}, "choices": set(), "options": set(),
    "checkpoint_files": {"bat_files", "safetensors_files"}, "safetensors_files": {"bat_files"},
    "bat_files": set(), "processor": set(), "heap": set(),
    "configs": {"choices"}, "records": set(), "sections": {"options"},
    "flags": {"options"}, "masking": set(), "losses": set(), "outputs": set(),
    "modules": {"options", "processor"},
    **dict.fromkeys(METRICS, METRICS),
    "optim": {"modules", "options"},
    "data": set(),
    "images": {"data"},
    "prepare": {"data", "images"},
    "inputs": {"data", "images", "options", "sections"},
    "models": {
        "checkpoint_files", "modules", "masking", "losses", "outputs", "options", "sections",
    },
    "criterions": {"outputs"},
    "tasks": {
        "checkpoint_files", "choices", "data", "flags", "heap", "images", "inputs", "masking",
        "monitoring", "options", "processor", "reproduction", *METRICS,
    },
    "inference": {
        "choices", "data", "images", "inputs", "models", "options", "reproduction", "sections",
        *METRICS,
    },
    "huggingface": {
        "data", "inference", "inputs", "models", "modules", "options", "safetensors_files",
        "sections",
    },
    "harness": {"data", "inference"},
    "reproduction": {"data"},
    "monitoring": {"inference", "models", "modules", *METRICS},
    "launch": {"choices", "configs", "prepare", "processor", "records"},
    "doctor": {"data", "models", "modules", "options", "prepare", "processor"},
    "report": {
        "checkpoint_files", "data", "inference", "masking", "models", "modules", "monitoring",
        "options", "records", "reproduction", *METRICS,
    },
    "cli": {
        "checkpoint_files", "choices", "configs", "data", "doctor", "heap", "images", "prepare",
        "masking", "huggingface", "models", "inference", "launch", "records", "registered",
        "report", "reproduction", "options", "safetensors_files", *METRICS,
    },
}  # fmt: skip
# Imported inside functions, where a run has such clips.
ON_DEMAND = {
    "data.hdf5", "data.feature_cache", "data.packed", "data.parquet", "images.decode",
    "images.image_reader",
}  # fmt: skip
RUN = {"tasks.pretraining", "registered.models", "criterions.pretraining", "optim.adamw"}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
# The rooms themselves: some import what they register, which a single run does not use.
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}


def statements(tree, everywhere):
    """The statements of a file; unless ``everywhere``, those that run when it is imported."""
    if everywhere:
        yield from ast.walk(tree)
        return
    for node in ast.iter_child_nodes(tree):
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not is_for_types and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from statements(node, everywhere)


def imports_of(name, everywhere=True):
    """Absolute names of all modules that a module imports, and of all names in them."""
    path = FILES[name]
    package = ["eat_plugin", *path.relative_to(PACKAGE).parts[:-1]]
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own(names):
    """Those of the package, by their names in it."""
    return {name.partition(".")[2] for name in names if name.startswith("eat_plugin.")}


def room_of(name):
    return name.split(".")[0]


@pytest.mark.parametrize("name", FILES)
def test_imports__follow_the_rules(name):
    imported = set(imports_of(name))
    packages = {other.split(".")[0] for other in imported}
    assert "torchaudio" not in packages
    room = room_of(name)
    rooms = {room_of(other) for other in own(imported)} - {"load"}
    assert rooms <= MAY_IMPORT[room] | {room}


@pytest.mark.skipif(sys.version_info < (3, 10), reason="does not list the standard library")
@pytest.mark.parametrize("name", [name for name in FILES if room_of(name) not in TRAINING])
def test_imports__the_core_needs_pytorch_numpy_and_soundfile(name):
    assert not {other.split(".")[0] for other in imports_of(name)} & TRAINING_PACKAGES
    imported = set(imports_of(name, everywhere=False))
    packages = {other.split(".")[0] for other in imported}
    allowed = CORE_PACKAGES | OPTIONAL.get(name, set()) | sys.stdlib_module_names
    assert packages <= allowed
    assert not {room_of(other) for other in own(imported)} & TRAINING
    assert name in OPTIONAL or not own(imported) & OPTIONAL.keys()


def test_imports__every_rule_has_its_room():
    assert {room_of(name) for name in FILES} == MAY_IMPORT.keys()
    imported = {room_of(name): set() for name in FILES}
    for name in FILES:
        imported[room_of(name)] |= {other.split(".")[0] for other in imports_of(name)}
    assert {room for room, found in imported.items() if found & TRAINING_PACKAGES} == TRAINING


def test_imports__a_pre_training_run_needs_few_rooms():
    seen, waiting = set(), set(RUN)
    while waiting:
        seen |= waiting
        found = {other for name in waiting for other in own(imports_of(name, everywhere=False))}
        waiting = (found & FILES.keys()) - seen - PACKAGES
    assert not seen & ON_DEMAND
    assert {name.split(".")[0] for name in seen} <= {
        "tasks", "data", "images", "models", "modules", "masking", "losses", "outputs", "options",
        "criterions", "optim", "flags", "checkpoint_files", "choices", "inputs", "registered",
        "bat_files", "safetensors_files", "sections", "monitoring", "processor", "reproduction",
        "heap",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
def test_files__have_at_most_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def run_each(programs, imported):
    """Run each program in a fork of a process that has imported some modules."""
    result = run_python(
        f"import os, sys, {imported}\n"
        f"for program in {programs!r}:\n"
        "    if not os.fork():\n"
        "        exec(program)\n"
        "        sys.exit()\n"
        "    if os.wait()[1]:\n"
        "        sys.exit(program)\n"
    )
    assert result.returncode == 0, result.stderr


def test_import__registers_every_name_in_any_order():
    orders = [
        "import eat_plugin, fairseq\n",
        "import eat_plugin.tasks.dataset\n",
        "import eat_plugin.models.eat\n",
        "import eat_plugin.optim\n",
        "import eat_plugin.inference\n",
        "import argparse; from fairseq import utils\n"
        f"utils.import_user_module(argparse.Namespace(user_dir={str(PACKAGE)!r}))\n",
    ]
    check = (
        "from fairseq.tasks import TASK_REGISTRY as t\n"
        "from fairseq.models import MODEL_REGISTRY as m\n"
        "from fairseq.criterions import CRITERION_REGISTRY as c\n"
        "from fairseq.optim import OPTIMIZER_REGISTRY as o\n"
        "assert {'eat_pretraining', 'mae_image_pretraining'} <= set(t)\n"
        "assert {'eat', 'data2vec_multi'} <= set(m)\n"
        "assert 'eat_pretraining' in c and 'eat_adamw' in o\n"
    )
    run_each([order + check for order in orders], imported="torch")


def test_commands__help_and_mistakes_need_neither_pytorch_nor_fairseq():
    programs = [
        "from eat_plugin.cli import main\n"
        f"try: main([{name!r}, '--help'])\n"
        "except SystemExit: pass\n"
        f"assert main([{name!r}, '--no-such-option', *'abcdefgh']) == 2\n"
        "assert not {'torch', 'fairseq', 'hydra', 'matplotlib', 'scipy'} & sys.modules.keys()\n"
        for name in SUBCOMMANDS
    ]
    run_each(programs, imported="numpy, soundfile")


def test_import__refuses_a_name_that_is_taken():
    result = run_python(
        "from fairseq.models import BaseFairseqModel, register_model\n"
        "@register_model('data2vec_multi')\n"
        "class Other(BaseFairseqModel): pass\n"
        "import eat_plugin\n"
    )
    # The second message is fairseq 0.12.2's own.
    known = r"fairseq has a model 'data2vec_multi' from __main__ already|duplicate model .*2vec_mul"
    assert re.search(known, result.stderr)
