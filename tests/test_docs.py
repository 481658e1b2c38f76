"""README and docs: commands parse and compose, options, files, links and anchors exist."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim.composite import CompositeOptimizerConfig
from omegaconf import OmegaConf

import eat_plugin  # noqa: F401, registers the dataclasses of the options
from eat_plugin import cli
from eat_plugin.choices import CONFIG_DIR
from eat_plugin.launch.composing import compose

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "eat_plugin"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Their code may be fragments and their options examples: only files and links are checked.
FRAGMENTS = {"architecture.md", "extend.md"}
GUIDES = [path for path in DOCUMENTS if path.name not in FRAGMENTS]
CONFIGS = ("pretrain", "sslam", "bat", "finetune", "image_pretrain", "image_finetune")
TRAIN = "fairseq-hydra-train"
FLAGS = ("fairseq-train", "fairseq-validate")
PROGRAMS = {".", "bash", "cp", "eat", "eval", "pip", TRAIN, *FLAGS, "torchrun", "srun", "sbatch"}
OTHERS = {"mkdocs", "heareval.embeddings.runner", "xares.run"}  # modules of other packages
SWEEP = re.compile(r"launcher|sweep|interval\(|\{rate\}|=[^\[]*,")
# A folder that a command prints -> a word for it.
PRINTED = {"$(eat config-dir)": "CONFIG_DIR", "$(eat user-dir)": "USER_DIR"}
# Not those that the quickstart writes, such as runs/.
FOLDERS = {"benchmarks", "config", "docs", "eat_plugin", "requirements", "scripts", "tests"} | {
    path.name for path in PACKAGE.iterdir() if path.is_dir()
}


def read(path):
    return path.read_text(encoding="utf-8")


def code_blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", read(path), flags=re.DOTALL | re.MULTILINE)


def without_blocks(path):
    """The text of a document without its code blocks, fenced or indented."""
    text = re.sub(r"^```.*?^```", "", read(path), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^ {4,}\S.*$", "", text, flags=re.MULTILINE)


def inline_code():
    """The words of all inline code, without repetition."""
    texts = map(without_blocks, GUIDES)
    return sorted({code for text in texts for code in re.findall(r"`([^`\n]+)`", text)})


def commands(paths=GUIDES):
    """Each command of the shell blocks, as a list of words without variables in front."""
    for path in paths:
        for block in code_blocks(path, "bash"):
            for printed, word in PRINTED.items():
                block = block.replace(printed, word)
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and re.match(r"\w+=", words[0]):
                    del words[0]
                if words:
                    yield words


def unique(found):
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


def table_settings():
    """Settings in tables, as (configuration, overrides); each option at most once per item."""
    items = []
    for path in GUIDES:
        name = "finetune" if path.name == "finetuning.md" else "pretrain"
        for cell in re.findall(r"^\| `([a-z+][^`|]*=[^`|]*)` \|", read(path), flags=re.MULTILINE):
            new = dict(word.split("=", 1) for word in cell.split())
            for other, settings in items:
                if other == name and not new.keys() & settings.keys():
                    settings.update(new)
                    break
            else:
                items.append((name, new))
    return [(name, [f"{k}={v}" for k, v in settings.items()]) for name, settings in items]


@cache
def option_names(name):
    """All options of a configuration, with the defaults, as ``section.option``."""

    def walk(node, prefix):
        for key, value in node.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    return frozenset(walk(OmegaConf.to_container(compose(name, [], CONFIG_DIR).cfg), ""))


def headings(path):
    """The anchors of a document, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", read(path), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_readme__is_a_front_door():
    assert len(read(ROOT / "README.md").splitlines()) <= 150


def test_readme__links_to_every_document():
    links = set(re.findall(r"\]\((docs/[\w.]+)\)", read(ROOT / "README.md")))
    assert links >= {f"docs/{path.name}" for path in DOCUMENTS[1:]}


