"""Composition of a configuration as `fairseq-hydra-train` does, with checked overrides."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import yaml
from fairseq.dataclass.initialize import add_defaults, hydra_init
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..configs import check_choice, list_groups, list_names, quote, suggest

if hasattr(hydra, "compose"):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    VERSION = {"version_base": "1.1"}
    ADD = "++"
else:  # before 1.1
    from hydra.experimental import compose as hydra_compose  # type: ignore[assignment]
    from hydra.experimental import initialize_config_dir  # type: ignore[assignment]

    VERSION = {}
    ADD = "+"

_OVERRIDE = re.compile(r"(\+{0,2}|~)([\w/@.-]+)(?:=(.*))?", re.S)
_ABSENT = re.compile(r"Could not override '(\w+)'\. No match in the defaults list")
_NOISE = ("object_type", "reference_type", "full_key", "See https")  # of hydra's messages
# Options with a path; a relative one is of the folder in which the command was given.
PATHS = (
    "task.data", "task.monitor.data", "model.model_path", "checkpoint.restore_file",
    "checkpoint.finetune_from_model",
)  # fmt: skip


class Override(NamedTuple):
    """An override of hydra: ``sign`` is ``+``, ``++``, ``~`` or empty."""

    sign: str
    key: str
    value: str | None

    def __str__(self) -> str:
        return f"{self.sign}{self.key}" + ("" if self.value is None else f"={self.value}")


class Composed(NamedTuple):
    """A whole configuration, and the overrides that make it."""

    cfg: DictConfig
    overrides: list[str]


def parse_override(text: str) -> Override:
    """Parse an override; raise ValueError if it is not one."""
    found = _OVERRIDE.fullmatch(text)
    if found is None or (found[3] is None) != (found[1] == "~" and "=" not in text):
        raise ValueError(f"{text!r} is not an override; write option=value, as task.crop=random")
    return Override(*found.groups())


def compose(name: str, overrides: list[str], folder: Path) -> Composed:
    """Compose a configuration and check its overrides.

    An option that the YAML file leaves out needs no ``+``; a single value of a list needs no
    brackets.

    Args:
        name: of the configuration, as ``pretrain``.
        overrides: in hydra's grammar.
        folder: has the configurations.

    Raises:
        ValueError: an option, group, choice or configuration does not exist, or a value is invalid.
    """
    check_choice("configuration", name, list_names(folder))
    groups = list_groups(folder)
    parsed = [_make_absolute(parse_override(text)) for text in overrides]
    for override in parsed:
        if override.key in groups and override.value is not None:
            check_choice(override.key, override.value, groups[override.key])
    sections = [str(o) for o in parsed if o.key in groups or o.key.endswith("._name")]
    written = _compose(name, sections, folder)
    whole = _with_defaults(written, sections)
    names = [*groups, *_option_names(whole)]
    checked = [str(_check(override, written, whole, names)) for override in parsed]
    return Composed(_with_defaults(_compose(name, checked, folder), checked), checked)


def compose_plain(name: str, folder: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Compose a configuration as plain values, empty where they have to be given."""
    cfg = compose(name, [*overrides], folder).cfg
    plain: Any = OmegaConf.create(OmegaConf.to_container(cfg, enum_to_str=True))
    plain.common.user_dir = plain.task.data = ""
    options: Any = OmegaConf.to_container(plain, resolve=True)
    return dict(options)


def _make_absolute(override: Override) -> Override:
    if override.key not in PATHS or not override.value:
        return override
    path = Path(override.value.strip("'\"")).expanduser()
    return override._replace(value=quote(path.resolve())) if path.exists() else override


def _check(
    override: Override, written: DictConfig, whole: DictConfig, names: list[str]
) -> Override:
    """Return an override as hydra needs it."""
    key = override.key
    if override.sign == "~" or re.match(r"hydra[./]", key) or "@" in key:
        return override
    if key not in names:
        raise ValueError(f"there is no option {key!r}{_suggest_option(key, names)}")
    if "." not in key:
        return override
    if not override.sign and _find(written, key) is None:
        override = override._replace(sign=ADD)
    value = override.value or ""
    if isinstance(_find(whole, key), ListConfig) and not re.match(r"\s*(\[|null\b|\$)", value):
        override = override._replace(value=f"[{value}]")
    return override


def _suggest_option(key: str, names: list[str]) -> str:
    """Suggest options with a similar name, or the same name in another section."""
    last = key.rpartition(".")[2]
    same = [name for name in names if name.rpartition(".")[2] == last]
    if same:
        return f"; did you mean {' or '.join(same[:3])}?"
    return suggest(key, names) or suggest(last, names) or "; eat config shows the configurations"


def _find(cfg: DictConfig, key: str) -> Any:
    """Return the node of an option without resolving it; None if it does not exist."""
    node: Any = cfg
    for part in key.split("."):
        # `in` is false for an option that has to be set ("???").
        if not isinstance(node, DictConfig) or node._is_none() or part not in list(node):
            return None
        node = node._get_node(part)
    return node


def _option_names(cfg: DictConfig) -> list[str]:
    """Return all options as ``section.option``, sections too."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    return list(walk(OmegaConf.to_container(cfg), ""))


def _compose(name: str, overrides: list[str], folder: Path) -> DictConfig:
    GlobalHydra.instance().clear()
    hydra_init(name)
    try:
        with warnings.catch_warnings(), initialize_config_dir(config_dir=str(folder), **VERSION):
            warnings.simplefilter("ignore")
            return hydra_compose(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        absent = _ABSENT.match(str(error))
        if absent is None:
            raise ValueError(_reason(error, overrides)) from error
        raise ValueError(
            f"{absent[1]!r} cannot be chosen with the configuration {name!r}; set options one by "
            "one, as model.depth=4"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f"{mark.name}:{mark.line + 1}: "
        raise ValueError(f"{place}{error.problem}") from error
    finally:
        GlobalHydra.instance().clear()


def _with_defaults(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """Return a configuration with the defaults of all its dataclasses."""
    cfg = cfg.copy()
    try:
        add_defaults(cfg)
    except (OmegaConfBaseException, ValueError) as error:
        raise ValueError(_reason(error, overrides)) from error
    return cfg


def _reason(error: Exception, overrides: list[str]) -> str:
    """Say in one line what is wrong with which override."""
    merged = str(error).partition("\n")[0].partition("Error merging override ")[2]
    cause = error.__cause__ if merged and error.__cause__ else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(_NOISE)]
    key = getattr(cause, "full_key", None) or "?"  # within its section
    guilty = [text for text in overrides if parse_override(text).key.endswith(f".{key}")]
    place = merged or getattr(error, "override", None) or (guilty[0] if guilty else "")
    return (f"{place}: " if place else "") + (", ".join(kept) or type(error).__name__)
