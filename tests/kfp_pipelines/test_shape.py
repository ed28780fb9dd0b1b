"""The shape of the compiled pipelines: a stage is one box with its name, two nodes come before its training, and the conditions still choose."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from curricle.cli import cli
from kfp_pipelines.parameters import read_documents
from kfp_pipelines.shape import graph, titles

ROOT = Path(__file__).parents[2]
COMPILED = ROOT / "kfp_pipelines/compiled"
PACKAGES = sorted(set(COMPILED.glob("*.yaml")) - {COMPILED / "assign.yaml"})  # which trains nothing


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.stem)
def test_every_stage_is_a_box_of_its_name_and_two_nodes_come_before_its_training(package):
    spec = read_documents(package)[0]
    told = graph(spec)
    assert (told.levels, told.before_training) == (3, 2)
    names = titles(spec)
    assert not [title for title in names.values() if title.startswith("condition")], names
    groups = [title for name, title in names.items() if name.startswith("condition-branches")]
    trained = {
        title.removeprefix("train ")
        for title in names.values()
        if title.startswith("train ") and "further" not in title
    }
    assert set(groups) == trained


def test_the_graph_is_told_as_text():
    done = CliRunner().invoke(cli, ["pipeline", "graph", str(COMPILED / "chain_smoke.yaml")])
    assert done.exit_code == 0
    assert done.output.startswith(
        "3 levels, 29 pods, 21 nodes in sequence; 2 nodes in sequence before a stage's training starts\n\nroot\n  chain"
    )
    lines = done.output.splitlines()
    at = lines.index("    01_stage  (condition-branches-2) after plan, resolve start")
    assert "      train 01_stage  (train-stage) [mode == 'scratch']" in lines[at + 1 : at + 4]


BRANCHES = """
import sys
from pathlib import Path
from kfp import components, dsl, local
from kfp_pipelines.compile import write

@dsl.component(install_kfp_package=False)
def decide(mode: str) -> str:
    return mode

@dsl.component(install_kfp_package=False)
def work(mode: str, what: str, model: dsl.Output[dsl.Model]) -> str:
    return f"{what} because {mode}"

@dsl.pipeline(name="branches")
def branches(mode: str) -> str:
    chosen = decide(mode=mode).output
    with dsl.If(chosen == "scratch", name="01"):
        a = work(mode=chosen, what="one")
    with dsl.Elif(chosen == "continued", name="01"):
        b = work(mode=chosen, what="two")
    with dsl.Else(name="01"):
        c = work(mode=chosen, what="three")
    return dsl.OneOf(a.outputs["Output"], b.outputs["Output"], c.outputs["Output"])

package = write(branches, Path("branches.yaml"))
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root="out")
for mode in ("scratch", "continued", "reuse"):
    print("GOT", components.load_component_from_file(str(package))(mode=mode).output)
"""


def test_a_condition_on_the_task_itself_chooses_the_same_branch(tmp_path):
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    (tmp_path / "run.py").write_text(BRANCHES)  # kfp reads a component's source
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "run.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    got = [line.removeprefix("GOT ") for line in done.stdout.splitlines() if line.startswith("GOT")]
    assert got == ["one because scratch", "two because continued", "three because reuse"], done.stderr
