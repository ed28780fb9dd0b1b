"""A bucket on this machine that can go away: a small S3 server in memory, and a door in front of any server that can be shut."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

SETTINGS = {"AWS_ACCESS_KEY_ID": "who", "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-tests", "AWS_REGION": "us-east-1"}


class Bucket(ThreadingHTTPServer):
    """One bucket in memory, as far as the `minio` client goes: whole objects and parts, ranges, lists, single and several deletes."""

    daemon_threads = True

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), _Request)


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket

    def log_message(self, *args) -> None:
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def _any(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        key = unquote(url.path).lstrip("/").partition("/")[2]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if len(body) < int(self.headers.get("Content-Length") or 0):
            self.close_connection = True
            return
        self.server.requests.append(f"{self.command} {key}")
        getattr(self, f"_{self.command.lower()}")(key, query, body)

    do_GET = do_PUT = do_POST = do_DELETE = _any

    def _get(self, key: str, query: dict[str, str], body: bytes) -> None:
        if not key:
            keys = sorted(k for k in self.server.objects if k.startswith(query.get("prefix", "")))
            sizes = ((k, len(self.server.objects[k])) for k in keys)
            listed = "".join(f"<Contents><Key>{k}</Key><Size>{size}</Size></Contents>" for k, size in sizes)
            self._reply(
                200,
                f"<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>".encode(),
            )
        elif key not in self.server.objects:
            self._error(404, "NoSuchKey")
        else:
            data = self.server.objects[key]
            begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            self._reply(206 if begin else 200, data[begin:], md5(data).hexdigest())

    def _put(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploadId" not in query:
            self.server.objects[key] = body
        elif query["uploadId"] not in self.server.parts:
            return self._error(404, "NoSuchUpload")
        else:
            self.server.parts[query["uploadId"]][int(query["partNumber"])] = body
        return self._reply(200, b"", md5(body).hexdigest())

    def _post(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploads" in query:
            upload = str(len(self.server.requests))
            self.server.parts[upload] = {}
            answer = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
        elif "uploadId" in query:
            parts = self.server.parts.pop(query["uploadId"], None)
            if parts is None:
                return self._error(404, "NoSuchUpload")
            self.server.objects[key] = b"".join(data for _, data in sorted(parts.items()))
            answer = f"<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>{key}</Key><ETag>e</ETag></CompleteMultipartUploadResult>"
        else:
            for name in re.findall("<Key>(.*?)</Key>", body.decode()):
                self.server.objects.pop(name, None)
            answer = "<DeleteResult></DeleteResult>"
        return self._reply(200, answer.encode())

    def _delete(self, key: str, query: dict[str, str], body: bytes) -> None:
        if "uploadId" in query:
            self.server.parts.pop(query["uploadId"], None)
        else:
            self.server.objects.pop(key, None)
        self._reply(204, b"")

    def _error(self, status: int, code: str) -> None:
        self._reply(status, f"<Error><Code>{code}</Code><Message>said by the test</Message></Error>".encode())

    def _reply(self, status: int, body: bytes, etag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        self.wfile.write(body)


Trouble = Literal["", "refuse", "reset", "stall"]


class Door:
    """A TCP proxy on loopback whose `trouble` says what becomes of connections, those that stand too: nobody listens (``refuse``), they are broken
    (``reset``), or no byte passes any more (``stall``). ``refuse`` is for its callers the same as ``reset`` with the port closed."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._listener: socket.socket | None = None
        self.port = 0
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.bytes_up = 0
        """What went to the server so far."""
        self.trouble: Trouble = ""
        self._listen()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def shut(self, trouble: Trouble) -> None:
        """Make the trouble begin; the connections that stand have it too."""
        self.trouble = trouble
        if trouble == "refuse" and self._listener:
            listener, self._listener = self._listener, None
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        if trouble != "stall":
            self._drop()

    def open(self) -> None:
        """End the trouble. Connections that stalled stay silent, as after a lost route."""
        self.trouble = ""
        if self._listener is None:
            self._listen()

    @contextmanager
    def away(self, seconds: float, trouble: Trouble = "refuse") -> Iterator[None]:
        """The trouble begins now and ends after `seconds`, whatever runs meanwhile."""
        self.shut(trouble)
        timer = threading.Timer(seconds, self.open)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def close(self) -> None:
        self.shut("refuse")

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)  # what is slow here is slow for the caller
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self._listener, self.port = listener, listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(client)
            if self.trouble == "stall":
                continue
            if self.trouble or self._listener is not listener:
                client.close()
                continue
            try:
                server = socket.create_connection(self._to)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets.add(server)
            for here, there in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(here, there, here is client), daemon=True).start()

    def _pump(self, here: socket.socket, there: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := here.recv(65536):
                if self.trouble == "stall":
                    return  # and the connection stands: nobody hears of it
                there.sendall(data)
                self.bytes_up += len(data) * up
        for end in (here, there):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A bucket that runs while the block does."""
    server = Bucket()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wait_until(condition, seconds: float = 60.0) -> None:
    """Return as soon as the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
