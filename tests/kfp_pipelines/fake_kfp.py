"""A Kubeflow Pipelines server in memory whose answers are a real one's, recorded (shared/data/kfp-api); ids and states are what was recorded."""

import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class FakeKfp:
    """Serve until `close`. `watch` names the recorded scenario that a started run goes through; `terminated` the one after terminating."""

    def __init__(
        self, folder: Path, watch: str = "watch a run that succeeds", terminated: str = "watch a terminated run"
    ):
        self.recorded = [json.loads(line) for line in (folder / "interactions.jsonl").read_text().splitlines()]
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[dict] = []
        self.versions = copy.deepcopy(self.answer("get pipeline and versions", "/versions")["pipeline_versions"])
        self.recurring: dict[str, dict] = {}
        self.deleted_with: list[str] = []
        self.frames = self.answers(watch)
        self.after = self.answers(terminated)
        self.on_run = lambda: None
        """What a started run does, once, when it is first looked at."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, answer = fake.route(self.command, urlsplit(self.path), body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = serve

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

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
        head, *rest = path.strip("/").split("/")
        if method == "POST" and head in ("runs", "recurringruns") and body:
            self.bodies.append(json.loads(body))
        if head == "healthz":
            return 200, self.answer("connect")
        if head == "experiments":
            return 200, self.answers("create experiment that exists")[0]
        if path == "/pipelines":
            return 200, self.answer("find pipeline by name")
        if path == "/pipelines/upload_version":
            made = self.answer("upload version") | {
                "display_name": query["name"][0],
                "pipeline_version_id": f"version-{len(self.versions)}",
            }
            self.versions.append(made)
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

    def recur(self, method, rest, body, query):
        if method == "POST" and not rest:
            wanted = json.loads(body)
            if "99" in wanted["trigger"].get("cron_schedule", {}).get("cron", ""):  # as in the recorded one
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
