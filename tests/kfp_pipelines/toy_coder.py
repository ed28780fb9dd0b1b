"""A family of another distribution whose models code texts by their length, without torch; one text kills the process as long as a file is there."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

from curricle.registry import FamilyEntry

NOWHERE = "tests.kfp_pipelines.toy_coder:nothing"
ENTRY = FamilyEntry(
    title="lengths of texts", config=NOWHERE, fingerprint=NOWHERE, prepare=NOWHERE, build=NOWHERE, evaluate=NOWHERE,
    use="tests.kfp_pipelines.toy_coder:Toy", verbs=("assign",), headlines=("x",), columns=(),
)  # fmt: skip
DEADLY, FILE = "deadly", Path("deadly")


class Toy:
    """Notes what it is asked in a file."""

    def __init__(self, folder, data_dir):
        del folder, data_dir

    def assign(self, texts, top):
        if DEADLY in texts and FILE.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        with open("asked", "a") as file:
            file.writelines(f"{text}\n" for text in texts)
        return [[SimpleNamespace(code=str(len(text)), title="length", confidence=0.5)] * top for text in texts]

    def explain(self, texts, hits):
        return [[None]] * len(texts)

    def sureness(self, max_error):
        return max_error, 1.0, 100
