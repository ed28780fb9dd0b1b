"""Verbs of a chain: train, train-curriculum, plan, prepare, show."""

from __future__ import annotations

import json
import shlex
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.live import Live
from rich.markup import escape

from curricle.cli.extras import require
from curricle.cli.look import (
    Progress,
    console,
    finished_table,
    leave_standard_output,
    plan_table,
    run_table,
    runs_table,
    show_held,
    show_notes,
    show_verdict,
)
from curricle.cli.options import CONFIG, shipped
from curricle.config.chain import list_chains, list_curricula, load_chain, load_stage
from curricle.config.load import read_yaml
from curricle.config.schema import in_store
from curricle.errors import ConfigError, CurricleError
from curricle.launch import launchers, open_launcher
from curricle.planning import ChainPlan
from curricle.registry import family
from curricle.steps.attach import attach_stage
from curricle.steps.chain import ChainRequest, judge_chain, make_plan, run_chain
from curricle.steps.estimate import estimates
from curricle.steps.gate import DROP, GAIN, Verdict, parse_rule
from curricle.steps.prepare import prepare_data
from curricle.steps.show import describe_run, list_runs
from curricle.steps.train import check_nodes, job_of

DEFAULT_STAGES = ("01_stage", "02_stage", "03_stage", "04_stage", "05_stage")

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")


