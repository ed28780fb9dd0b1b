"""What runs inside the probe's pod: the store tried with the workers' credentials, and what the pod has. One marked line of JSON for the launcher."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from importlib.metadata import version

from curricle.errors import Finding
from curricle.launch.pytorchjob.preflight import MARK
from curricle.steps.preflight import check_store


def main(store_uri: str) -> None:
    """Print the findings; the exit code is 0 whatever they are, since the launcher reads them."""
    free = shutil.disk_usage("/tmp").free / 2**30
    findings = [
        Finding(
            "worker", True, f"curricle {version('curricle')}, torch {version('torch')}, {free:.0f} GiB free in /tmp"
        )
    ]
    findings += [Finding(f"store, worker: {f.name}", f.ok, f.detail, f.advice) for f in check_store(store_uri)]
    print(MARK + json.dumps([asdict(f) for f in findings]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
