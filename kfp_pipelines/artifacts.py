"""What a component leaves for the run view: small manifests, numbers and pages. Takes KFP's artifact objects; imports no kfp."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_text(artifact: Any, text: str) -> None:
    """Make the artifact's file hold the text."""
    path = Path(artifact.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_page(artifact: Any, html: str) -> None:
    """The same for a page, under a name that ends in ``.html``: who downloads it opens it."""
    if not artifact.uri.endswith(".html"):
        artifact.uri += ".html"
    write_text(artifact, html)


def log_metrics(artifact: Any, metrics: Mapping[str, float]) -> None:
    """Log each number, in the order given. KFP keeps metadata as JSON, which knows no NaN and no infinity: such a value is printed, not logged."""
    for name, value in metrics.items():
        if math.isfinite(value):
            artifact.log_metric(name, round(float(value), 4) + 0.0)  # no negative zero
        else:
            print(f"metric {name} is {value}: not shown in the run view")


def publish_stage(outcome: Any, model: Any, metrics: Any, report: Any) -> str:
    """Fill a stage's three artifacts from its `StageOutcome`; the URI of the stage's result, which the next stage starts from.

    The model artifact is the manifest of its best checkpoint (kilobytes) with the lineage as metadata; the weights stay where training wrote them.
    """
    write_text(model, outcome.manifest or "{}")
    model.metadata.update({"stage_uri": outcome.uri, **outcome.lineage})
    log_metrics(metrics, outcome.metrics)
    write_page(report, outcome.html)
    return outcome.uri


def publish_evaluation(evaluation: Any, model: Any, metrics: Any, report: Any) -> str:
    """Fill an evaluation's three artifacts; its metrics as JSON text, which the gate reads."""
    write_text(model, evaluation.manifest or "{}")
    model.metadata.update(evaluation.lineage)
    log_metrics(metrics, evaluation.few)
    write_page(report, evaluation.html)
    return json.dumps(evaluation.metrics, sort_keys=True)


def task_settings(task_config: Any) -> dict[str, str]:
    """What was set on the KFP task (resources, env, tolerations, ...), as the `task_config` argument of `train_stage`.

    Empty when nothing was set, as under kfp.local. Keys as in Kubernetes' pod specification, values as JSON.
    """
    given = {name: value for name, value in sorted(vars(task_config).items()) if value}
    return {"task_config": json.dumps(given, sort_keys=True)} if given else {}


MAX_STAGES = 8
"""Stages of one compiled pipeline at most: Argo keeps a whole run in one object of 1.5 MiB."""


def modes_by_place(modes: list[str]) -> list[str]:
    """The planned modes, filled up with empty strings to the `MAX_STAGES` outputs of the plan component."""
    return [*modes, *[""] * (MAX_STAGES - len(modes))]
