"""A local HTTP server of a folder: listings, ranges of bytes, ETags, and failures on request."""

import hashlib
import os
import re
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, unquote


class RangeServer(ThreadingHTTPServer):
    """Serves a folder at ``url``.

    ``failures`` are what happens to the next requests of bytes, one each: a status (500, 403),
    ``cut``, ``slow`` or ``whole`` (the range is ignored); ``always`` happens to all further ones.
    ``requests`` has (method, path, range) of each.
    """

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.failures, self.always, self.requests = Path(folder), [], None, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # a client that gave up


@contextmanager
def serving(folder):
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


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        path = self.server.folder / unquote(self.path).lstrip("/")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        failure = self.server.always
        if wanted and self.server.failures:
            failure = self.server.failures.pop(0)
        if isinstance(failure, int):
            return self.send(failure, b"", with_body)
        if path.is_dir():
            return self.send(200, list_folder(path), with_body)
        if not path.is_file():
            return self.send(404, b"", with_body)
        content, status = path.read_bytes(), 200
        if failure == "slow":
            time.sleep(1)
        etag = (
            hashlib.md5(content).hexdigest()
            if len(content) < 1 << 20
            else os.stat(path).st_mtime_ns
        )
        if wanted and failure != "whole":
            content, status = content[int(wanted[1]) : int(wanted[2]) + 1], 206
        return self.send(status, content, with_body, failure == "cut", {"ETag": f'"{etag}"'})

    def send(self, status, content, with_body, cut=False, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut


def list_folder(path):
    names = (f"{each.name}/" if each.is_dir() else each.name for each in sorted(path.iterdir()))
    return "".join(f'<a href="{quote(name)}">{name}</a>\n' for name in names).encode()
