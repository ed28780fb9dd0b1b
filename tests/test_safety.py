"""What was only data never runs, and nothing reaches a shell: held over the whole source, so that a new loader is noticed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "kfp_pipelines").rglob("*.py"))

LOADERS = {
    "from_pretrained": ("families/encoders.py",),
    "torch.load": ("training/checkpoint.py", "families/encoders.py"),
    "yaml.safe_load_all": ("kfp_pipelines/parameters.py",),
    "subprocess.Popen": ("launch/agent.py",),
}
"""Calls that read what may hold code, or start programs, and the only files that may have them."""
NEVER = (
    *("eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("pickle.load", "pickle.loads", "subprocess.run", "subprocess.call"),
    *("subprocess.check_output", "subprocess.getoutput", "tempfile.mktemp", "input", "__import__"),
)


def calls() -> list[tuple[str, str, ast.Call]]:
    """(file, called name, call) of every call in the source."""
    return [
        (path.as_posix(), ast.unparse(node.func), node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


@pytest.fixture(scope="module")
def made() -> list[tuple[str, str, ast.Call]]:
    return calls()


def test_what_may_run_code_is_called_in_its_one_place(made):
    for name, places in LOADERS.items():
        users = {file for file, called, _ in made if called == name or called.endswith(f".{name}")}
        assert users and not [file for file in users if not file.endswith(places)], name


def test_no_call_runs_text_or_asks_a_person(made):
    assert [(file, node.lineno, called) for file, called, node in made if called in NEVER] == []


def test_no_loader_is_told_to_trust(made):
    given = [(file, keyword.arg, ast.unparse(keyword.value)) for file, _, node in made for keyword in node.keywords]
    for file, name, value in given:
        assert name not in ("shell", "allow_pickle"), (file, name)
        if name in ("trust_remote_code", "weights_only"):
            assert value == ("True" if name == "weights_only" else "False"), (file, name, value)
    loads = [node for _, called, node in made if called == "torch.load"]
    assert loads and all("weights_only" in {keyword.arg for keyword in node.keywords} for node in loads)
