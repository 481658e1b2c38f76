"""Who may import whom, and what importing the package registers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "eat_plugin"
WITHOUT_FAIRSEQ = {
    "masking", "losses", "metrics", "outputs", "modules", "data.manifest", "data.sources",
    "data.features", "data.synthesis", "data.windows", "data.augment", "data.labels",
    "data.label_set", "data.tables", "data.splits", "data.layouts", "data.metadata",
    "data.discovery", "data.readers", "data.image_files", "data.images", "data.clip",
    "data.archives", "data.hdf5", "data.members", "data.shards", "data.lengths",
    "data.quality", "data.statistics", "data.wav", "data.cache",
    "data.cache_folder", "data.cache_shards", "data.transport", "data.memory",
    "data.resampling",
}  # fmt: skip
# Part -> the parts that it may import.
MAY_IMPORT = {
    "masking": set(), "losses": set(), "metrics": set(), "outputs": set(), "modules": set(),
    "optim": {"modules"},
    "data": {"masking"},
    "models": {"modules", "masking", "losses", "outputs"},
    "criterions": {"outputs"},
    "tasks": {"data", "metrics", "masking"},
    "inference": {"data", "models"},
    "bench": {"data", "models", "masking", "optim"},
    "cli": {"data", "models", "masking", "metrics", "modules", "outputs", "inference", "bench"},
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


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path) or "eat_plugin")
def test_imports__follow_the_rules(path):
    name = module_name(path)
    part = name.split(".")[0]
    names = set(imports_of(path))
    assert not any(name.split(".")[0] == "torchaudio" for name in names)
    if any(name == leaf or name.startswith(f"{leaf}.") for leaf in WITHOUT_FAIRSEQ):
        assert not any(name.split(".")[0] == "fairseq" for name in names)
    if part in MAY_IMPORT:
        parts = {name.split(".")[1] for name in names if name.startswith("eat_plugin.")}
        assert parts <= MAY_IMPORT[part] | {part}


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
    assert "fairseq has a model 'data2vec_multi' from __main__ already" in result.stderr
