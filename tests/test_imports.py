"""Imports point downwards, and heavy libraries stay in their rooms."""

import ast
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from curricle.launch import LAUNCHERS
from curricle.registry import FAMILIES

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "kfp_pipelines").rglob("*.py"))

ROOMS = {
    "torch": ("curricle/training/", "curricle/families/", "curricle/launch/agent.py"),
    "kfp": ("kfp_pipelines/",),
    "kubernetes": ("curricle/launch/kubernetes/api.py",),
    "torchx": (
        "curricle/launch/local.py",
        "curricle/launch/kubernetes/scheduler.py",
        "torchx_plugins/schedulers/",
    ),
    "minio": ("curricle/store/",),
    "fastapi": ("curricle/serve/",),
    "starlette": ("curricle/serve/",),
    "uvicorn": ("curricle/serve/",),
    "prometheus_client": ("curricle/serve/",),
}
KUBERNETES = ("curricle/launch/kubernetes/", "torchx_plugins/", "kfp_pipelines/failures.py")
"""Who may know that a cluster is one of Kubernetes; `failures` reads the settings that component pods are given."""
MAY = {  # room → rooms it may import, beside itself
    "environment": set(),
    "masking": {"environment"},
    "errors": {"masking"},
    "registry": {"errors"},
    "tables": {"errors", "masking"},
    "sections": set(),
    "markdown": set(),
    "cards": {"errors", "config", "store", "markdown", "sections"},
    "config": {"errors", "masking", "registry"},
    "store": {"errors", "environment", "masking"},
    "planning": {"errors", "registry", "config", "store"},
    "training": {"errors", "environment", "masking", "registry", "config", "store"},
    "hyperbolic": set(),
    "families": {"errors", "registry", "config", "store", "tables", "training", "sections", "cards", "hyperbolic"},
    "launch": {"errors", "environment", "masking", "config", "store"},
    "steps": {
        *("errors", "environment", "masking", "registry", "config"),
        *("store", "planning", "tables", "training", "launch", "cards", "markdown"),
    },
    "serve": {"errors", "registry", "store", "tables", "sections", "steps", "report"},
    "report": {"errors", "masking", "registry", "config", "store", "planning", "sections", "steps", "cards"},
    "api": {"errors", "config", "planning", "training", "launch", "steps"},
    "ner": {"families", "steps"},
    "cli": {
        "errors",
        "environment",
        "masking",
        "registry",
        "config",
        "store",
        "planning",
        "training",
        "launch",
        "steps",
        "report",
        "serve",
    },
}
OF_A_FAMILY = (
    "curricle/families/",
    "curricle/registry.py",
    "curricle/__init__.py",
    "curricle/ner.py",
    "curricle/cli/ner.py",
)
"""Who may name a family: itself, the registry, the public API, and the command's family verbs."""


def name_of(path: Path) -> str:
    text = path.as_posix()
    return text.partition("/src/")[2] or text[text.index("kfp_pipelines/") :]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("library", ROOMS)
def test_a_heavy_library_is_imported_only_in_its_room(library):
    users = [name_of(p) for p in SOURCES if library in {n.partition(".")[0] for n in imported(p)}]
    assert [u for u in users if not u.startswith(ROOMS[library])] == []


def test_rooms_import_downwards_only():
    wrong = []
    for path in SOURCES:
        name = name_of(path)
        room = name.removeprefix("curricle/").partition("/")[0].removesuffix(".py")
        if not name.startswith("curricle/") or name in ("curricle/__init__.py", "curricle/cli/ner.py"):
            continue
        for target in imported(path):
            parts = target.split(".")
            known = parts[0] == "curricle" and len(parts) > 1 and parts[1] in MAY
            if known and parts[1] not in MAY[room] | {room}:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_nothing_above_the_families_names_one():
    wrong = []
    for path in SOURCES:
        name = name_of(path)
        if name.startswith(OF_A_FAMILY):
            continue
        wrong += [f"{name} imports {t}" for t in imported(path) if t.startswith("curricle.families.")]
        verbs = name == "curricle/cli/__init__.py"  # names of verbs, one of which is called as its family
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in FAMILIES and not verbs:
                wrong.append(f"{name}:{node.lineno} says {node.value!r}")
    assert wrong == []


def test_only_launchers_know_where_a_job_runs():
    """No step, command or component decides by the name of a launcher of a cluster; it asks the launcher."""
    elsewhere = set(LAUNCHERS) - {"local", "auto"}  # "auto" is a start mode and a precision too
    wrong = []
    for path in SOURCES:
        name = name_of(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and not name.startswith("curricle/launch/"):
                constants = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                wrong += [f"{name}:{node.lineno}" for _ in elsewhere & constants]
        for target in imported(path):
            if target.startswith("curricle.launch.kubernetes") and not name.startswith(KUBERNETES):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_environment_variables_are_read_in_one_place():
    """No other file of ours touches the process's environment, whatever way Python offers."""
    ways = re.compile(r"\bos\.environb?\b|\b(get|put|unset)env\b|from os import .*\benviron")
    users = [name_of(path) for path in SOURCES if ways.search(path.read_text(encoding="utf-8"))]
    assert users == ["curricle/environment.py"]


def test_control_code_knows_what_a_worker_is_told_and_says_and_never_the_worker():
    """The control image has no torch: of `train` it needs the stage's file, the events, their pace and the pulse alone."""
    light = tuple(f"curricle.training.{name}" for name in ("spec", "events", "pace", "pulse"))
    wrong = [
        f"{name_of(path)} imports {target}"
        for path in SOURCES
        if not name_of(path).startswith(("curricle/training/", "curricle/families/"))
        for target in imported(path)
        if target.startswith("curricle.training.") and not target.startswith(light)
    ]
    assert wrong == []
    code = "import sys, curricle.steps.train, curricle.steps.relay, curricle.cli.look\nprint('LOADED', 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "LOADED False" in done.stdout, done.stdout + done.stderr


def test_families_do_not_know_each_other():
    families = [p.name for p in (ROOT / "src/curricle/families").iterdir() if p.is_dir() and p.name != "__pycache__"]
    for path in SOURCES:
        name = name_of(path)
        if name.startswith("curricle/families/") and name.count("/") > 2:
            own = name.split("/")[2]
            others = [
                t for t in imported(path) for f in families if f != own and t.startswith(f"curricle.families.{f}")
            ]
            assert others == [], name


@pytest.mark.parametrize("arguments", ["['--help']", "['plan', '--help']"])
def test_help_needs_no_heavy_library(arguments):
    code = (
        "import sys\nfrom curricle.cli import cli\n"
        f"try: cli.main({arguments}, standalone_mode=False)\nexcept SystemExit: pass\n"
        "print('LOADED', sorted({'torch','kfp','kubernetes','torchx','minio','mlflow','transformers','fastapi','uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_planning_a_chain_needs_no_heavy_library(tmp_path):
    code = (
        "import sys\nfrom curricle.cli import cli\n"
        f"cli.main(['plan', '--chain', 'chain_default', 'paths.store_uri={tmp_path}/store'], standalone_mode=False)\n"
        "print('LOADED', sorted({'torch','kfp','kubernetes','torchx','minio','mlflow','transformers','fastapi','uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "LOADED []" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "store").exists(), "plan must write nothing"


def test_the_torchx_that_works_beside_kfp_is_the_one_installed():
    assert distribution("torchx-nightly").version == "2026.10.26"
    with pytest.raises(PackageNotFoundError):
        distribution("torchx")