def _filled(context: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse an option that was given without a value, as by a variable of a script that is not set: it would count as not given."""
    given = context.get_parameter_source(option.name or "") is not click.core.ParameterSource.DEFAULT
    if given and not value.strip():
        raise click.BadParameter("is empty; leave the option out, or give it a value", context, option)
    return value


FROM = click.option(
    "--from-checkpoint",
    default="",
    metavar="STAGE|RUN|RUN/STAGE|PATH",
    callback=_filled,
    help="Start from the best checkpoint of a stage (over all runs), of a run's last stage, or from the one at a path or URI.",
)
RESUME = click.option(
    "--resume",
    type=bool,
    default=True,
    show_default=True,
    help="Skip complete stages and resume interrupted ones; false trains again.",
)
LAUNCHER = click.option(
    "--launcher", type=click.Choice(tuple(launchers())), default="local", show_default=True, help="Where jobs run."
)
EXPERIMENT = click.option(
    "--experiment",
    "-e",
    type=click.Path(path_type=Path),
    default=None,
    callback=shipped,
    help="Experiment file: data, model, training and search files that belong together.",
)
BACKBONE = click.option(
    "--backbone",
    default="",
    callback=_filled,
    help="Of an experiment: this one alone, of its backbones or of the files model/<backbone>.yaml.",
)
RUN_ID = click.option("--run-id", default="", callback=_filled, help="Name of the run; default sequential_<stages>.")


@click.command()
@click.option("--curriculum", "-c", default="", help="Stage to train, e.g. 01_stage.")
@EXPERIMENT
@BACKBONE
@click.option(
    "--stage",
    type=click.Choice(["all", "smoke", "hpo", "training", "benchmark"]),
    default="all",
    show_default=True,
    help="Of an experiment: all is its search, where it lists one, and its training.",
)
@click.option("--json", "as_json", is_flag=True, help="Of an experiment: print the result as JSON on standard output.")
@click.option("--list-curricula", is_flag=True, help="List the stages and chains there are, and exit.")
@CONFIG
@FROM
@RESUME
@LAUNCHER
@RUN_ID
@OVERRIDES
def train(
    curriculum: str,
    experiment: Path | None,
    backbone: str,
    stage: str,
    as_json: bool,
    list_curricula: bool,
    config: Path,
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Train one stage or one experiment, with dotted overrides such as training.learning_rate=1e-4."""
    if list_curricula:
        _list(config)
        return
    if bool(curriculum) == bool(experiment):
        raise click.UsageError("give either --curriculum NAME (--list-curricula shows the names) or --experiment FILE")
    if experiment:
        from curricle.cli.experiment import run_stages

        run_stages(experiment, stage, list(overrides), as_json=as_json, backbone=backbone, **options)
        return
    _only_for_experiments(backbone)
    _run(config, overrides, curricula=(curriculum,), **options)


CURRICULA = click.option(
    "--curricula", "-c", default="", metavar="A,B,C", help="Comma-separated stages; default 01_stage to 05_stage."
)
CHAIN = click.option(
    "--chain",
    default="",
    help="Chain file: a name under text_curriculum/ beside the base file, or a path. Goes before --curricula.",
)
GATE = click.option(
    "--gate",
    default=None,
    metavar="RULE",
    help="Promote the result where this holds of its test metrics, e.g. 'test/top1 >= 0.7'; default the chain file's own.",
)


@click.command()
@CURRICULA
@CHAIN
@CONFIG
@FROM
@RESUME
@GATE
@LAUNCHER
@RUN_ID
@OVERRIDES
def train_curriculum(curricula: str, chain: str, config: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Train stages one after another, each from the best checkpoint of the one before."""
    _run(config, overrides, chain=chain, curricula=_stages(curricula), **options)


@click.command()
@CURRICULA
@CHAIN
@EXPERIMENT
@BACKBONE
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--values/--no-values", default=True, show_default=True, help="Print every effective value with its origin."
)
@CONFIG
@FROM
@RESUME
@GATE
@LAUNCHER
@RUN_ID
@OVERRIDES
def plan(
    curricula: str,
    chain: str,
    experiment: Path | None,
    backbone: str,
    as_json: bool,
    values: bool,
    config: Path,
    overrides: tuple[str, ...],
    launcher: str,
    **options: Any,
) -> None:
    """Show the stages, their start modes and why, their digests, every value with its origin, and the argv. Runs nothing."""
    if experiment:
        _only_for_chains(
            chain=chain, curricula=curricula, from_checkpoint=options["from_checkpoint"], gate=options["gate"]
        )
        from curricle.steps.experiment import plan_experiments

        run_id, resume = options["run_id"], options["resume"]
        made = plan_experiments(experiment, list(overrides), backbone=backbone, run_id=run_id, resume=resume)
        plans, notes = [planned.plan for planned in made], [planned.notes for planned in made]
    else:
        _only_for_experiments(backbone)
        plans = [make_plan(_request(config, overrides, chain=chain, curricula=_stages(curricula), **options))]
        notes = [()]
    if as_json:
        texts = [planned.to_json() for planned in plans]
        click.echo(texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]")
        return
    jobs = [job_of(planned, stage) for planned in plans for stage in planned.stages if stage.trains]
    opened = open_launcher(launcher)
    for planned in plans:
        check_nodes(planned, opened)
    manifests = opened.manifests(jobs)
    if manifests:
        leave_standard_output()  # it holds the manifests alone: `... | kubectl apply --dry-run=server -f -`
    for planned, said in zip(plans, notes, strict=True):
        show_notes(said)
        plan_table(planned, values, expected=estimates(planned))
    click.echo(manifests.encode(), nl=False)


def _only_for_chains(**options: Any) -> None:
    """Refuse options of a chain beside --experiment: they would do nothing."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise click.UsageError(
            f"{', '.join(given)} cannot stand beside --experiment: an experiment names its stage, data and start in its files"
        )


def _only_for_experiments(backbone: str) -> None:
    """Refuse a backbone where no experiment is trained: it would do nothing."""
    if backbone:
        raise click.UsageError("--backbone is of --experiment FILE; a stage names its encoder in model.encoder")


@click.command()
@click.option("--curriculum", "-c", default="01_stage", show_default=True, help="Stage whose data to prepare.")
@CONFIG
@OVERRIDES
def prepare(curriculum: str, config: Path, overrides: tuple[str, ...]) -> None:
    """Prepare data and print its URI; nothing is prepared twice."""
    click.echo(prepare_data(load_stage(config, curriculum, list(overrides)).config))


@click.command()
@click.argument("run", default="")
@click.option("--store", "store_uri", default="checkpoints", show_default=True, help="Store of the runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help="Keep the table up to date until Ctrl-C (needs a terminal).")
def show(run: str, store_uri: str, as_json: bool, watch: bool) -> None:
    """Show all runs of a store, or one run with its stages, metrics and failures."""
    read = partial(describe_run, store_uri, run) if run else partial(list_runs, store_uri)
    if as_json:
        if watch:
            raise click.UsageError("--watch shows a table; leave out --json")
        click.echo(json.dumps(read(), indent=1))
        return
    table = run_table if run else partial(runs_table, store_uri=store_uri)
    if not watch:
        console.print(table(read()), highlight=False)
        return
    if not console.is_terminal:
        raise click.UsageError("--watch needs a terminal; without one, `curricle show` prints the table once")
    with Live(table(read()), console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            time.sleep(2)
            live.update(table(read()), refresh=True)


@click.command()
@click.argument("run")
@click.argument("stage", default="")
@click.option("--store", default="checkpoints", show_default=True, help="Store of the runs.")
@click.option(
    "--launcher",
    type=click.Choice(tuple(launchers())),
    default="pytorchjob",
    show_default=True,
    help="Where the job runs.",
)
def attach(run: str, stage: str, store: str, launcher: str) -> None:
    """Follow the job of a run's stage that was started elsewhere; stopping this (Ctrl-C) leaves the job running.

    Without STAGE the one under way is followed. Exit code 0 when the job succeeded, else its own.
    """
    with Progress() as progress:
        followed, outcome = attach_stage(run, stage, store, open_launcher(launcher, None), progress)
    console.print(
        f"{followed.name}: {outcome.state} ({outcome.reason}) {outcome.message}".rstrip(), highlight=False, markup=False
    )
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


def _stages(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else DEFAULT_STAGES
    if not all(names):
        raise ConfigError(f"--curricula {text!r} has an empty name; give stages as 01_stage,02_stage")
    return names


def _request(config: Path, overrides: tuple[str, ...], **options: Any) -> ChainRequest:
    return ChainRequest(config=config, overrides=overrides, **options)


def _run(config: Path, overrides: tuple[str, ...], launcher: str, **options: Any) -> None:
    planned = make_plan(_request(config, overrides, **options))
    plan_table(planned, values=False, expected=estimates(planned))
    _execute(planned, launcher)


def _execute(planned: ChainPlan, launcher: str) -> None:
    if launcher == "local":
        require("torch")
    with Progress(log_of(planned)) as progress:
        outcomes = run_chain(planned, open_launcher(launcher), progress)
    last = outcomes[-1]
    console.print(f"\n[bold]done[/] {escape(planned.run_id)}: {escape(last.lineage.get('checkpoint_uri', last.uri))}")
    pairs = zip(planned.stages, outcomes, strict=True)
    finished_table([(stage.name, stage.start, made) for stage, made in pairs if stage.start != "skip"], progress.took)
    if judged := judge_chain(planned, last.uri):
        verdict = judged.verdict
        show_verdict(judged.scores, verdict)
        if verdict.bounds:
            rule = " and ".join(_bound(verdict, *condition) for condition in parse_rule(planned.gate))
            model = last.lineage.get("checkpoint_uri", last.uri)
            show_held(model, f"--gate {shlex.quote(rule)}", last.uri, planned.store_uri)
    leave_report(planned, last.uri)
    show_next(planned, last.uri)


def _bound(verdict: Verdict, metric: str, op: str, value: float) -> str:
    """One condition of a rule, as the model that was held would pass it."""
    wider = {GAIN: "min_gain", DROP: "max_drop"}.get(metric, "")
    return f"{metric} {op} {verdict.bounds.get(wider, value):g}"


def leave_report(plan: ChainPlan, uri: str) -> None:
    """Write the run's pages and say where they are."""
    from curricle.cli.report import leave_report as leave

    leave(plan.store_uri, plan.run_id, uri)


def show_next(plan: ChainPlan, uri: str) -> None:
    """Print what the result's figures mean, and the commands that people go on with."""
    entry = family(plan.stages[-1].family)
    store = in_store(plan.store_uri)
    model = shlex.quote("/".join(uri.split("/")[-2:]))
    for metric, meaning in entry.meanings.items():
        console.print(f"{metric}: {meaning}", style="dim", highlight=False, markup=False)
    asks = {
        "search": f'curricle search "TEXT" --model {model}{store}',
        "predict": f"curricle ner predict --model {shlex.quote(uri)} < texts.txt",
    }
    commands = [command for verb, command in asks.items() if verb in entry.verbs]
    commands += [f"curricle evaluate --model {model}{store}", f"curricle show {shlex.quote(plan.run_id)}{store}"]
    commands += [f"curricle report {shlex.quote(plan.run_id)}{store}"]
    console.print(f"next: {'; '.join(commands)}", highlight=False, markup=False, soft_wrap=True)


def log_of(plan: ChainPlan) -> Path:
    """The file that a run's progress and log lines go to."""
    return Path(plan.stages[0].config["paths"]["outputs_dir"]) / plan.run_id / "curricle.log"


def _list(config: Path) -> None:
    for name, path in list_curricula(config.parent):
        try:
            kind, place = str(read_yaml(path).tree.get("objective", "stage")), str(path)
        except CurricleError as error:
            kind, place = "unreadable", str(error)
        console.print(f"{name:<16} {kind:<12} {place}", highlight=False, markup=False)
    for name, _ in list_chains(config.parent):
        try:
            kind, said = "chain", " → ".join(stage.name for stage in load_chain(name, config.parent).chain.stages)
        except CurricleError as error:
            kind, said = "unreadable", str(error)
        console.print(f"{name:<16} {kind:<12} {said}", highlight=False, markup=False)
