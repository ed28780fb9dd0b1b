"""Small trained models of both families in one store, and servers of them: real processes at real ports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from curricle.launch.job import Outcome
from curricle.steps.chain import ChainRequest, make_plan, run_chain
from curricle.training import worker

EVIL = "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script>{{7*7}}&amp;"
"""What nobody may be taken for markup or a template."""
TRADES = {"11": ("bread", "bakery", "rolls"), "12": ("beer", "brewery", "hops"), "21": ("wool", "spinning", "yarn"), "22": ("coal", "mine", "shaft")}  # fmt: skip
ASKED = ("beer brewery number 3", "wool yarn")
"""What the command is asked of the model of codes, its answer in ``said.json``: so the model's scorer is made, which takes seconds."""
COMMON = ("tracking.mlflow=false", "tracking.tensorboard=false", "training.trainer.accelerator=cpu")


class _Here:
    """Runs a job in this process."""

    name, max_attempts, retryable = "here", 1, frozenset()

    def submit(self, job):
        self.job = job
        return job.name

    def wait(self, handle, on_log):
        code = worker.main([*self.job.argv[2:]])
        return Outcome("succeeded" if code == 0 else "failed", "succeeded" if code == 0 else "error", code, "")


def curricle(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in a folder; it must end well."""
    command = [sys.executable, "-c", "from curricle.cli import main; main()", *arguments, "--store", "store"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=True)


def _train(folder: Path, base: str, stage: str, *overrides: str) -> None:
    """One stage ``one`` of a configuration, into ``folder/store``."""
    (folder / "config/text_curriculum").mkdir(parents=True, exist_ok=True)
    (folder / "config/config.yaml").write_text(base)
    (folder / "config/text_curriculum/one.yaml").write_text(stage)
    places = [f"paths.{name}={folder / place}" for name, place in (("store_uri", "store"), ("outputs_dir", "outputs"), ("cache_dir", "cache"))]  # fmt: skip
    request = ChainRequest(config=folder / "config/config.yaml", curricula=("one",), overrides=(*places, *COMMON, *overrides))  # fmt: skip
    run_chain(make_plan(request), _Here(), lambda event: None)


def train_codes(folder: Path, encoder: Path) -> Path:
    """A model of a classification of four trades; one title is hostile. Its store."""
    titles = {"1": "Food", "2": "Other", **{code: f"{words[1]} of {words[0]}" for code, words in TRADES.items()}}
    titles["12"] += f" {EVIL}"
    rows = [("code", "title"), *titles.items()]
    (folder / "codes.tsv").write_text("".join(f"{code}\t{title}\n" for code, title in rows))
    texts = [(f"{a} {b} number {i}", code) for code, words in TRADES.items() for i, (a, b) in enumerate((a, b) for _ in range(4) for a in words for b in words)]  # fmt: skip
    (folder / "texts.psv").write_text("\n".join(["text|code", *(f"{text}|{code}" for text, code in texts)]))
    _train(
        folder,
        f"family: codes\nmodel: {{dim: 6, max_tokens: 24, encoder: {encoder}}}\n",
        "objective: retrieval\nfeatures: cached\ntrainable: [head, table, temperature]\ntexts: [entry, title]\n",
        f"data.classification={folder}/codes.tsv",
        f"data.labelled={folder}/texts.psv",
        "training.trainer.max_epochs=1",
    )
    (folder / "said.json").write_text(curricle(folder, "search", "--json", "--explain", "--top", "3", *ASKED).stdout)
    return folder / "store"


def train_ner(folder: Path, encoder: Path) -> Path:
    """A model that finds names. Its store."""
    (folder / "people").mkdir(parents=True)
    names, before = ["Anna", "Bert", "Cora", "Dirk"], ["", "\U0001f37a ", "so ", "then \U0001f37a "]
    for split, count in (("train", 48), ("validation", 12), ("test", 12)):
        rows = []
        for i in range(count):
            start = len(before[i // 4 % 4])
            rows.append({"text": f"{before[i // 4 % 4]}{names[i % 4]} sees {split} {i}", "annotations": [[start, start + 4, "NAME"]]})  # fmt: skip
        (folder / f"people/{split}.json").write_text(json.dumps(rows))
    _train(
        folder,
        f"family: ner\nmodel: {{max_tokens: 16, stride: 4, encoder: {encoder}}}\ntraining: {{learning_rate: 2e-2}}\n",
        "data: {new_dataset_path: ../people}\n",
        "training.trainer.max_epochs=6",
    )
    return folder / "store"


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its content."""
        return json.loads(self.body)


@dataclass
class Server:
    """`curricle serve` in a process of its own."""

    process: subprocess.Popen
    url: str
    said: list[str] = field(default_factory=list)
    reading: threading.Thread = field(default_factory=threading.Thread)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rstrip("/").rpartition(":")[2])

    def ask(self, path: str, content: Any = None, *, method: str = "", **headers: str) -> Answer:
        """One request; `content` is JSON, or bytes as they are."""
        body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content is not None and "Content-Type" not in named:
            named["Content-Type"] = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        request = urllib.request.Request(self.url + path, body, named, method=method or None)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def raw(self) -> HTTPConnection:
        """A connection, for requests that are none of the usual."""
        return HTTPConnection("127.0.0.1", self.port, timeout=60)

    def stop(self, number: int = 15) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Its exit code, once it ends by itself."""
        code = self.process.wait(60)
        self.reading.join(10)
        self.process.stderr.close()
        return code


def start(folder: Path, *arguments: str, **environment: str) -> Server:
    """A server that is ready, at a free port; its model is the one in ``folder/store``. Batches are so small that codes need no torch."""
    command = [
        sys.executable,
        "-c",
        "from curricle.cli import main; main()",
        "serve",
        "--port",
        "0",
        "--store",
        "store",
        *arguments,
    ]
    process = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, **environment}
    )  # fmt: skip
    server = Server(process, "")
    for line in process.stderr:
        server.said.append(line.rstrip())
        if found := re.search(r" at (http://\S+)$", line):
            server.url = found[1]
            break
    assert server.url, f"exit code {process.wait(60)}: {server.said}"
    server.reading = threading.Thread(target=lambda: server.said.extend(line.rstrip() for line in process.stderr))
    server.reading.start()
    return server
