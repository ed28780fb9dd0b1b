"""Components after the last stage: evaluate the result, decide on promotion, clean up whatever happened."""

from typing import NamedTuple

from kfp import dsl

from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE


@dsl.component(base_image=TRAINER_IMAGE, install_kfp_package=False)
def evaluate_model(
    uri: str,
    store_uri: str,
    run_id: str,
    job_id: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    evaluation_report: dsl.Output[dsl.HTML],
) -> str:
    """Measure a trained model on what was held out of its data.

    Args:
        uri: Result of the last stage.
        store_uri: Store that keeps runs and checkpoints.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        model: The manifest of the checkpoint that was measured, with its lineage.
        metrics: The measured values that say most.
        evaluation_report: The run's report, as curricle report writes it.

    Returns:
        The measured values as JSON.
    """
    from kfp_pipelines.artifacts import publish_evaluation
    from kfp_pipelines.doors import evaluate_model as step
    from kfp_pipelines.failures import readable

    with readable("evaluate", store_uri, run_id or job_id):
        return publish_evaluation(step(uri, store_uri, run_id or job_id), model, metrics, evaluation_report)


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def gate(
    metrics_json: str,
    rule: str,
    uri: str,
    store_uri: str,
    run_id: str,
    job_id: str,
    model: dsl.Input[dsl.Model],
    verdict: dsl.Output[dsl.Markdown],
) -> NamedTuple("Verdict", [("decision", str), ("reason", str)]):
    """Decide whether the model is promoted; a promoted one is what search and evaluate take where no model is named.

    Args:
        metrics_json: Measured values as JSON.
        rule: Condition on a metric, for example "test/top1 >= 0.6"; empty always promotes.
        uri: The measured model.
        store_uri: Store that keeps runs and checkpoints.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        model: The measured model, as the evaluation registered it.
        verdict: The decision and its reasons.

    Returns:
        promote or hold, and why.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors import gate_model as step
    from kfp_pipelines.failures import readable
    from kfp_pipelines.pages import verdict as page

    with readable("gate", store_uri, run_id or job_id):
        decided = step(metrics_json, rule, uri, store_uri, run_id or job_id)
        print(f"{decided.decision}: {decided.reason}")
        write_text(verdict, page(decided))
        return (decided.decision, decided.reason)


@dsl.component(base_image=TRAINER_IMAGE, install_kfp_package=False)
def register_model(
    uri: str,
    registry: str,
    model_name: str,
    decision: str,
    reason: str,
    metrics_json: str,
    store_uri: str,
    run_id: str,
    job_id: str,
) -> str:
    """Register the model with its place, digest, verdict and run; its weights stay where they are.

    Args:
        uri: The measured model.
        registry: mlflow, or the URL of a Kubeflow Model Registry.
        model_name: Name of the registered model.
        decision: What the gate decided.
        reason: Why.
        metrics_json: Measured values as JSON.
        store_uri: Store that keeps runs and checkpoints.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.

    Returns:
        As what it is registered, and where.
    """
    from kfp_pipelines.doors import register_model as step
    from kfp_pipelines.failures import readable

    with readable("register", store_uri, run_id or job_id):
        said = step(uri, store_uri, registry, model_name, f"{decision}: {reason}", metrics_json)
        print(said)
        return said


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def cleanup(
    run_id: str,
    job_id: str,
    store_uri: str,
    launcher: str,
    status: dsl.PipelineTaskFinalStatus,
    run_summary: dsl.Output[dsl.Markdown],
) -> str:
    """Delete what training jobs of this run are left, write the run's final state and its summary. Runs whatever happened.

    Args:
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        store_uri: Store that keeps runs and checkpoints.
        launcher: Where training ran: pytorchjob, trainjob, auto or local.
        status: How the run ended, by Kubeflow.
        run_summary: State, stages with their headline, verdict, checkpoint; of a failed run the failing stage's own message.

    Returns:
        What was done.
    """
    from kfp_pipelines.artifacts import write_text
    from kfp_pipelines.doors import cleanup as step
    from kfp_pipelines.failures import readable

    with readable("clean up", store_uri, run_id or job_id):
        done = step(run_id or job_id, store_uri, launcher, status.state)
        write_text(run_summary, done.summary)
        return done.note
