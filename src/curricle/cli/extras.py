"""Which extra brings a library that is not installed. Read from the installed package's own requirements."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

MODULES = {
    "scikit-learn": "sklearn",
    "mlflow-skinny": "mlflow",
    "torchx-nightly": "torchx",
    "kfp-kubernetes": "kfp.kubernetes",
}
"""Distributions whose module has another name than they have."""
REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+)[^;]*;.*\bextra\s*==\s*["']([^"']+)["']""")


def extra_of(module: str) -> str:
    """The extra that brings `module` (the dotted name of a failed import); empty when none does."""
    extras = _extras()
    parts = module.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((extras[name] for name in names if name in extras), "")


def require(module: str) -> None:
    """Fail here, where the extra can be named, for what only a process of its own would import.

    Raises:
        ModuleNotFoundError: `module` is not installed.
    """
    if find_spec(module) is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _extras() -> dict[str, str]:
    """Per module the first extra that asks for it."""
    try:
        requirements = requires("curricle") or []
    except PackageNotFoundError:  # the source alone, never installed
        return {}
    extras: dict[str, str] = {}
    for match in filter(None, map(REQUIREMENT.match, requirements)):
        distribution, extra = match[1].lower(), match[2]
        if distribution != "curricle":  # an extra made of other extras
            extras.setdefault(MODULES.get(distribution, re.sub("[-.]", "_", distribution)), extra)
    return extras
