"""Imports point downwards, and heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from curricle.launch import LAUNCHERS

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "kfp_pipelines").rglob("*.py"))

ROOMS = {
    "torch": ("curricle/train/", "curricle/families/", "curricle/launch/agent.py"),
    "kfp": ("kfp_pipelines/",),
    "kubernetes": ("curricle/launch/kubernetes/api.py",),
    "torchx": (
        "curricle/launch/local.py",
        "curricle/launch/kubernetes/scheduler.py",
        "torchx_plugins/schedulers/pytorchjob.py",
    ),
    "minio": ("curricle/store/",),
}
KUBERNETES = ("curricle/launch/kubernetes/", "torchx_plugins/", "kfp_pipelines/failures.py")
"""Who may know that a cluster is one of Kubernetes; `failures` reads the settings that component pods are given."""
ORDER = ["errors", "config", "store", "plan", "families", "train", "launch", "steps", "cli"]
MAY = {  # room → rooms it may import, beside itself
    "errors": set(),
    "config": {"errors", "families"},  # the registry, which holds names only
    "store": {"errors"},
    "plan": {"errors", "config", "store"},
    "families": {"errors", "config", "store", "plan", "train"},
    "train": {"errors", "config", "store", "plan", "families"},
    "launch": {"errors", "store", "config"},
    "steps": {"errors", "config", "store", "plan", "families", "launch", "train"},
    "cli": {"errors", "config", "store", "plan", "families", "launch", "train", "steps"},
}


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
        if not name.startswith("curricle/"):
            continue
        room = name.removeprefix("curricle/").partition("/")[0].removesuffix(".py")
        if room not in MAY:
            continue
        for target in imported(path):
            parts = target.split(".")
            if (
                parts[0] == "curricle"
                and len(parts) > 1
                and parts[1] in MAY
                and parts[1] != room
                and parts[1] not in MAY[room]
            ):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_only_launchers_know_where_a_job_runs():
    """No step, command or component decides by the name of a launcher of a cluster; it asks the launcher."""
    elsewhere = set(LAUNCHERS) - {"local"}
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


def test_control_code_knows_what_a_worker_is_told_and_says_and_never_the_worker():
    """The control image has no torch: of `train` it needs the stage's file and the events alone."""
    light = ("curricle.train.spec", "curricle.train.events")
    wrong = [
        f"{name_of(path)} imports {target}"
        for path in SOURCES
        if not name_of(path).startswith(("curricle/train/", "curricle/families/"))
        for target in imported(path)
        if target.startswith("curricle.train.") and not target.startswith(light)
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
        "print('LOADED', sorted({'torch','kfp','kubernetes','torchx','minio','mlflow','transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "LOADED []" in done.stdout, done.stdout + done.stderr


def test_planning_a_chain_needs_no_heavy_library(tmp_path):
    code = (
        "import sys\nfrom curricle.cli import cli\n"
        f"cli.main(['plan', '--chain', 'chain_default', 'paths.store_uri={tmp_path}/store'], standalone_mode=False)\n"
        "print('LOADED', sorted({'torch','kfp','kubernetes','torchx','minio','mlflow','transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "LOADED []" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "store").exists(), "plan must write nothing"


def test_the_torchx_that_works_beside_kfp_is_the_one_installed():
    assert distribution("torchx-nightly").version == "2026.10.26"
    with pytest.raises(PackageNotFoundError):
        distribution("torchx")
