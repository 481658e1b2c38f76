"""Calls of stores that fsspec knows, as ``s3://``, ``gs://``, ``https://``; what failures mean.

A failure is tried again, with growing pauses, unless another attempt would not help.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, Union
from urllib.parse import unquote

from .clip import ClipError
from .fingerprints import AGAIN, Fingerprint
from .remote_cache import read_number
from .urls import Url
from .web import read_directly

TIMEOUT, RETRIES = "EAT_REMOTE_TIMEOUT", "EAT_REMOTE_RETRIES"  # environment variables
SECONDS, ATTEMPTS = 60.0, 5.0  # their defaults
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds, before an attempt
THREADS = 16  # calls at the same time
LOGGING = ("fsspec", "s3fs", "botocore", "aiobotocore", "asyncio")  # of each request
BUFFER = 1 << 20  # bytes that are taken from a connection at once
# What stores call the version of a file, the most exact first. Times are in another form in a list
# of files than for one file.
TAGS = ("ETag", "etag", "generation", "md5Hash", "Content-MD5", "content_md5", "Digest")
TIMES = (
    "Last-Modified", "LastModified", "last_modified", "mtime", "updated", "modified", "created",
)  # fmt: skip
ADVICE = (
    "check the credentials of the store's library, for example AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY"
)
WHOLE = "its server sends whole files where ranges of bytes are asked for"
_SECRET = re.compile(r"\?\S+|(?<=//)[^/\s@]+@")  # a query, which may hold a signature; a user
_jitter = random.Random()  # of its own: training depends on the others

Result = TypeVar("Result")
Buffer = Union[bytes, bytearray]


class UnreachableError(OSError):
    """A store cannot be used now: other clips would fail too."""


class _CutError(Exception):
    """A store sent fewer bytes than were asked for."""


class Store(NamedTuple):
    """The store of an address: its file system, and the options of each call."""

    system: Any
    options: dict[str, float]


# By process and protocol: the threads of a store do not survive a fork, and it must not be closed.
_stores: dict[tuple[int, str], Store] = {}


def find_store(url: str) -> Store:
    """Return the store of an address.

    Raises:
        ValueError: its protocol is unknown, or needs a package that is not installed; an address of
            the web holds what may be a secret.
    """
    protocol, _, place = url.partition("://")
    if protocol in ("http", "https") and ("?" in place or "@" in place.partition("/")[0]):
        raise ValueError(f"an address of {protocol}:// must not hold credentials or a '?'")
    store = _stores.get((os.getpid(), protocol))
    if store is None:
        try:
            import fsspec

            system = fsspec.filesystem(protocol, use_listings_cache=False)
            for library in LOGGING:  # fairseq leaves the root logger at DEBUG
                logging.getLogger(library).setLevel(logging.WARNING)
        except ImportError as error:
            raise ValueError(
                f"{protocol}:// needs a package that is not installed ({error}); for s3 and http: "
                "pip install 'eat-plugin[remote]'"
            ) from error
        except ValueError as error:
            raise ValueError(f"{protocol}:// is not a protocol that fsspec knows") from error
        timeout = read_number(TIMEOUT, SECONDS)
        options = {"timeout": timeout} if timeout and system.async_impl else {}
        store = _stores[os.getpid(), protocol] = Store(system, options)
    return store


def attempt(url: str, call: Callable[[Store], Result]) -> Result:
    """Call a store, again with growing pauses if it fails.

    Raises:
        UnreachableError: it fails each time, or refuses access.
        ClipError: there is no such file.
    """
    store = find_store(url)
    retries = int(read_number(RETRIES, ATTEMPTS) or 0)
    for number in range(retries + 1):
        try:
            return call(store)
        except (ClipError, UnreachableError):
            raise
        except Exception as error:
            _refuse_final(url, error)
            if number == retries:
                text = f"its store failed {retries + 1} times, at last with {_describe(error)}"
                raise UnreachableError(errno.EHOSTUNREACH, text, url) from error
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**number)
        time.sleep(pause * _jitter.uniform(0.5, 1))
    raise AssertionError


def _refuse_final(url: str, error: Exception) -> None:
    """Raise what an error means if another attempt would not help."""
    causes = _causes(error)
    statuses, codes = zip(*map(_answer, causes))
    status = next((each for each in statuses if each is not None), None)
    refused = any(isinstance(cause, PermissionError) for cause in causes)
    if status in (401, 403) or refused or any("Credentials" in _name(cause) for cause in causes):
        text = f"its store refuses access: {_describe(error)}; {ADVICE}"
        raise UnreachableError(errno.EACCES, text, url) from error
    if "NoSuchBucket" in codes:
        text = "its bucket does not exist; check the address, and the endpoint of the store"
        raise UnreachableError(errno.ENOENT, text, url) from error
    if status == 200:
        raise UnreachableError(errno.ENOTSUP, WHOLE, url) from error
    missing = all(isinstance(cause, (FileNotFoundError, KeyError)) for cause in causes)
    if status == 404 or missing:
        raise ClipError(f"does not exist in its store; {AGAIN}") from error
    if status == 416:
        raise ClipError(f"is shorter in its store than when it was listed; {AGAIN}") from error


def _answer(error: BaseException) -> tuple[int | None, str | None]:
    """Return the HTTP status that an error is of, and the code of S3."""
    response = getattr(error, "response", None)  # of botocore
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, response.get("Error", {}).get("Code")
    status = getattr(error, "status", None)  # of aiohttp and urllib
    return status if isinstance(status, int) else None, None


def _name(error: BaseException) -> str:
    return type(error).__name__


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _describe(error: BaseException) -> str:
    """Return what an error says, without what may be secret."""
    text = " ".join(_SECRET.sub("", str(error)).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def stored_fingerprint(info: dict[str, Any], listed: bool = False) -> Fingerprint | None:
    """Return size and version of a file from what its store says; None if that has no version.

    The version is a number: a digest of the ETag, or of another property of the content.

    Args:
        info: what the store says.
        listed: in a list of files.
    """
    names = TAGS if listed else (*TAGS, *TIMES)
    text = next((f"{name}={info[name]}" for name in names if info.get(name)), None)
    if text is None or info.get("size") is None:
        return None
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return Fingerprint(int(info["size"]), int.from_bytes(digest, "big") >> 1)


def take_stored(url: str) -> Fingerprint:
    """Ask a store for size and version of a file.

    Raises:
        UnreachableError: as ``attempt``; or the store does not say them.
        ClipError: there is no such file.
    """
    info = attempt(url, lambda store: store.system.info(url, **store.options))
    found = stored_fingerprint(info)
    if found is None:
        text = "its store does not say its size, and its ETag or time"
        raise UnreachableError(errno.EINVAL, text, url)
    return found


def read_range(url: str, start: int, end: int) -> tuple[Buffer, Fingerprint | None]:
    """Read bytes of a file.

    Returns:
        The bytes; size and version of the file that they are of, if the store says them with them.

    Raises:
        UnreachableError: as ``attempt``; or the store does not read ranges of bytes.
        ClipError: there is no such file, or it is too short.
    """

    def read(store: Store) -> tuple[Buffer, Fingerprint | None]:
        system, found = store.system, None
        data: Buffer
        if "http" in system.protocol:
            data, headers = _read_web(store, url, start, end)
            total = headers.get("Content-Range", "").rpartition("/")[2]
            info = {**headers, "size": int(total) if total.isdecimal() else None}
            found = stored_fingerprint(info)
        else:
            data = system.cat_file(url, start=start, end=end, **store.options)
        if len(data) > end - start:
            raise UnreachableError(errno.ENOTSUP, WHOLE, url)
        if len(data) < end - start:
            raise _CutError(f"{len(data)} of {end - start} bytes")
        return data, found

    return attempt(url, read)


def _read_web(store: Store, url: str, start: int, end: int) -> tuple[Buffer, Mapping[str, str]]:
    """Read bytes of a web server; return them and the headers of the answer."""
    system = store.system
    direct = read_directly(system, url, start, end, store.options.get("timeout"))
    if direct is not None:
        return direct
    from fsspec.asyn import sync

    return sync(system.loop, _get, system, url, start, end, **store.options)


async def _get(system: Any, url: str, start: int, end: int) -> tuple[bytes, Mapping[str, str]]:
    """Do it by fsspec's client."""
    options = dict(system.kwargs)
    headers = {"Accept-Encoding": "identity", **options.pop("headers", {})}
    headers["Range"] = f"bytes={start}-{end - 1}"
    options.update(headers=headers, read_bufsize=BUFFER)
    session = await system.set_session()
    async with session.get(system.encode_url(url), **options) as answer:
        system._raise_not_found_for_status(answer, url)
        return await answer.read(), answer.headers


def take_all(urls: Iterable[str]) -> Iterator[Fingerprint | ClipError]:
    """Yield size and version of each file, or why there is none."""

    def take(url: str) -> Fingerprint | ClipError:
        try:
            return take_stored(url)
        except ClipError as error:
            return error

    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(take, urls)


def list_files(root: Url) -> dict[str, dict[str, Any]]:
    """List the files below an address: path below it -> what the store says of it.

    Raises:
        UnreachableError: the store cannot be listed.
        ValueError: there is no such folder.
    """
    try:  # without the timeout, which is for a single answer
        found = attempt(root, lambda store: store.system.find(root, detail=True))
    except ClipError as error:
        raise ValueError(f"{root} {error}") from error
    base = find_store(root).system._strip_protocol(root).rstrip("/") + "/"
    names = ((path[len(base) :], info) for path, info in found.items() if path.startswith(base))
    if root.startswith("http"):
        return {_decode(name): info for name, info in names}
    return dict(names)


def _decode(link: str) -> str:
    """Return the name that a link of a web server is of, unless it would mean another link."""
    name = unquote(link)
    return link if set(name) & set("?#%") else name
