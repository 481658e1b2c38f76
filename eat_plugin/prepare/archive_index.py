"""The clips in archives, HDF5 and parquet files, listed without unpacking."""

from __future__ import annotations

import os

from ..data.clip import ClipError
from ..data.entries import is_hdf5, is_parquet
from ..data.files import open_whole
from ..data.fingerprints import Fingerprint, take_fingerprint
from ..data.hdf5 import list_datasets
from ..data.urls import is_url
from .archive_members import Contents, DamageError, walk_tar, walk_zip
from .parquet_index import index_parquet
from .shard_index import Located, check_index, key_of

STORED_HDF5 = (
    "is an HDF5 file in a store, whose chunks would be asked for one by one; copy it to a disk of "
    "this machine, or put its clips into shards (.tar)"
)
MOST_TEXT = 1 << 20  # bytes read of a text member


def index_archive(
    path: str,
    endings: set[str],
    text_endings: set[str],
    checksum: bool = False,
    stored: Fingerprint | None = None,
    index: Located | None = None,
    columns: tuple[str | None, str | None] = (None, None),
) -> Contents:
    """List the clips of a zip, tar, HDF5 or parquet file, in no particular order.

    Of a truncated archive the complete members are listed; of several members with one name the
    last, which is the one that unpacking leaves. In names, line breaks and bytes that are not UTF-8
    are escaped by backslashes.

    Args:
        path: path or address of the file, recognised by its name.
        endings: of clips, lower case, without the dot. In HDF5 files all suitable datasets are
            clips.
        text_endings: text members to read, by the part of the name after its first or last dot.
        checksum: take the archive's SHA-256 too.
        stored: fingerprint of an archive in a store.
        index: a WebDataset index of the archive, which has to fit it.
        columns: of a parquet file, those of sound and of labels; see ``parquet_index``.

    Raises:
        ValueError: the index does not fit; a parquet file cannot be read.
        UnreachableError: the store of the archive cannot be used.
    """
    contents = Contents(stored)
    try:
        if stored is None:
            contents.fingerprint = take_fingerprint(path, checksum)
        if is_hdf5(path) and is_url(path):
            raise ClipError(STORED_HDF5)
        if is_hdf5(path):
            datasets = list_datasets(path)
            contents.clips = {key: f"/{key}" for key, problem in datasets if problem is None}
            contents.rejected = [(key, problem) for key, problem in datasets if problem is not None]
        elif is_parquet(path):
            index_parquet(path, contents, *columns)
        else:
            members = _add_members(contents, path, endings, text_endings)
            if index is not None:
                check_index(path, index, members)
    except OSError as error:
        if is_url(path):
            raise
        contents.rejected.append(("", f"cannot be read: {error.strerror or error}"))
    except (ClipError, DamageError) as error:
        contents.rejected.append(("", str(error)))
    return contents


def _add_members(
    contents: Contents, path: str, endings: set[str], text_endings: set[str]
) -> set[tuple[int, int]]:
    """Add the clips and texts; return the first byte and the number of bytes of all files."""
    keys, members = set(), set()
    walk = walk_zip if path.lower().endswith(".zip") else walk_tar
    with open_whole(path, contents.fingerprint) as file:
        for member in walk(file, os.fstat(file.fileno()).st_size):
            name = readable(member.name.removeprefix("./"))
            if member.problem is None and not os.path.basename(name).startswith("."):
                members.add((member.start, member.length))
                keys.add(key_of(name))
            _, _, suffix = os.path.basename(name).lower().partition(".")
            last = suffix.rpartition(".")[2]
            if not text_endings.isdisjoint((suffix, last)) and member.problem is None:
                file.seek(member.start)
                contents.texts[name] = file.read(min(member.length, MOST_TEXT))
            if os.path.splitext(name)[1].lower().lstrip(".") not in endings:
                continue
            if member.problem is not None:
                contents.rejected.append((name, member.problem))
                continue
            if name in contents.clips:
                contents.rejected.append((name, "occurs twice; the later member is used"))
            contents.clips[name] = f":{member.start}:{member.length}"
    contents.samples = len(keys - {None})
    return members


def readable(text: str) -> str:
    """Escape tabs, line breaks and bytes that are not UTF-8 by backslashes."""
    shown = os.fsencode(text).decode("utf-8", "backslashreplace")
    return shown.translate({ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"})
