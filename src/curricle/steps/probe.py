"""What runs inside the probe's pod: the store tried with the workers' credentials, and what the pod has. One marked line of JSON for the launcher."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from importlib.metadata import version

from curricle.errors import Finding
from curricle.launch.probe import findings_line
from curricle.steps.preflight import check_store


def main(store_uri: str) -> None:
    """Print the findings; the exit code is 0 whatever they are, since the launcher reads them."""
    free = shutil.disk_usage("/tmp").free / 2**30
    findings = [
        Finding(
            "worker", True, f"curricle {version('curricle')}, torch {version('torch')}, {free:.0f} GiB free in /tmp"
        )
    ]
    findings += [
        dataclasses.replace(finding, name=f"store, worker: {finding.name}") for finding in check_store(store_uri)
    ]
    print(findings_line(findings), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
