"""The script that shows that the trainer image needs no network; here in the environment of the same lock, `tests/cluster/test_images.py` runs it in the image."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "images/offline.py").read_text(encoding="utf-8")


def python(code, *prefix, **more):
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", **more}
    return subprocess.run(
        [*prefix, sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment
    )


def test_a_library_that_looks_for_the_network_is_caught():
    hook = SCRIPT.replace("\nmain()\n", "\n")
    asks = "import urllib.request\ntry: urllib.request.urlopen('https://huggingface.co', timeout=1)\nexcept OSError as error: print(error)\nprint(tried)"
    done = python(f"{hook}\n{asks}", HTTPS_PROXY="", https_proxy="")
    assert "the network is off: huggingface.co" in done.stdout and "['huggingface.co']" in done.stdout, done.stderr


@pytest.mark.slow
def test_encoder_and_demo_data_need_no_network():
    """In a network namespace of its own, where the machine allows one: then the kernel itself has no way out."""
    apart = (
        ["unshare", "-rn"]
        if shutil.which("unshare") and not subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode
        else []
    )
    done = python(SCRIPT, *apart)
    assert done.returncode == 0 and "OFFLINE " in done.stdout and "384)" in done.stdout, done.stdout + done.stderr
