"""Run a compiled pipeline on this machine by kfp.local: the very YAML that Kubeflow runs, no Docker, no cluster."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curricle import environment
from curricle.errors import PipelineError, StoreError
from curricle.steps.relay import RunReader
from kfp_pipelines.parameters import compiled, parse, read_documents, read_parameters

LOCAL = {"launcher": "local", "store_uri": "checkpoints"}
"""What a local run takes for parameters that are not given, where the pipeline's own defaults name a cluster."""


@dataclass(frozen=True)
class LocalRun:
    """A finished local run."""

    parameters: dict[str, Any]
    root: Path
    """Folder of the run's artifacts: metrics, pages, manifests."""


def run_local(package: Path, texts: list[str], root: Path) -> LocalRun:
    """Run a compiled pipeline in subprocesses of this interpreter, from the working folder.

    Args:
        package: compiled YAML.
        texts: ``name=value`` parameters.
        root: folder for KFP's artifacts; made when missing.

    Raises:
        PipelineError: wrong parameters, a folder `docker` in the working folder, or a task failed (its reason is in the log above).
    """
    package = compiled(package)
    known = read_parameters(package)
    given = parse(texts, known)
    parameters = {name: value for name, value in LOCAL.items() if name in known} | given
    if Path("docker").is_dir():
        raise PipelineError(
            "a folder named `docker` in the working folder hides the package that kfp.local imports; run from another folder"
        )
    root.mkdir(parents=True, exist_ok=True)
    shown = ", ".join(f"{name}={value}" for name, value in parameters.items())
    print(f"local run of {package}: {shown}", file=sys.stderr)
    reader = _reader(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp.local warns of every display name it cannot show
        from kfp import components, local

        environment.put_first_on_python_path(Path(__file__).parents[1])
        local.init(
            runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root.resolve()), raise_on_error=True
        )
        try:
            components.load_component_from_text(_tried_once(package))(**parameters)
        except RuntimeError as error:
            raise PipelineError(f"{package.name}: {_reason(reader, error)}") from None
    return LocalRun(parameters, root)


def _tried_once(package: Path) -> str:
    """The pipeline without retries: those are for lost nodes, and here a second try would fail as the first did."""
    documents = read_documents(package)
    for component in documents[0].get("components", {}).values():
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    return yaml.safe_dump_all(documents, sort_keys=False)


def _reader(parameters: dict[str, Any]) -> RunReader | None:
    """A reader of what the run will leave in its store; None where run or store are not known, or the store cannot be read."""
    with suppress(StoreError):
        if parameters.get("run_id") and parameters.get("store_uri"):
            return RunReader(parameters["store_uri"], parameters["run_id"])
    return None


def _reason(reader: RunReader | None, error: RuntimeError) -> str:
    """Why a run failed: its failure records in the store, else what kfp.local says."""
    with suppress(StoreError):
        if reader and (failures := reader.failures()):
            return "; ".join(failure.sentence() for failure in failures)
    return f"{error} (the failing task's own message stands in the log above)"
