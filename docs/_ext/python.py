"""The reference of the Python interface: what `curricle` and `curricle.ner` offer, and the geometry, by Sphinx' autodoc."""

from __future__ import annotations

import inspect

import curricle
import curricle.ner

GEOMETRY = "curricle.families.codes.geometry"


def _directive(kind: str, name: str, *options: str) -> str:
    return "\n".join(["```{eval-rst}", f".. auto{kind}:: {name}", *(f"   :{option}:" for option in options), "```", ""])


def _one(module: str, name: str, value: object) -> str:
    if inspect.isclass(value) and issubclass(value, BaseException):
        return _directive("exception", f"{module}.{name}", "show-inheritance")
    if inspect.isclass(value):
        return _directive("class", f"{module}.{name}", "members")
    return _directive("function", f"{module}.{name}")


def page() -> str:
    """Functions and classes first, then errors; `curricle.ner`; geometry."""
    offered = {name: getattr(curricle, name) for name in curricle.__all__}
    errors = [name for name, value in offered.items() if inspect.isclass(value) and issubclass(value, BaseException)]
    order = ["train", "train_chain", "plan", "open_model", "Model"]
    order += [name for name in offered if name not in (*order, *errors)]
    parts = ["## curricle", "", *(_one("curricle", name, offered[name]) for name in order)]
    parts += ["## Errors", "", *(_one("curricle", name, offered[name]) for name in errors)]
    ner = [name for name in curricle.ner.__all__ if name not in offered]
    parts += [
        "## curricle.ner",
        "",
        f"It also offers {', '.join(f'`{name}`' for name in curricle.ner.__all__ if name in offered)}, as `curricle` does.",
        "",
        *(_one("curricle.ner", name, getattr(curricle.ner, name)) for name in ner),
        "## Geometry",
        "",
        _directive("module", GEOMETRY, "members"),
    ]
    return "\n".join(parts)