def test_readme__has_two_scripts():
    scripts = [words[1] for words in commands([ROOT / "README.md"]) if words[0] == "bash"]
    assert set(scripts) == {"scripts/quickstart.sh", "scripts/test.sh"}


def test_commands__are_all_of_a_known_kind():
    assert {words[0] for words in commands()} <= PROGRAMS
    assert all((ROOT / words[1]).is_file() for words in commands() if words[0] == "bash")


@pytest.mark.parametrize(
    "words", unique(w for w in commands() if any(TRAIN in word for word in w)), ids=" ".join
)
def test_fairseq_command__composes(words):
    start = next(index for index, word in enumerate(words) if TRAIN in word)
    arguments = words[start + 1 :]
    assert arguments.pop(arguments.index("--config-dir") + 1) == "CONFIG_DIR"
    name = arguments.pop(arguments.index("--config-name") + 1)
    overrides = [
        word
        for word in arguments
        # Plugins of hydra need not be installed, and sweep over values.
        if not word.startswith(("-", "+")) and not SWEEP.search(word)
    ]
    cfg = compose(name, overrides, CONFIG_DIR).cfg
    assert cfg.task.data.startswith("/my/")
    assert cfg.common.user_dir == "USER_DIR"


@pytest.mark.parametrize(
    "words", unique(w for w in commands() if w[0].startswith(FLAGS)), ids=" ".join
)
def test_command_with_flags__makes_a_configuration(words):
    kind = "training" if words[0] == "fairseq-train" else "validation"
    parser = getattr(options, f"get_{kind}_parser")()
    given = [str(ROOT / "eat_plugin") if word == "USER_DIR" else word for word in words[1:]]
    args = options.parse_args_and_arch(parser, given)
    assert convert_namespace_to_omegaconf(args).task._name == args.task


@pytest.mark.parametrize(
    "words",
    unique(w for w in commands() if w[:2] in (["eat", "pretrain"], ["eat", "finetune"])),
    ids=" ".join,
)
def test_training_command__composes(words):
    args = cli.parse(words[1:])
    kind = "image_" if "images" in args.data.name else ""
    groups = {"size": args.size, "benchmark": getattr(args, "benchmark", None)}
    chosen = [f"{group}={choice}" for group, choice in groups.items() if choice is not None]
    compose(args.config_name or f"{kind}{args.subcommand}", [*chosen, *args.overrides], CONFIG_DIR)


@pytest.mark.parametrize(("name", "overrides"), table_settings())
def test_settings__compose(name, overrides):
    compose(name, overrides, CONFIG_DIR)


@pytest.mark.parametrize("words", unique(w for w in commands() if w[0] == "eat"), ids=" ".join)
def test_eat_command__parses(words):
    cli.parse(words[1:])


def test_options__that_are_mentioned_exist():
    known = frozenset().union(*map(option_names, CONFIGS))
    sections = "|".join(name for name in known if "." not in name)
    option = rf"(?:^|[ +(])((?:{sections})(?:\.\w+)+)"
    found = re.findall(option, "\n".join(inline_code()), flags=re.MULTILINE)
    assert found
    missing = set(found) - known
    if not hasattr(CompositeOptimizerConfig, "dynamic_groups"):  # fairseq 0.12.2
        missing -= {"optimization.debug_param_names"}
    assert not missing


def test_modules__that_are_run_exist():
    for path in GUIDES:
        for module in set(re.findall(r"python -m ([\w.]+)", read(path))) - OTHERS:
            file = ROOT / module.replace(".", "/")
            assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), module


def test_python__is_valid():
    for path in GUIDES:
        for block in code_blocks(path, "python"):
            ast.parse(block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files__that_are_mentioned_exist(path):
    folders = "|".join(map(re.escape, sorted(FOLDERS)))
    for name in set(re.findall(rf"`((?:{folders})/[\w./]+)`", without_blocks(path))):
        assert (ROOT / name).exists() or (PACKAGE / name).exists(), name


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links__lead_to_files_and_headings(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(path)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in set(headings(target)), link
