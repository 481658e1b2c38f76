"""Who may import whom, and what importing the package registers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "eat_plugin"
# What may import fairseq, and so be imported by nothing else: all others do without.
WITH_FAIRSEQ = {
    "", "__main__", "models", "criterions", "tasks", "optim", "inference", "cli",
    "data.dataset", "data.labelled",
}  # fmt: skip
LEAVES = {path.stem for path in PACKAGE.glob("[!_]*.py")} - WITH_FAIRSEQ
METRICS = LEAVES - {"masking", "losses", "outputs", "options"}
# Part -> the parts that it may import.
MAY_IMPORT = {
    "": {"models", "criterions", "tasks", "optim"}, "__main__": {"cli"},
    "masking": set(), "losses": set(), "outputs": set(), "options": set(), "modules": set(),
    **dict.fromkeys(METRICS, METRICS),
    "optim": {"modules", "options"},
    "data": {"masking"},
    "models": {"modules", "masking", "losses", "outputs", "options"},
    "criterions": {"outputs"},
    "tasks": {"data", "masking", "options", *METRICS},
    "inference": {"data", "models"},
    "cli": {"data", "models", "masking", "modules", "outputs", "inference", *METRICS},
}  # fmt: skip


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Absolute names of all modules that a file imports."""
    package = ["eat_plugin", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def may_import_fairseq(name):
    parts = name.split(".")
    return any(".".join(parts[:number]) in WITH_FAIRSEQ for number in range(1, len(parts) + 1))


@pytest.mark.parametrize("name", FILES)
def test_imports__follow_the_rules(name):
    imported = set(imports_of(FILES[name]))
    packages = {other.split(".")[0] for other in imported}
    assert "torchaudio" not in packages
    own = {other.partition(".")[2] for other in imported if other.startswith("eat_plugin.")}
    part = name.split(".")[0]
    assert {other.split(".")[0] for other in own} <= MAY_IMPORT[part] | {part}
    if not may_import_fairseq(name):
        assert "fairseq" not in packages
        assert not {other for other in own & FILES.keys() if may_import_fairseq(other)}


def test_imports__every_rule_has_its_module():
    assert {name.split(".")[0] for name in FILES} == MAY_IMPORT.keys()
    assert FILES.keys() >= WITH_FAIRSEQ


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


def test_import__refuses_a_name_that_is_taken():
    result = run_python(
        "from fairseq.models import BaseFairseqModel, register_model\n"
        "@register_model('data2vec_multi')\n"
        "class Other(BaseFairseqModel): pass\n"
        "import eat_plugin\n"
    )
    # The second message is that of fairseq 0.12.2, which looks itself.
    known = r"fairseq has a model 'data2vec_multi' from __main__ already|duplicate model .*2vec_mul"
    assert re.search(known, result.stderr)
