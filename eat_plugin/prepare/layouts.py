"""The layouts of ``eat manifest``, and checks of its options.

A new layout is a function that returns an ``Arrangement``, and an entry in ``LAYOUTS``. Options are
named as on the command line; those of layouts are None if not given.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ..data.channels import MEAN
from ..data.entries import ARCHIVE_ENDINGS, HDF5_ENDINGS, IMAGE_ENDINGS, PARQUET, TAR
from ..data.files import is_file
from ..data.stores import UnreachableError
from ..data.urls import Root, Url
from .arrangement import HELD_OUT, TRAIN, Arrangement
from .energon import FOLDER, arrange_energon
from .find import AUDIO_ENDINGS, Found
from .parquet_index import arrange_parquet
from .path_layouts import (
    arrange_folders,
    arrange_pattern,
    arrange_plain,
    arrange_speech_commands,
    compile_pattern,
)
from .shar import EMPTY, ENDINGS, SHARDS, arrange_shar
from .table_layouts import arrange_audioset, arrange_esc50, arrange_table
from .webdataset import TEXTS, arrange_webdataset

PLAIN = "plain"
PLAIN_HELD_OUT = "valid"  # the held-out split of clips without labels
CONTAINERS = (*ARCHIVE_ENDINGS, *HDF5_ENDINGS)
LABEL_OPTIONS = {"lhotse": "json_key", "energon": "json_key", "parquet": "label_column"}
"""The layouts that have labels if an option names them."""
SOUND_ONLY = ("esc50", "speech_commands", "audioset", "lhotse", "parquet")
# Files that are in a data set of a layout alone.
SIGNS = {"energon": (f"{FOLDER}/split.yaml", f"{FOLDER}/split.json"),
         "lhotse": ("cuts.000000.jsonl.gz",)}  # fmt: skip
HOLD_OUTS = ("valid", "fold", "valid_groups", "split_column")  # options that hold clips out
REJECTED, MISSING, QUALITY = "rejected", "missing", "quality"
RESERVED = ("", REJECTED, MISSING)  # a split cannot have these names


class Layout(NamedTuple):
    """How a data set stores splits and labels."""

    arrange: Callable[[Namespace, Root, Found], Arrangement]  # (options, root, files below it)
    options: tuple[str, ...]  # with "ext", the files below the root are listed
    required: tuple[str, ...] = ()  # options that have to be given
    containers: tuple[str, ...] = ()  # endings of archives and HDF5 files to list
    texts: tuple[str, ...] = ()  # endings of text members of archives to read
    endings: tuple[str, ...] = ()  # of clips, besides the usual ones
    only: str = ""  # regular expression of the names of archives to list

    @property
    def is_table(self) -> bool:
        """Whether a table lists the clips, with no need to list the files of a folder."""
        return "ext" not in self.options and not self.containers


COMMON = ("ext", "split", "valid")
LAYOUTS = {
    PLAIN: Layout(
        lambda o, _, found: arrange_plain(found.names, o.split), COMMON, containers=CONTAINERS
    ),
    "folders": Layout(
        lambda o, _, found: arrange_folders(found.names, o.split), COMMON, containers=CONTAINERS
    ),
    "esc50": Layout(
        lambda o, root, found: arrange_esc50(root, o.fold, o.split, found.names),
        ("split", "valid", "fold"),
    ),
    "speech_commands": Layout(
        lambda _, root, found: arrange_speech_commands(root, found.names), ("ext",)
    ),
    "audioset": Layout(
        lambda o, _, found: arrange_audioset(found.names, o.csv, o.classes, o.split),
        (*COMMON, "csv", "classes"),
        ("csv", "classes"),
    ),
    "csv": Layout(
        lambda o, root, found: arrange_table(
            root, o.csv, o.path_column or "filename", o.label_column or "label",
            o.split_column, o.label_separator, o.split,
            IMAGE_ENDINGS if o.images else AUDIO_ENDINGS, found.names,
        ),
        ("split", "valid", "csv", "path_column", "label_column", "split_column", "label_separator"),
        ("csv",),
    ),
    "pattern": Layout(
        lambda o, _, found: arrange_pattern(found.names, o.pattern, o.valid_groups, o.split),
        (*COMMON, "pattern", "valid_groups"),
        ("pattern",),
        CONTAINERS,
    ),
    "webdataset": Layout(
        lambda o, _, found: arrange_webdataset(found.names, found.texts, o.json_key, o.split),
        (*COMMON, "json_key"),
        containers=ARCHIVE_ENDINGS,
        texts=TEXTS,
    ),
    "lhotse": Layout(
        lambda o, root, found: arrange_shar(
            root, found.names, found.texts, {name for name, _ in found.rejected}, o.json_key,
            o.split,
        ),
        (*COMMON, "json_key"),
        containers=(TAR,), texts=(EMPTY,), endings=ENDINGS, only=SHARDS,
    ),
    "energon": Layout(
        lambda o, root, found: arrange_energon(
            root, found.names, found.texts, found.samples, o.json_key
        ),
        ("ext", "valid", "json_key"),
        containers=(TAR,), texts=TEXTS,
    ),
    "parquet": Layout(
        lambda o, _, found: arrange_parquet(
            found.names, found.texts, o.label_column is not None, o.split
        ),
        ("split", "valid", "label_column", "audio_column"),
        containers=(PARQUET,),
    ),
}  # fmt: skip


def report_name(kind: str, split: str, ending: str = "tsv") -> str:
    """Return the file name of a report; a split that is listed alone has its own."""
    return f"{kind}.{ending}" if split == TRAIN else f"{kind}.{split}.{ending}"


def check_options(options: Namespace) -> None:
    """Raise ValueError if an option is invalid, or does not go with the layout or the others."""
    if isinstance(options.folder, Url):
        if options.checksum:
            raise ValueError("--checksum is for archives of this machine; stores have versions")
    elif not options.folder.is_dir():
        problem = "is not a folder" if options.folder.exists() else "does not exist"
        raise ValueError(f"{options.folder} {problem}")
    if options.split is not None:
        check_split_name(options.split, "--split")
    if options.valid is not None and not 0 < options.valid < 1:
        raise ValueError(f"--valid must be a fraction between 0 and 1, got {options.valid}")
    if options.images and options.layout in SOUND_ONLY:
        raise ValueError(f"--layout {options.layout} is a data set of sound; omit --images")
    if options.images and options.drop:
        raise ValueError("--drop is for sound; omit --images")
    if options.drop and not options.check:
        raise ValueError("--drop needs --check")
    if options.channels != MEAN and not options.check:
        raise ValueError("--channels needs --check; the manifest is the same for all")
    _check_layout_options(options)


def find_layout(root: Root) -> str:
    """Return the layout that a file below a folder or address is a sign of, or ``plain``."""
    with suppress(UnreachableError):  # it shows again when the files are listed
        for layout, names in SIGNS.items():
            if any(is_file(root / name) for name in names):
                return layout
    return PLAIN


def _check_layout_options(options: Namespace) -> None:
    layout = LAYOUTS[options.layout]
    known = sorted({option for each in LAYOUTS.values() for option in each.options})
    given = [option for option in known if getattr(options, option) is not None]
    for option in given:
        if option not in layout.options:
            users = ", ".join(name for name in LAYOUTS if option in LAYOUTS[name].options)
            raise ValueError(
                f"--layout {options.layout} does not use {_flag(option)}, which is for: {users}"
            )
    for option in layout.required:
        if option not in given:
            raise ValueError(f"--layout {options.layout} needs {_flag(option)}")
    held_out = held_out_split(options)
    hold_outs = [option for option in HOLD_OUTS if option in given]
    if len(hold_outs) > 1:
        raise ValueError(f"{' and '.join(map(_flag, hold_outs))} both hold clips out; give one")
    if "split" in given and "split_column" in given:
        raise ValueError("--split names one split, --split-column several; give one of them")
    if options.valid_groups == [] or options.label_separator == "":
        raise ValueError("--valid-groups and --label-separator must not be empty")
    if hold_outs and hold_outs != ["split_column"] and options.split == held_out:
        raise ValueError(f"{_flag(hold_outs[0])} needs another --split than {held_out!r}")
    _check_values(options)


def _check_values(options: Namespace) -> None:
    """Check files and the pattern before the clips are searched for, which may take long."""
    for option in ("csv", "classes"):
        path = getattr(options, option)
        if path is not None and not path.is_file():
            raise ValueError(f"{_flag(option)}: there is no file {path}")
    if options.pattern is not None:
        compile_pattern(options.pattern, with_groups=options.valid_groups is not None)


def held_out_split(options: Namespace) -> str:
    """Return the name of the split of held-out clips."""
    label = LABEL_OPTIONS.get(options.layout)
    without = options.layout == PLAIN if label is None else getattr(options, label) is None
    return PLAIN_HELD_OUT if without else HELD_OUT


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def check_split_name(name: str, source: str) -> None:
    """Raise ValueError if a split cannot have this name; ``source`` says where it is from."""
    if name.partition(".")[0] in RESERVED or set(name) & set("/\\\t\n\r\0"):
        raise ValueError(f"{source} {name!r} cannot be the name of a manifest")
