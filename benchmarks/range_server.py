"""A local HTTP server of a folder: listings, ranges of bytes, ETags, and failures on request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any, Union
from urllib.parse import quote, unquote

Failure = Union[int, str]
"""A status, as 500; ``cut``: half of the bytes, then no more; ``short``: half of them, as if they
were all; ``slow``; ``whole``: all bytes for a range."""


class RangeServer(ThreadingHTTPServer):
    """Serves a folder at ``url``.

    Attributes:
        failures: of the next requests of ranges, one each.
        always: failure of all further requests.
        requests: method, path and range of each request.
        headers: values of ``X-Key`` in the requests.
        redirects: whether requests of ranges are sent to another address of the same file.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.failures: list[Failure] = []
        self.always: Failure | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        self.headers: set[str] = set()
        self.redirects = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that gave up."""


@contextmanager
def serving(folder: Path) -> Iterator[RangeServer]:
    """Serve a folder while the block runs."""
    server = RangeServer(folder)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RangeServer

    def log_message(self, *_: Any) -> None:
        """Write no log."""

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self._answer()

    def do_GET(self) -> None:
        """Answer with the content."""
        self._answer()

    def _answer(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, asked))
        failure = self.server.always
        if asked and self.server.failures:
            failure = self.server.failures.pop(0)
        self.server.headers.add(self.headers.get("X-Key", ""))
        path = self.server.folder / unquote(self.path.partition("?")[0]).lstrip("/")
        if asked and self.server.redirects and "?" not in self.path:
            self._send(302, b"", {"Location": f"{self.path}?again"})
        elif isinstance(failure, int):
            self._send(failure, b"")
        elif path.is_dir():
            self._send(200, _list(path))
        elif not path.is_file():
            self._send(404, b"")
        else:
            self._send_file(path, asked, failure)

    def _send_file(self, path: Path, asked: str | None, failure: str | None) -> None:
        if failure == "slow":
            time.sleep(1)
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "") if failure != "whole" else None
        state = path.stat()
        start = 0 if span is None else int(span[1])
        wanted = state.st_size if span is None else min(int(span[2]) + 1, state.st_size) - start
        if failure == "short":
            wanted //= 2
        headers = {"ETag": f'"{state.st_mtime_ns}-{state.st_size}"', "Content-Length": str(wanted)}
        if span is not None:
            headers["Content-Range"] = f"bytes {start}-{start + wanted - 1}/{state.st_size}"
        if failure == "cut":
            wanted, self.close_connection = wanted // 2, True
        self._send(200 if span is None else 206, b"", headers)
        if self.command != "HEAD" and wanted:
            with open(path, "rb") as file:  # by the system: the server's time does not count
                self.connection.sendfile(file, start, wanted)

    def _send(
        self, status: int, content: bytes, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _list(path: Path) -> bytes:
    names = (f"{each.name}/" if each.is_dir() else each.name for each in sorted(path.iterdir()))
    return "".join(f'<a href="{quote(name)}">{name}</a>\n' for name in names).encode()
