"""The layouts of `eat manifest`, and the options that go with each.

A new layout is a function beside those of ``data/layouts`` or ``data/metadata``, and an entry in
``LAYOUTS``.

In this file:
    LAYOUTS          what there is
    add_arguments    declares the options of layouts
    check_options    refuses those that do not go together
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from eat_plugin.data.entries import ARCHIVE_ENDINGS, HDF5_ENDINGS
from eat_plugin.prepare.clips import Found
from eat_plugin.prepare.layouts import (
    HELD_OUT,
    Arrangement,
    arrange_folders,
    arrange_pattern,
    arrange_plain,
    arrange_speech_commands,
)
from eat_plugin.prepare.table_layouts import arrange_audioset, arrange_esc50, arrange_table
from eat_plugin.prepare.webdataset import TEXTS, arrange_webdataset

PLAIN = "plain"
PLAIN_HELD_OUT = "valid"  # the split of clips without labels that are held out
EXTENSIONS = ("wav", "flac", "ogg", "mp3")
CONTAINERS = (*ARCHIVE_ENDINGS, *HDF5_ENDINGS)
OF_SOUND = ("esc50", "speech_commands", "audioset")  # of which there are no images
HOLD_OUTS = ("valid", "fold", "valid_groups")  # options that hold clips out


class Layout(NamedTuple):
    """A way to store a data set.

    Attributes:
        arrange: Says which clips it has, given the options, the root, and what is below the root.
        options: What it takes beside the options of every layout.
        required: Those that have to be given.
        containers: Endings of files whose clips it takes, too.
        texts: Endings of texts that it wants from archives.
    """

    arrange: Callable[[argparse.Namespace, Path, Found], Arrangement]
    options: tuple[str, ...]
    required: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


LAYOUTS = {
    PLAIN: Layout(
        lambda args, root, found: arrange_plain(found.names, args.split),
        ("ext", "split", "valid"),
        containers=CONTAINERS,
    ),
    "folders": Layout(
        lambda args, root, found: arrange_folders(found.names, args.split),
        ("ext", "split", "valid"),
        containers=CONTAINERS,
    ),
    "esc50": Layout(
        lambda args, root, found: arrange_esc50(root, args.fold, args.split),
        ("split", "valid", "fold"),
    ),
    "speech_commands": Layout(
        lambda args, root, found: arrange_speech_commands(root, found.names), ("ext",)
    ),
    "audioset": Layout(
        lambda args, root, found: arrange_audioset(found.names, args.csv, args.classes, args.split),
        ("ext", "split", "valid", "csv", "classes"),
        ("csv", "classes"),
    ),
    "csv": Layout(
        lambda args, root, found: arrange_table(
            root,
            args.csv,
            args.path_column or "filename",
            args.label_column or "label",
            args.split_column,
            args.label_separator,
            args.split,
        ),
        (
            *("split", "valid", "csv", "path_column", "label_column", "split_column"),
            "label_separator",
        ),
        ("csv",),
    ),
    "pattern": Layout(
        lambda args, root, found: arrange_pattern(
            found.names, args.pattern, args.valid_groups, args.split
        ),
        ("ext", "split", "valid", "pattern", "valid_groups"),
        ("pattern",),
        CONTAINERS,
    ),
    "webdataset": Layout(
        lambda args, root, found: arrange_webdataset(
            found.names, found.texts, args.json_key, args.split
        ),
        ("ext", "split", "valid", "json_key"),
        containers=ARCHIVE_ENDINGS,
        texts=TEXTS,
    ),
}
CHOOSABLE = sorted({option for layout in LAYOUTS.values() for option in layout.options})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of layouts; None where one is not given."""
    group = parser.add_argument_group("layouts with labels")
    group.add_argument(
        "--layout",
        choices=tuple(LAYOUTS),
        default=PLAIN,
        metavar="LAYOUT",
        help=f"how labels are stored: {', '.join(LAYOUTS)} (default: {PLAIN}, there are none)",
    )
    group.add_argument("--fold", metavar="N", type=int, help="esc50: hold out this fold")
    group.add_argument(
        "--csv", metavar="FILE", type=Path, help="audioset: the segments; csv: the table"
    )
    group.add_argument(
        "--classes", metavar="FILE", type=Path, help="audioset: class_labels_indices.csv"
    )
    group.add_argument(
        "--path-column", metavar="NAME", help="csv: column of paths (default: filename)"
    )
    group.add_argument(
        "--label-column", metavar="NAME", help="csv: column of labels (default: label)"
    )
    group.add_argument(
        "--split-column", metavar="NAME", help="csv: column of splits (default: one split)"
    )
    group.add_argument(
        "--label-separator",
        metavar="TEXT",
        help="csv: what parts several labels of a clip (default: a field is one label)",
    )
    group.add_argument(
        "--pattern", metavar="REGEX", help="pattern: has the groups 'label' and, maybe, 'group'"
    )
    group.add_argument(
        "--valid-groups",
        metavar="A,B",
        type=_split_names,
        help="pattern: hold out the clips whose 'group' (speaker, site, folder...) is one of these",
    )
    group.add_argument(
        "--json-key",
        metavar="NAME",
        help="webdataset: what the label is called in KEY.json (default: label, and KEY.cls is "
        "looked for first)",
    )


def _split_names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def check_options(args: argparse.Namespace) -> None:
    """Check that the options given go with the layout and with one another.

    Args:
        args: The options; those of layouts are None where they are not given.

    Raises:
        ValueError: They do not.
    """
    layout = LAYOUTS[args.layout]
    given = [option for option in CHOOSABLE if getattr(args, option) is not None]
    for option in given:
        if option not in layout.options:
            users = ", ".join(name for name in LAYOUTS if option in LAYOUTS[name].options)
            raise ValueError(
                f"--layout {args.layout} does not use {_flag(option)}, which is for: {users}"
            )
    for option in layout.required:
        if option not in given:
            raise ValueError(f"--layout {args.layout} needs {_flag(option)}")
    deciding = [option for option in (*HOLD_OUTS, "split_column") if option in given]
    if len(deciding) > 1:
        raise ValueError(f"{' and '.join(map(_flag, deciding))} both say what to hold out")
    if "split" in given and "split_column" in given:
        raise ValueError("--split names one split, --split-column several; give one of them")
    if args.valid_groups == [] or args.label_separator == "":
        raise ValueError("--valid-groups and --label-separator must not be empty")
    held_out = held_out_name(args)
    if deciding and deciding != ["split_column"] and args.split == held_out:
        raise ValueError(f"{_flag(deciding[0])} needs another --split than {held_out!r}")


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def held_out_name(args: argparse.Namespace) -> str:
    """Return what the split of clips that are held out is called."""
    return PLAIN_HELD_OUT if args.layout == PLAIN else HELD_OUT
