"""A Kubeflow Pipelines server in memory whose answers are a real one's, recorded (shared/data/kfp-api); ids and states are what was recorded."""

import copy
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class FakeKfp:
    """Serve until `close`. `watch` names the recorded scenario that a started run goes through; `terminated` the one after terminating."""

    def __init__(
        self,
        folder: Path,
        watch: str = "watch a run that succeeds",
        terminated: str = "watch a terminated run",
        certificate: ssl.SSLContext | None = None,
    ):
        self.recorded = [json.loads(line) for line in (folder / "interactions.jsonl").read_text().splitlines()]
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[dict] = []
        self.versions = copy.deepcopy(self.answer("get pipeline and versions", "/versions")["pipeline_versions"])
        self.uploads: dict[str, str] = {}
        """Name of each uploaded version → its content."""
        self.pipeline: dict | None = self.answer("find pipeline by name")["pipelines"][0]
        """None: there is none yet."""
        self.recurring: dict[str, dict] = {}
        self.refused_crons: set[str] = set()
        self.deleted_with: list[str] = []
        self.frames = self.answers(watch)
        self.after = self.answers(terminated)
        self.on_run = lambda: None
        """What a started run does, once, when it is first looked at."""
        fake = self

        self.multi_user = False
        self.namespaces: set[str] = set()
        """All that were named, where several users are served."""
        self.front = lambda method, path, headers: None
        """What stands before the server: a status, headers and a body where it answers itself."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                own = fake.front(self.command, self.path, self.headers)
                if own:
                    status, headers, data = own
                else:
                    status, answer = fake.route(self.command, urlsplit(self.path), body)
                    headers, data = {"Content-Type": "application/json"}, json.dumps(answer).encode()
                self.send_response_only(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = serve

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if certificate:
            self.server.socket = certificate.wrap_socket(self.server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answers(self, scenario: str, ending: str = "") -> list[dict]:
        return [
            r["response"]
            for r in self.recorded
            if r["scenario"] == scenario and urlsplit(r["path"]).path.endswith(ending)
        ]

    def answer(self, scenario: str, ending: str = "") -> dict:
        return self.answers(scenario, ending)[-1]

    def route(self, method: str, url, body: bytes):
        path = url.path.removeprefix("/apis/v2beta1")
        self.calls.append((method, path))
        query = parse_qs(url.query)
        if self.multi_user and (refusal := self.without_namespace(method, path, query, body)):
            return 400, {"code": 3, "message": refusal}
        head, *rest = path.strip("/").split("/")
        if method == "POST" and head in ("runs", "recurringruns") and body:
            self.bodies.append(json.loads(body))
        if head == "healthz":
            return 200, self.answer("connect") | {"multi_user": self.multi_user}
        if head == "experiments":
            return 200, self.answers("create experiment that exists")[0]
        if path == "/pipelines":
            if method == "POST":
                self.pipeline = self.answer("find pipeline by name")["pipelines"][0] | json.loads(body)
                return 200, self.pipeline
            if self.pipeline is None:
                return 200, self.answer("find pipeline by name, none")
            return 200, {"pipelines": [self.pipeline], "total_size": 1}
        if path == "/pipelines/upload_version":
            made = self.answer("upload version") | {
                "display_name": query["name"][0],
                "pipeline_version_id": f"version-{len(self.versions)}",
            }
            self.versions.append(made)
            self.uploads[made["display_name"]] = body.decode()
            return 200, made
        if head == "pipelines" and rest[-1] == "versions":
            return 200, {"pipeline_versions": self.versions}
        if head == "runs":
            if method == "POST" and not rest:
                return 200, self.answer("run a version")
            if rest[0].endswith(":terminate"):
                self.frames = list(self.after)
                return 200, {}
            act, self.on_run = self.on_run, lambda: None
            act()
            return 200, self.frames.pop(0) if len(self.frames) > 1 else self.frames[0]
        if head == "recurringruns":
            return self.recur(method, rest, body, query)
        raise AssertionError(f"not recorded: {method} {path}")

    def without_namespace(self, method, path, query, body):
        """What a server for several users says where no namespace is named: of lists by query, of what is made by body (seen in KFP's source)."""
        lists = method == "GET" and path in ("/recurringruns", "/experiments", "/runs", "/pipelines")
        makes = method == "POST" and path in ("/experiments", "/pipelines")
        if not (lists or makes):
            return None
        named = json.loads(body).get("namespace") if makes else query.get("namespace", [""])[0]
        if named:
            self.namespaces.add(named)
            return None
        return "Invalid input error: In multi-user mode, a namespace must be specified"

    def recur(self, method, rest, body, query):
        if method == "POST" and not rest:
            wanted = json.loads(body)
            if wanted["trigger"].get("cron_schedule", {}).get("cron", "") in self.refused_crons:
                return 400, self.answer("create recurring run, bad cron")
            ident = f"recurring-{len(self.calls)}"
            status = "ENABLED" if wanted.get("mode") == "ENABLE" else "DISABLED"
            self.recurring[ident] = (
                self.answer("create recurring run, cron") | wanted | {"recurring_run_id": ident, "status": status}
            )
            return 200, self.recurring[ident]
        if not rest:
            return 200, {"recurringRuns": list(self.recurring.values())}
        ident, _, verb = rest[0].partition(":")
        if ident not in self.recurring:
            return 404, self.answer("delete one that is not there")
        if method == "DELETE":
            self.deleted_with.append(query.get("propagation_policy", [""])[0])
            del self.recurring[ident]
        elif verb:
            self.recurring[ident]["status"] = f"{verb.upper()}D"
        return 200, self.recurring.get(ident, {}) if method == "GET" else {}
