"""The lock pins everything that pyproject.toml asks for, once for every Python that it allows; the images are built from it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")


def pins(name: str) -> list[Requirement]:
    """The lines of a lock file; whatever is no requirement, such as an index address, raises."""
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_to_one_version_that_it_allows(python):
    extras = PROJECT["optional-dependencies"].values()
    asked = [Requirement(line) for line in (*PROJECT["dependencies"], *(line for extra in extras for line in extra))]
    here = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    versions: dict[str, list[str]] = {}
    for pin in pins("requirements.lock"):
        if pin.marker is None or pin.marker.evaluate(here):
            versions.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    assert [name for name, found in versions.items() if len(found) > 1] == []
    wrong = [
        str(r)
        for r in asked
        if r.name != "curricle" and not r.specifier.contains(versions[canonicalize_name(r.name)][0])
    ]
    assert wrong == []


def test_what_only_the_cuda_build_needs_is_pinned_beside_it():
    cuda, lock = ({pin.name for pin in pins(name)} for name in ("images/trainer/cuda.lock", "requirements.lock"))
    assert {"triton", "nvidia-cublas"} <= cuda and not cuda & lock


def test_the_same_pythons_are_allowed_and_tested():
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [v for v in (f"3.{minor}" for minor in range(9, 16)) if allowed.contains(f"{v}.1")] == list(PYTHONS)
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["ci"]["strategy"]["matrix"]
    assert tuple(matrix["python"]) == PYTHONS


@pytest.mark.parametrize("version", ["", "3.10", "3.14"], ids=["none", "3.10", "3.14"])
def test_without_a_python_that_fits_make_says_what_to_install(version, tmp_path):
    python = tmp_path / "python"
    major, _, minor = version.partition(".")
    if version:  # a python that answers the question as that version would
        python.write_text(f'#!/bin/sh\necho "$2" | sed "s/sys.version_info/({major}, {minor})/" | {sys.executable} -\n')
        python.chmod(0o755)
    done = subprocess.run(
        ["make", "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
    )
    said = re.sub(r"make(\[\d+\])?: .*\n", "", done.stderr)
    assert done.returncode == 2 and said.count("\n") == 1, done.stderr
    assert f"no Python 3.11, 3.12 or 3.13 ({python} is none): install one" in said and "make PYTHON=" in said
