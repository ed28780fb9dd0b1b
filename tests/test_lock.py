"""The lock pins everything that pyproject.toml asks for; the images are built from it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def names(lines):
    return {
        re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-")
        for line in lines
        if line and not line.startswith("#")
    }


def test_every_requirement_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = names(
        [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    ) - {"curricle"}
    assert asked <= names((ROOT / "requirements.lock").read_text().splitlines())


def test_what_only_the_cuda_build_needs_is_pinned_beside_it():
    cuda, lock = ((ROOT / name).read_text().splitlines() for name in ("images/trainer/cuda.lock", "requirements.lock"))
    assert "triton" in names(cuda) and not names(cuda) & names(lock)
