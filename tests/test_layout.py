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
# Rooms and modules that may import fairseq; no other may import them.
WITH_FAIRSEQ = {
    "", "__main__", "registration", "models", "criterions", "tasks", "optim", "inference",
    "launch", "cli", "flags", "doctor.configuration", "doctor.cost", "doctor.timing",
}  # fmt: skip
METRICS = {"metrics", "ranking"}
# Room -> the rooms that it may import.
MAY_IMPORT = {
    "": {"registration"}, "registration": {"models", "criterions", "tasks", "optim"},
    "__main__": {"cli"}, "choices": set(), "options": set(), "checkpoint_files": set(),
    "flags": {"options"}, "masking": set(), "losses": set(), "outputs": set(),
    "modules": {"options"},
    **dict.fromkeys(METRICS, METRICS),
    "optim": {"modules", "options"},
    "data": set(),
    "images": {"data"},
    "prepare": {"data", "images"},
    "models": {
        "checkpoint_files", "choices", "flags", "modules", "masking", "losses", "outputs",
        "options",
    },
    "criterions": {"outputs"},
    "tasks": {"checkpoint_files", "data", "flags", "images", "masking", "options", *METRICS},
    "inference": {"choices", "data", "images", "models", "options", *METRICS},
    "launch": {"choices", "prepare"},
    "doctor": {"data", "models", "modules", "prepare"},
    "cli": {
        "checkpoint_files", "choices", "data", "flags", "images", "prepare", "masking", "models",
        "doctor", "inference", "launch", "options", *METRICS,
    },
}  # fmt: skip
# Imported inside functions, where a run has such clips.
ON_DEMAND = {
    "data.hdf5", "data.feature_cache", "data.packed", "images.decode", "images.image_reader",
}  # fmt: skip
RUN = {"tasks.pretraining", "models.eat", "criterions.pretraining", "optim.adamw"}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
# The rooms themselves: some import what they register, which a single run does not use.
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}


def statements(tree, everywhere):
    """The import statements of a file; those of the module level alone unless ``everywhere``."""
    if everywhere:
        yield from ast.walk(tree)
        return
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        yield from () if is_for_types else [node]


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


def may_import_fairseq(name):
    parts = name.split(".")
    return any(".".join(parts[:number]) in WITH_FAIRSEQ for number in range(1, len(parts) + 1))


@pytest.mark.parametrize("name", FILES)
def test_imports__follow_the_rules(name):
    imported = set(imports_of(name))
    packages = {other.split(".")[0] for other in imported}
    assert "torchaudio" not in packages
    room = name.split(".")[0]
    assert {other.split(".")[0] for other in own(imported)} <= MAY_IMPORT[room] | {room}
    if not may_import_fairseq(name):
        assert "fairseq" not in packages
        assert not {other for other in own(imported) & FILES.keys() if may_import_fairseq(other)}


def test_imports__every_rule_has_its_room():
    assert {name.split(".")[0] for name in FILES} == MAY_IMPORT.keys()
    assert FILES.keys() >= WITH_FAIRSEQ


def test_imports__a_pre_training_run_needs_few_rooms():
    seen, waiting = set(), set(RUN)
    while waiting:
        seen |= waiting
        found = {other for name in waiting for other in own(imports_of(name, everywhere=False))}
        waiting = (found & FILES.keys()) - seen - PACKAGES
    assert not seen & ON_DEMAND
    assert {name.split(".")[0] for name in seen} <= {
        "tasks", "data", "images", "models", "modules", "masking", "losses", "outputs", "options",
        "criterions", "optim", "flags", "checkpoint_files",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
def test_files__have_at_most_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_import__registers_every_name():
    result = run_python(
        "import argparse; from fairseq import utils\n"
        f"utils.import_user_module(argparse.Namespace(user_dir={str(PACKAGE)!r}))\n"
        "from fairseq.tasks import TASK_REGISTRY as t\n"
        "from fairseq.models import MODEL_REGISTRY as m\n"
        "from fairseq.criterions import CRITERION_REGISTRY as c\n"
        "from fairseq.optim import OPTIMIZER_REGISTRY as o\n"
        "assert {'eat_pretraining', 'mae_image_pretraining'} <= set(t)\n"
        "assert {'eat', 'data2vec_multi'} <= set(m)\n"
        "assert 'eat_pretraining' in c and 'eat_adamw' in o\n"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "order",
    [
        "fairseq, eat_plugin",
        "eat_plugin, fairseq",
        "eat_plugin.tasks.dataset",
        "eat_plugin.models.eat",
        "eat_plugin.optim",
        "eat_plugin.inference",
    ],
)
def test_import__registers_in_any_order(order):
    result = run_python(
        f"import {order}\n"
        "from fairseq.tasks import TASK_REGISTRY\n"
        "TASK_REGISTRY['eat_pretraining']\n"
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_command__help_and_mistakes_need_neither_pytorch_nor_fairseq(name):
    result = run_python(
        "import sys; from eat_plugin.cli import main\n"
        f"try: main([{name!r}, '--help'])\n"
        "except SystemExit: pass\n"
        f"assert main([{name!r}, '--no-such-option', *'abcdefgh']) == 2\n"
        "assert not {'torch', 'fairseq', 'hydra', 'matplotlib', 'scipy'} & sys.modules.keys()\n"
    )
    assert result.returncode == 0, result.stderr


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
