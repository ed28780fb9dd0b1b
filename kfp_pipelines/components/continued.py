"""Components of continued training: combine, resolve, plan, compare, judge, publish. The stage itself is trained by those of `stage`."""

from typing import NamedTuple

from kfp import dsl

from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def combine_data(
    experiment: str,
    backbone: str,
    new_dataset_path: str,
    old_dataset_path: str,
    strategy: str,
    overrides: str,
    store_uri: str,
    run_id: str,
    job_id: str,
    report: dsl.Output[dsl.Markdown],
) -> str:
    """Combine old and new data: deterministic, without leaks, stored once per content.

    Args:
        experiment: Experiment file, without its suffix.
        backbone: One of the experiment's; empty takes the first.
        new_dataset_path: Folder or store URI of the new data.
        old_dataset_path: Folder or store URI of the old data.
        strategy: combined, new_only or append.
        overrides: Dotted overrides of the configuration, separated by spaces.
        store_uri: Store that keeps the combination.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        report: What was read, kept and dropped.

    Returns:
        URI of the combination.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors_continued import Setting
    from kfp_pipelines.doors_continued import combine_data as step
    from kfp_pipelines.failures import readable

    with readable("combine data", store_uri, run_id or job_id):
        made = step(Setting(experiment, backbone, new_dataset_path, old_dataset_path, strategy, overrides, store_uri))
        write_text(report, made.table)
        return made.uri


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def resolve_checkpoint(
    experiment: str,
    backbone: str,
    overrides: str,
    checkpoint: str,
    allow_scratch: bool,
    store_uri: str,
    run_id: str,
    job_id: str,
) -> str:
    """Find the checkpoint to continue from and check its files.

    Args:
        experiment: Experiment file, without its suffix.
        backbone: One of the experiment's; empty takes the first.
        overrides: Dotted overrides of the configuration, separated by spaces.
        checkpoint: Stage name, path, store URI or MLflow run id; empty takes the newest published model.
        allow_scratch: Whether to start from the plain encoder where nothing is found.
        store_uri: Store that is searched.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.

    Returns:
        URI of the checkpoint; empty for scratch.
    """
    from kfp_pipelines.doors_continued import Setting
    from kfp_pipelines.doors_continued import resolve_checkpoint as step
    from kfp_pipelines.failures import readable

    with readable("resolve checkpoint", store_uri, run_id or job_id):
        setting = Setting(experiment, backbone, "", "", "", overrides, store_uri)
        start = step(setting, checkpoint, allow_scratch)
        print(start.reason)
        return start.uri


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def plan_continued(
    experiment: str,
    backbone: str,
    new_dataset_path: str,
    old_dataset_path: str,
    strategy: str,
    overrides: str,
    store_uri: str,
    data_uri: str,
    start_uri: str,
    resume: bool,
    run_id: str,
    job_id: str,
    launcher: str,
    table: dsl.Output[dsl.Markdown],
) -> NamedTuple("PlannedTraining", [("plan_uri", str), ("mode_1", str)]):
    """Decide before anything is trained: place, digest and start mode, with the reason.

    Args:
        experiment: Experiment file, without its suffix.
        backbone: One of the experiment's; empty takes the first.
        new_dataset_path: Folder or store URI of the new data.
        old_dataset_path: Folder or store URI of the old data.
        strategy: combined, new_only or append.
        overrides: Dotted overrides of the configuration, separated by spaces.
        store_uri: Store that keeps runs and checkpoints.
        data_uri: The combination.
        start_uri: Checkpoint to continue from; empty for scratch.
        resume: Whether a complete training is reused and an interrupted one resumed.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        launcher: Where training runs, local or pytorchjob.
        table: The plan, for reading.

    Returns:
        URI of the plan, and scratch, continued or reuse.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors_continued import Setting, plan_training
    from kfp_pipelines.failures import readable

    with readable("plan", store_uri, run_id or job_id):
        setting = Setting(experiment, backbone, new_dataset_path, old_dataset_path, strategy, overrides, store_uri)
        planned = plan_training(
            setting, data_uri=data_uri, start_uri=start_uri, resume=resume, run_id=run_id or job_id, launcher=launcher
        )
        write_text(table, planned.table)
        return (planned.plan_uri, planned.modes[0])


@dsl.component(base_image=TRAINER_IMAGE, install_kfp_package=False)
def measure_models(
    start_uri: str, uri: str, data_uri: str, metrics: dsl.Output[dsl.Metrics], report: dsl.Output[dsl.HTML]
) -> str:
    """Measure the model and the one it came from on the old and the new domain.

    Args:
        start_uri: The checkpoint that was continued; empty for scratch.
        uri: The trained model.
        data_uri: The combination, with the test records of both domains.
        metrics: Scores by domain, before and after.
        report: Their page.

    Returns:
        The scores as JSON.
    """
    from kfp_pipelines.artifacts import log_metrics, write_text
    from kfp_pipelines.doors_continued import measure_models as step
    from kfp_pipelines.doors_continued import scores_json
    from kfp_pipelines.failures import readable

    with readable():
        scores, html = step(start_uri, uri, data_uri)
        log_metrics(metrics, {f"before/{name}": value for name, value in scores.before.items()} | scores.metrics)
        write_text(report, html)
        return scores_json(scores)


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def judge_forgetting(scores_json: str, min_gain: float, max_drop: float) -> NamedTuple(
    "Verdict", [("decision", str), ("reason", str)]
):
    """Promote if the new domain gained enough and the old one lost little enough.

    Args:
        scores_json: Scores by domain before and after, as JSON.
        min_gain: The new domain's score rises by at least this (0 to 1).
        max_drop: The old domain's score falls by at most this (0 to 1).

    Returns:
        promote or hold, and why.
    """
    from kfp_pipelines.doors_continued import judge
    from kfp_pipelines.failures import readable

    with readable():
        verdict = judge(scores_json, min_gain, max_drop)
        print(f"{verdict.decision}: {verdict.reason}")
        return (verdict.decision, verdict.reason)


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def publish_model(
    experiment: str,
    backbone: str,
    overrides: str,
    store_uri: str,
    decision: str,
    uri: str,
    run_id: str,
    job_id: str,
    scores_json: str,
    model: dsl.Output[dsl.Model],
) -> str:
    """Copy a promoted model to where the next continued training starts; a held one stays where it is.

    Args:
        experiment: Experiment file, without its suffix.
        backbone: One of the experiment's; empty takes the first.
        overrides: Dotted overrides of the configuration, separated by spaces.
        store_uri: Store that keeps published models.
        decision: promote or hold.
        uri: The trained model.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        scores_json: Scores by domain before and after, as JSON.
        model: Where the model is, with its scores.

    Returns:
        URI of the published model; empty when it was held.
    """
    import json

    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors_continued import Setting
    from kfp_pipelines.doors_continued import publish_model as step
    from kfp_pipelines.failures import readable

    with readable("publish", store_uri, run_id or job_id):
        setting = Setting(experiment, backbone, "", "", "", overrides, store_uri)
        published = step(setting, uri, run_id or job_id, scores_json) if decision == "promote" else ""
        print(f"published as {published}" if published else f"not published; the model stays at {uri}")
        write_text(model, json.dumps({"uri": published}))
        model.metadata.update({"checkpoint_uri": published, "scores": scores_json})
        return published
