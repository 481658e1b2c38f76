"""Ranges of bytes of web servers, on connections that are kept.

This takes a third of the time of fsspec's HTTP client, which copies each byte several times. That
client answers what is left: servers that redirect, names and passwords in addresses, and options of
fsspec's configuration.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

IDLE = 4.0  # seconds; many servers close a connection after 5
_kept = threading.local()  # its connections, and the process that they are of
_redirecting = set[str]()  # hosts


def read_directly(
    system: Any, url: str, start: int, end: int, timeout: float | None
) -> tuple[bytearray, Mapping[str, str]] | None:
    """Read bytes of a file.

    Args:
        system: fsspec's file system, whose options are looked at.
        url: address of the file.
        start: first byte.
        end: byte after the last one.
        timeout: seconds for the answer.

    Returns:
        The bytes, fewer if the connection was cut, and the headers; None if fsspec's client has to
        ask.

    Raises:
        HTTPError: the server answers with another status; 200 with all bytes of the file.
        OSError, http.client.HTTPException: there is no answer.
    """
    place = urlsplit(str(system.encode_url(url)))
    is_plain = not (system.kwargs or system.client_kwargs) and "@" not in place.netloc
    if not is_plain or place.netloc in _redirecting:
        return None
    deadline = None if timeout is None else time.monotonic() + timeout
    target = (place.path or "/") + (f"?{place.query}" if place.query else "")
    headers = {
        "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity", "User-Agent": "eat",
    }  # fmt: skip
    connection, answer = _ask(place.scheme, place.netloc, target, headers, timeout)
    is_done = False
    try:
        if 300 <= answer.status < 400:
            _redirecting.add(place.netloc)
            return None
        length = int(answer.headers.get("Content-Length") or -1)
        if answer.status != 206 and (answer.status != 200 or length != end - start):
            raise HTTPError(url, answer.status, answer.reason, answer.headers, None)
        data = _read(answer, end - start, deadline)
        is_done = len(data) == end - start == length
        return data, dict(answer.headers.items())
    finally:
        if is_done:
            _connections()[place.scheme, place.netloc] = connection, time.monotonic()
        else:
            connection.close()


def _connections() -> dict[tuple[str, str], tuple[http.client.HTTPConnection, float]]:
    """Return this thread's free connections, with the time of their last use."""
    if getattr(_kept, "process", None) != os.getpid():  # a fork shares those of its parent
        _kept.process, _kept.connections = os.getpid(), {}
    return _kept.connections


def _ask(
    scheme: str, host: str, target: str, headers: dict[str, str], timeout: float | None
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Send a request, on a kept connection if the server has not closed it."""
    kept, last = _connections().pop((scheme, host), (None, 0.0))
    if kept is not None:
        if time.monotonic() - last < IDLE:
            with suppress(OSError, http.client.HTTPException):
                kept.request("GET", target, headers=headers)
                return kept, kept.getresponse()
        kept.close()
    make = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = make(host, timeout=timeout)
    try:
        connection.request("GET", target, headers=headers)
        return connection, connection.getresponse()
    except BaseException:
        connection.close()
        raise


def _read(answer: http.client.HTTPResponse, wanted: int, deadline: float | None) -> bytearray:
    data = bytearray(wanted)
    view, found = memoryview(data), 0
    while found < wanted:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
        count = answer.readinto(view[found:])
        if not count:
            break
        found += count
    view.release()
    del data[found:]
    return data
