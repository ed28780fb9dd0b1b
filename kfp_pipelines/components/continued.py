"""Components of continued training: combine, resolve, plan, compare, judge, publish. The stage itself is trained by those of `stage`."""

from typing import NamedTuple

from kfp import dsl

from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def preflight_continued(
    enabled: bool,
    experiment: str,
    backbone: str,
    new_dataset_path: str,
    old_dataset_path: str,
    strategy: str,
    overrides: str,
    checkpoint: str,
    allow_scratch: bool,
    store_uri: str,
    launcher: str,
    run_id: str,
    job_id: str,
    preflight_report: dsl.Output[dsl.Markdown],
) -> str:
    """Try what training will ask for before a GPU is asked for: experiment, data and start checkpoint, then store, rights, operator, queue, image.

    Args:
        enabled: false skips it.
        experiment: Experiment file, without its suffix.
        backbone: One of the experiment's, or of the files model/<backbone>.yaml; empty takes the first.
        new_dataset_path: Folder or store URI of the new data.
        old_dataset_path: Folder or store URI of the old data.
        strategy: combined, new_only or append.
        overrides: Dotted overrides of the configuration, separated by spaces.
        checkpoint: Stage name, path, store URI or MLflow run id; empty takes the newest published model.
        allow_scratch: Whether to start from the plain encoder where nothing is found.
        store_uri: Store that keeps data, runs and models.
        launcher: Where training runs.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        preflight_report: The verdict, what was found, and what to do.

    Returns:
        ready, or skipped.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors_continued import Setting, preflight
    from kfp_pipelines.failures import readable

    with readable("preflight", store_uri, run_id or job_id):
        if not enabled:
            write_text(preflight_report, "skipped: the parameter preflight is false")
            return "skipped"
        setting = Setting(experiment, backbone, new_dataset_path, old_dataset_path, strategy, overrides, store_uri)
        preflight(setting, checkpoint, allow_scratch, launcher, lambda text: write_text(preflight_report, text))
        return "ready"


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
    combination_report: dsl.Output[dsl.Markdown],
) -> str:
    """Combine old and new data: deterministic, without leaks, stored once per content.

    Args:
        experiment: Experiment file, without its suffix.
        backbone: One of the experiment's, or of the files model/<backbone>.yaml; empty takes the first.
        new_dataset_path: Folder or store URI of the new data.
        old_dataset_path: Folder or store URI of the old data.
        strategy: combined, new_only or append.
        overrides: Dotted overrides of the configuration, separated by spaces.
        store_uri: Store that keeps the combination.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        combination_report: What was read, kept and dropped.

    Returns:
        URI of the combination.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors_continued import Setting
    from kfp_pipelines.doors_continued import combine_data as step
    from kfp_pipelines.failures import readable

    with readable("combine data", store_uri, run_id or job_id):
        made = step(Setting(experiment, backbone, new_dataset_path, old_dataset_path, strategy, overrides, store_uri))
        write_text(combination_report, made.text)
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
        backbone: One of the experiment's, or of the files model/<backbone>.yaml; empty takes the first.
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
    registry: str,
    model_name: str,
    plan: dsl.Output[dsl.Markdown],
) -> NamedTuple("PlannedTraining", [("plan_uri", str), ("mode_1", str)]):
    """Decide before anything is trained: place, digest and start mode, with the reason.

    Args:
        experiment: Experiment file, without its suffix.
        backbone: One of the experiment's, or of the files model/<backbone>.yaml; empty takes the first.
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
        launcher: Where training runs: pytorchjob, trainjob, auto or local.
        registry: Where the model is registered, read before anything trains; empty for nowhere.
        model_name: Name of the registered model.
        plan: The plan, for reading.

    Returns:
        URI of the plan, and scratch, continued or reuse.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors import check_registry
    from kfp_pipelines.doors_continued import Setting, plan_training
    from kfp_pipelines.failures import readable

    with readable("plan", store_uri, run_id or job_id):
        check_registry(registry, model_name)
        setting = Setting(experiment, backbone, new_dataset_path, old_dataset_path, strategy, overrides, store_uri)
        planned = plan_training(
            setting, data_uri=data_uri, start_uri=start_uri, resume=resume, run_id=run_id or job_id, launcher=launcher
        )
        write_text(plan, planned.text)
        return (planned.plan_uri, planned.modes[0])


@dsl.component(base_image=TRAINER_IMAGE, install_kfp_package=False)
def measure_models(
    start_uri: str,
    uri: str,
    data_uri: str,
    min_gain: float,
    max_drop: float,
    store_uri: str,
    run_id: str,
    job_id: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    evaluation_report: dsl.Output[dsl.HTML],
) -> str:
    """Measure the model and the one it came from on the old and the new domain.

    Args:
        start_uri: The checkpoint that was continued; empty for scratch.
        uri: The trained model.
        data_uri: The combination, with the test records of both domains.
        min_gain: The new domain's score rises by at least this (0 to 1), by the gate.
        max_drop: The old domain's score falls by at most this (0 to 1), by the gate.
        store_uri: Store that keeps runs and checkpoints.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        model: The manifest of the checkpoint that was measured, with its lineage.
        metrics: The headline's score by domain, before, after and the change.
        evaluation_report: The run's report: the gate's verdict, before and after, errors in their texts, and every measured value.

    Returns:
        The scores as JSON.
    """
    from kfp_pipelines.artifacts import publish_evaluation
    from kfp_pipelines.doors_continued import measure_models as step
    from kfp_pipelines.failures import readable

    with readable("measure old and new", store_uri, run_id or job_id):
        measured = step(start_uri, uri, data_uri, min_gain, max_drop, store_uri, run_id or job_id)
        publish_evaluation(measured, model, metrics, evaluation_report)
        return measured.scores


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def judge_forgetting(
    scores_json: str,
    min_gain: float,
    max_drop: float,
    store_uri: str,
    run_id: str,
    job_id: str,
    model: dsl.Input[dsl.Model],
    verdict: dsl.Output[dsl.Markdown],
) -> NamedTuple("Verdict", [("decision", str), ("reason", str)]):
    """Promote if the new domain gained enough and the old one lost little enough.

    Args:
        scores_json: Scores by domain before and after, as JSON.
        min_gain: The new domain's score rises by at least this (0 to 1).
        max_drop: The old domain's score falls by at most this (0 to 1).
        store_uri: Store that keeps runs and checkpoints.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        model: The measured model, as the evaluation registered it.
        verdict: The decision and its reasons.

    Returns:
        promote or hold, and why.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors_continued import gate_model as step
    from kfp_pipelines.failures import readable
    from kfp_pipelines.pages import verdict as page

    with readable("gate", store_uri, run_id or job_id):
        decided = step(scores_json, min_gain, max_drop, store_uri, run_id or job_id)
        print(f"{decided.decision}: {decided.reason}")
        write_text(verdict, page(decided))
        return (decided.decision, decided.reason)


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
    measured: dsl.Input[dsl.Model],
    model: dsl.Output[dsl.Model],
) -> str:
    """Copy a promoted model to where the next continued training starts; a held one stays where it is.

    Args:
        experiment: Experiment file, without its suffix.
        backbone: One of the experiment's, or of the files model/<backbone>.yaml; empty takes the first.
        overrides: Dotted overrides of the configuration, separated by spaces.
        store_uri: Store that keeps published models.
        decision: promote or hold.
        uri: The trained model.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        scores_json: Scores by domain before and after, as JSON.
        measured: The measured model, as the evaluation registered it.
        model: The manifest of the published model, or of the one that was held, with its scores.

    Returns:
        URI of the published model; empty when it was held.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors import describe_model
    from kfp_pipelines.doors_continued import Setting
    from kfp_pipelines.doors_continued import publish_model as step
    from kfp_pipelines.failures import readable

    with readable("publish", store_uri, run_id or job_id):
        setting = Setting(experiment, backbone, "", "", "", overrides, store_uri)
        published = step(setting, uri, run_id or job_id, scores_json) if decision == "promote" else ""
        print(f"published as {published}" if published else f"not published; the model stays at {uri}")
        facts = describe_model(published or uri)
        write_text(model, facts.manifest)
        model.metadata.update({**facts.lineage, "published": "yes" if published else "no", "scores": scores_json})
        return published
