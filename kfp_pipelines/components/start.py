"""Components before the first stage: prepare the data, find the checkpoint to start from, plan the chain."""

from typing import NamedTuple

from kfp import dsl

from kfp_pipelines import CONTROL_IMAGE


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def prepare_data(
    config: str, chain: str, data_key: str, data_source: str, overrides: str, store_uri: str, run_id: str, job_id: str
) -> str:
    """Read the raw data, check it and store it in its prepared form, once per content.

    Args:
        config: Base file of the configuration.
        chain: Name of the chain that this pipeline was compiled from.
        data_key: Setting that data_source is the value of.
        data_source: The raw data; empty takes what the configuration names.
        overrides: Dotted overrides of the configuration, separated by spaces.
        store_uri: Store that keeps the prepared data.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.

    Returns:
        URI of the prepared data; one a stage, separated by spaces, where the stages differ.
    """
    from kfp_pipelines.doors import prepare_data as step
    from kfp_pipelines.failures import readable

    with readable("prepare data", store_uri, run_id or job_id):
        return step(config, chain, data_key, data_source, overrides, store_uri)


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def preflight(
    enabled: bool, store_uri: str, launcher: str, run_id: str, job_id: str, preflight_report: dsl.Output[dsl.Markdown]
) -> str:
    """Try what training will ask for before a GPU is asked for: store, rights, operator, queue, image, with the workers' own credentials.

    Args:
        enabled: false skips it.
        store_uri: Store that keeps runs and checkpoints.
        launcher: Where training runs: pytorchjob, trainjob, auto or local.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        preflight_report: The verdict, what was found, and what to do.

    Returns:
        ready, or skipped.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors import preflight as step
    from kfp_pipelines.failures import readable

    with readable("preflight", store_uri, run_id or job_id):
        if not enabled:
            write_text(preflight_report, "skipped: the parameter preflight is false")
            return "skipped"
        step(store_uri, launcher, lambda text: write_text(preflight_report, text))
        return "ready"


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def resolve_start(from_checkpoint: str, store_uri: str, stage: str, run_id: str, job_id: str) -> str:
    """Find the checkpoint that the chain starts from.

    Args:
        from_checkpoint: Stage name, path or URI of a checkpoint; empty starts from nothing.
        store_uri: Store that is searched for the best checkpoint of a stage.
        stage: First stage of the chain.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.

    Returns:
        URI of the checkpoint; empty when none was asked for.
    """
    from kfp_pipelines.doors import resolve_start as step
    from kfp_pipelines.failures import readable

    with readable("resolve start", store_uri, run_id or job_id):
        start = step(from_checkpoint, store_uri, stage)
        print(start.reason)
        return start.uri


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def plan_chain(
    config: str,
    chain: str,
    stages: str,
    data_key: str,
    data_source: str,
    overrides: str,
    store_uri: str,
    data_uri: str,
    start_uri: str,
    start_mode: str,
    resume: bool,
    run_id: str,
    job_id: str,
    launcher: str,
    gate_rule: str,
    registry: str,
    model_name: str,
    plan: dsl.Output[dsl.Markdown],
) -> NamedTuple(
    "PlannedChain",
    [("plan_uri", str), ("mode_1", str), ("mode_2", str), ("mode_3", str), ("mode_4", str)]
    + [("mode_5", str), ("mode_6", str), ("mode_7", str), ("mode_8", str)],
):
    """Decide everything before anything runs: each stage's place, digest and start mode, with the reason.

    Args:
        config: Base file of the configuration.
        chain: Name of the chain that this pipeline was compiled from.
        stages: all, or the names of the stages to run, separated by commas.
        data_key: Setting that data_source is the value of.
        data_source: The raw data; empty takes what the configuration names.
        overrides: Dotted overrides of the configuration, separated by spaces.
        store_uri: Store that keeps runs and checkpoints.
        data_uri: Prepared data; one a stage, separated by spaces, where the stages differ.
        start_uri: Checkpoint that the first stage starts from; empty for none.
        start_mode: auto, scratch or continued.
        resume: Whether complete stages are reused and interrupted ones resumed.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        launcher: Where training runs: pytorchjob, trainjob, auto or local.
        gate_rule: Condition for promoting the result, read before anything trains.
        registry: Where the model is registered, read before anything trains; empty for nowhere.
        model_name: Name of the registered model.
        plan: The plan, for reading.

    Returns:
        URI of the plan, and per stage scratch, continued, reuse or skip.
    """
    from kfp_pipelines.artifacts import modes_by_place, write_text
    from kfp_pipelines.doors import check_registry, plan_run
    from kfp_pipelines.failures import readable

    with readable("plan", store_uri, run_id or job_id):
        check_registry(registry, model_name)
        planned = plan_run(
            config=config, chain=chain, stages=stages, data_key=data_key, data_source=data_source, overrides=overrides,
            store_uri=store_uri, data_uri=data_uri, start_uri=start_uri, start_mode=start_mode, resume=resume,
            run_id=run_id or job_id, launcher=launcher, gate_rule=gate_rule,
        )  # fmt: skip
        write_text(plan, planned.text)
        return (planned.plan_uri, *modes_by_place(planned.modes))
