"""A compiled pipeline that fails on this machine: readable, exit code 2, and the exit handler has run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_failing_run_says_why_and_cleans_up(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    arguments = [
        "pipeline",
        "run",
        "--local",
        str(ROOT / "kfp_pipelines/compiled/chain_smoke.yaml"),
        "run_id=r1",
        "from_checkpoint=09_stage",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "from curricle.cli import main; main()", *arguments],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "no complete checkpoint of stage '09_stage'" in said
    assert "Traceback" not in done.stderr
    *_, last = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert last.startswith("error: chain_smoke.yaml: resolve start failed: ") and "None" not in last
    final = json.loads((tmp_path / "checkpoints/r1/final.json").read_text())
    assert final["status"] == "FAILED"
