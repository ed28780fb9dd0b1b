"""What `curricle train --experiment` shows: notes, plan, progress, scores before and after, the decision."""

from __future__ import annotations

import json
from pathlib import Path

import click

from curricle.cli.chain import leave_report, log_of
from curricle.cli.extras import require
from curricle.cli.look import Progress, console, leave_standard_output, plan_table, show_held, show_notes, show_verdict
from curricle.config.experiment import OWN, backbones_of
from curricle.errors import ConfigError
from curricle.launch import open_launcher
from curricle.steps.estimate import estimates
from curricle.steps.experiment import Finished, plan_experiment, read_experiment, run_experiment, summary
from curricle.steps.latency import measure_latency
from curricle.steps.search import search_experiment


def run_stages(
    path: Path,
    stage: str,
    overrides: list[str],
    *,
    as_json: bool,
    from_checkpoint: str,
    resume: bool,
    launcher: str,
    run_id: str,
    backbone: str,
) -> None:
    """Run an experiment's stages for each of its backbones, or for the one named."""
    if from_checkpoint:
        raise ConfigError(
            "--from-checkpoint is of --curriculum; an experiment names its start in checkpoint.source_path, or set CHECKPOINT_PATH"
        )
    if launcher == "local":
        require("torch")
    experiment = read_experiment(path, overrides)
    if stage in ("smoke", "hpo") and getattr(experiment.stages, stage) is None and not experiment.hpo_config:
        raise ConfigError(f"{path} has neither stages.{stage} nor hpo_config")
    if as_json:
        leave_standard_output()
    results, backbones = [], backbones_of(experiment, path, backbone)
    for backbone in backbones:
        if stage == "benchmark":
            _latency(path, backbone, overrides)
            continue
        if stage in ("smoke", "hpo") or (stage == "all" and experiment.stages.hpo):
            with Progress() as progress:
                best = search_experiment(
                    path,
                    backbone,
                    overrides,
                    stage="smoke" if stage == "smoke" else "hpo",
                    launcher=open_launcher(launcher),
                    listen=progress,
                )
            failed = f" ({best['failed']} failed)" if best["failed"] else ""
            console.print(
                f"\n[bold]best[/] of {best['complete']} trials{failed}: {best['trial_name']} {best['hyperparameters']} "
                f"({best['selection_criteria']['metric']} {best['metrics']['objective_value']:.4f})",
                highlight=False,
            )
        if stage in ("smoke", "hpo"):
            continue
        planned = plan_experiment(path, backbone, overrides, run_id=run_id, resume=resume)
        show_notes(planned.notes)
        plan_table(planned.plan, values=False, expected=estimates(planned.plan))
        with Progress(log_of(planned.plan)) as progress:
            finished = run_experiment(planned, open_launcher(launcher), progress)
        _show(finished, planned.plan.store_uri)
        leave_report(planned.plan, finished.uri)
        results.append(summary(planned, finished))
    if as_json:
        click.echo(json.dumps(results, indent=1, sort_keys=True))


def _show(finished: Finished, store_uri: str) -> None:
    show_verdict(finished.scores, finished.verdict)
    if finished.folder:
        console.print(f"model: {finished.folder}", highlight=False, markup=False, soft_wrap=True)
    else:
        bounds = " ".join(f"{OWN}gate.{name}={value:g}" for name, value in finished.verdict.bounds.items())
        show_held(finished.uri, bounds, finished.uri, store_uri)


def _latency(path: Path, backbone: str, overrides: list[str]) -> None:
    target, result = measure_latency(path, backbone, overrides)
    for size, row in result["batch_sizes"].items():
        console.print(
            f"batch {size:>3}: {row['mean_ms']:8.2f} ms  p95 {row['p95_ms']:8.2f} ms  {row['texts_per_second']:8.1f} texts/s",
            highlight=False,
        )
    console.print(f"written to {target}", highlight=False, markup=False)
