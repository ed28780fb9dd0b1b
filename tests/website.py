"""A server on this machine that answers as a plain web server does, and as a Hugging Face hub."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Web(BaseHTTPRequestHandler):
    """`files` by path; repositories of `hub` as the hub's API and its redirections to a store of large files give them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _any(self):
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append((self.command, path, self.headers.get("Authorization")))
        if self.server.breaks and self.command == "GET" and path in self.server.breaks:
            self.server.breaks.remove(path)
            self._reply(200, b"half", length=1000)
            self.close_connection = True
            return None
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/revision/(.+)", path):
            files = self.server.hub.get((match[1], match[2]))
            if files is None:
                return self._reply(401, b'{"error": "Invalid username or password."}')
            siblings = [self._sibling(name, data) for name, data in files.items()]
            return self._reply(200, json.dumps({"sha": COMMIT, "siblings": siblings}).encode())
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            data = self.server.hub[("datasets" if match[1] else "models", match[2])][match[4]]
            assert match[3] == COMMIT
            if not match[4].endswith(".safetensors"):
                return self._reply(200, data)
            self.server.files["/cdn/blob"] = data
            return self._reply(302, b"", Location=f"http://localhost:{self.server.server_port}/cdn/blob")
        if path in self.server.files:
            return self._reply(200, self.server.files[path])
        return self._reply(404, b"<html>not here</html>")

    do_GET = do_HEAD = _any

    def _sibling(self, name, data):
        entry = {"rfilename": name, "size": len(data), "blobId": "x"}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"sha256": self.server.lie or sha(data), "size": len(data)}
        return entry

    def _reply(self, status, body, length=None, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(length or len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def website(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    """The server, which is the hub too; nothing else is set."""
    for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.seen, server.files, server.hub, server.breaks, server.lie = [], {}, {}, [], ""
    server.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("CURRICLE_STORE_PATIENCE", "2")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
