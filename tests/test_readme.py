"""The README tells the truth: its commands parse and compose, its files and names exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from eat_plugin.cli import _build_parser
from tests.composing import compose

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    """Each command of the README's shell blocks, as a list of words."""
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def find(program):
    return [words for words in commands() if any(program in word for word in words)]


def test_commands__are_all_of_a_known_kind():
    programs = {words[0] for words in commands()}
    assert programs == {".", "bash", "eat", "fairseq-hydra-train", "torchrun", "srun"}


@pytest.mark.parametrize("words", find("fairseq-hydra-train"), ids=" ".join)
def test_training_command__composes(words):
    start = next(i for i, word in enumerate(words) if "fairseq-hydra-train" in word)
    arguments = words[start + 1 :]
    assert arguments.pop(arguments.index("--config-dir") + 1) == "config"
    name = arguments.pop(arguments.index("--config-name") + 1)
    overrides = [
        word for word in arguments
        # The launcher is a plugin that need not be installed.
        if not word.startswith("-") and "launcher" not in word
    ]
    cfg = compose(name, overrides)
    assert cfg.task.data == ("/my/data" if name == "pretrain" else "/my/labelled")


@pytest.mark.parametrize(
    "overrides", re.findall(r"^\| `([a-z+][^`|]*=[^`|]*)` \|", README, flags=re.MULTILINE)
)
def test_setting__composes(overrides):
    compose("pretrain", overrides.split())


@pytest.mark.parametrize("words", [w for w in commands() if w[0] == "eat"], ids=" ".join)
def test_eat_command__parses(words):
    _build_parser(words[1:]).parse_args(words[1:])


def test_scripts__exist():
    scripts = [words[1] for words in commands() if words[0] == "bash"]
    assert scripts == ["scripts/quickstart.sh", "scripts/test.sh"]
    assert all((ROOT / script).is_file() for script in scripts)


def test_python__is_valid():
    for block in blocks("python"):
        ast.parse(block)


def test_tree__names_what_is_there():
    tree = README.split("## What is where")[1].split("```")[1]
    for line in tree.splitlines():
        if line.startswith("  ") and line[2] != " ":
            assert (ROOT / "eat_plugin" / line.split()[0]).exists(), line
        elif line and line[0] != " ":
            assert (ROOT / line.split()[0]).exists(), line


def test_files__that_are_mentioned_exist():
    for name in set(re.findall(r"`((?:config|tests|docs|scripts|data|models)/[\w./]+)`", README)):
        assert (ROOT / name).exists() or (ROOT / "eat_plugin" / name).exists(), name
