"""Options as flags of ``fairseq-train`` and ``fairseq-validate``.

fairseq keeps all flags in one namespace, in which each section looks for its options by name. So a
flag sets the option of its name in every section that has one. Nested sections (``modalities``,
``fbank``, ...) are values of their own in it.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, field, fields, is_dataclass, make_dataclass
from enum import Enum
from functools import partial
from typing import Any, Optional, Union, get_args, get_origin

from fairseq.dataclass import FairseqDataclass
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from .options import NUMBERS, read_patch_size

# Flags whose option is in several sections, one setting by design.
SHARED = {
    "audio_mae", "ema_decay", "esc50_eval", "input_size", "max_update", "patch_size", "seed",
    "single_label", "spcv2_eval", "target_length",
}  # fmt: skip
FIXED = ("(unused", "(only")  # in the help of published options without an implementation
# A flag and a nested section with another option of its name, which fairseq would give its value.
APART = {"channels": "images"}
METAVARS = {int: "N", float: "X", str: "TEXT"}


class Default(float):
    """A number for which no flag was given."""


class Section(dict[str, Any], FairseqDataclass):
    """Options of a nested section.

    ``fairseq-validate`` takes them from a dictionary, ``fairseq-train`` from the fields of a class.
    """


def make_section(options: Mapping[str, Any]) -> Section:
    """Make a section of options; dictionaries among them become sections, too."""
    values = {
        name: make_section(value) if isinstance(value, dict) else value
        for name, value in options.items()
    }
    declared = [
        (name, Any, field(default_factory=partial(dict.get, values, name))) for name in values
    ]
    made = make_dataclass(
        "Given", declared, bases=(Section,), init=False, eq=False, repr=False,
        namespace={"__doc__": Section.__doc__},  # Python 3.9 cannot make one of a dictionary's
    )  # fmt: skip
    section: Section = made(values)
    return section


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> Section:
    """Make a section of nested options, those of ``second`` where both have one."""
    merged = dict(first)
    for name, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = merge(merged[name], value) if both else value
    return make_section(merged)


class SetOption(argparse.Action):
    """Store a value under its name and in nested sections."""

    def __init__(self, *args: Any, paths: Any = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.paths = paths

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Store the value; argparse calls this for each flag that is given."""
        value = self.read(values, option_string)
        setattr(namespace, self.dest, value)
        for section, *path in self.paths:
            nested = value
            for name in reversed(path):
                nested = {name: nested}
            given = getattr(namespace, section, None) or {}
            setattr(namespace, section, merge(given, nested))
        for name, section in APART.items():
            if hasattr(namespace, name) and isinstance(getattr(namespace, section, None), Section):
                parser.error(f"--{name} is for sound, and does not go with --{section}")

    def read(self, values: Any, option_string: str) -> Any:
        """Return the value of the option."""
        return values if self.const is None else self.const


class Switch(SetOption):
    """A truth value as two flags, with and without ``--no-``."""

    def read(self, values: Any, option_string: str) -> bool:
        """Return the value of the option, whose own name may start with ``no_``."""
        return option_string.startswith("--no-") == self.dest.startswith("no_")


@dataclass
class Flag:
    """A flag: the type of its value, and the nested sections that have its option.

    ``is_fixed``: a published option that has no effect here, or accepts one value.
    """

    name: str
    type: Any
    default: Any
    help: str
    is_fixed: bool
    paths: list[tuple[str, ...]]


def list_flags(config: type, of_task: bool) -> list[Flag]:
    """Return the flags of a section, those of published options without an effect last.

    Args:
        config: its dataclass.
        of_task: flags of nested sections start with the section's name; their options that follow
            the model have no flag.
    """
    found: dict[str, Flag] = {}
    for path, option, kind in _walk(config):
        name = "_".join(path) if of_task else option.name
        paths = [path] if len(path) > 1 or is_dataclass(kind) else []
        if name in found:
            found[name].paths += paths
        elif not (of_task and len(path) > 1 and _is_interpolation(_default(option))):
            shown = option.metadata["help"]
            is_fixed = "accepted" in option.metadata or any(mark in shown for mark in FIXED)
            found[name] = Flag(name, kind, _default(option), shown, is_fixed, paths)
    return sorted(found.values(), key=lambda flag: flag.is_fixed)


def _walk(
    config: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], "Field[Any]", Any]]:
    """Yield path, field and type of all options, and of sections that are off by default."""
    for option in fields(config):
        kind = option.metadata.get("flag") or _without_none(option.type)
        here = (*path, option.name)
        if option.name.startswith("_") or kind is Any or "help" not in option.metadata:
            continue
        if not is_dataclass(kind) or _default(option) is None:
            yield here, option, kind
        if is_dataclass(kind):
            yield from _walk(kind, here)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) is Union:
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation


def _default(option: "Field[Any]") -> Any:
    factory = option.default_factory
    return option.default if factory is NO_DEFAULT else factory()


def _is_interpolation(value: Any) -> bool:
    return str(value).startswith("${")


def add_model_flags(
    parser: Any, model: type, own: tuple[str, ...] = (), shown: Optional[Mapping[str, Any]] = None
) -> None:
    """Declare the flags of a model.

    Args:
        parser: a group of an ``argparse`` parser that has fairseq's own flags.
        model: the registered class.
        own: options whose default is the model's, although fairseq has flags of their names.
        shown: defaults for the help, which then leaves out fixed flags.

    Raises:
        argparse.ArgumentError: another section has a flag that is not in ``SHARED``.
    """
    config = _config_of(model)
    for option in fields(config):
        if is_dataclass(option.type):
            parser.set_defaults(**{option.name: make_section({})})
    for flag in list_flags(config, of_task=False):
        if shown and flag.is_fixed:
            continue
        if flag.name != "data":  # the task's
            _add_flag(parser, flag, shown.get(flag.name, flag.default) if shown else None)
        if flag.name in own:
            parser.set_defaults(**{flag.name: Default(flag.default)})


def add_task_flags(parser: argparse.ArgumentParser, task: type) -> None:
    """Declare the flags of a task, after those of the model.

    Args:
        parser: fairseq's.
        task: the registered class.

    Raises:
        argparse.ArgumentError: another section has a flag that is not in ``SHARED``.
    """
    config = _config_of(task)
    has_model = "--arch" in parser.format_usage()
    for option in fields(config):
        if is_dataclass(option.type):
            parser.set_defaults(**{option.name: make_section({})})
        # fairseq-validate has no model whose options the task's could follow.
        if str(_default(option)).startswith("${model.") and not has_model:
            kind: Any = option.type if option.type is not Any else int
            parser.set_defaults(**{option.name: kind()})
    for flag in list_flags(config, of_task=True):
        if flag.name == "data":
            parser.add_argument("data", help=flag.help)
        else:
            _add_flag(parser, flag, flag.default)


def _config_of(registered: type) -> Any:
    return getattr(registered, "__dataclass")


def _add_flag(parser: Any, flag: Flag, shown: Any) -> None:
    arguments: dict[str, Any] = {"action": SetOption, "paths": flag.paths, "help": flag.help}
    if not (shown is None or shown == MISSING or is_dataclass(shown) or _is_interpolation(shown)):
        arguments["help"] += f" (default: {shown.name if isinstance(shown, Enum) else shown})"
    arguments["help"] = arguments["help"].replace("%", "%%")
    name = flag.name.replace("_", "-")
    names = [f"--{name}"]
    if is_dataclass(flag.type):
        # fairseq does not see a section without options.
        options = {option.name: _default(option) for option in fields(flag.type)}
        arguments.update(nargs=0, const=make_section(options))
    elif flag.type is bool:
        name = name[3:] if name.startswith("no-") else name
        names = [f"--{name}", f"--no-{name}"]
        arguments.update(action=Switch, nargs=0)
    else:
        arguments.update(_describe_value(flag.type))
    try:
        parser.add_argument(*names, dest=flag.name, default=argparse.SUPPRESS, **arguments)
    except argparse.ArgumentError:
        if flag.name not in SHARED:
            raise


def _describe_value(kind: Any) -> dict[str, Any]:
    """Return the arguments of argparse for a type; ``none`` is None."""
    if kind is read_patch_size:
        return {"type": kind, "metavar": "N[,N]"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"choices": [member.name for member in kind]}
    is_list = get_origin(kind) is list or kind is NUMBERS
    of = float if kind is NUMBERS else get_args(kind)[0] if is_list else kind

    def read(text: str) -> Any:
        if text.lower() in ("none", "null"):
            return None
        if kind is NUMBERS and "," not in text:
            return of(text)
        return [of(item) for item in text.strip("[]()").split(",")] if is_list else of(text)

    read.__name__ = of.__name__  # for argparse's messages
    return {"type": read, "metavar": f"{METAVARS[of]},..." if is_list else METAVARS[of]}


def store_sections(task: str, config: Any) -> None:
    """Store the options of a task with all sections, where fairseq looks for those of its flags.

    hydra cannot set an option in a section that is null. fairseq sets each section back to null
    that has no flag.
    """
    sections = {
        option.name: _without_none(option.type)() for option in fields(config)
        if is_dataclass(_without_none(option.type))
    }  # fmt: skip
    node = config(_name=task, **sections)
    ConfigStore.instance().store(name=task, group="task", node=node, provider="eat_plugin")
