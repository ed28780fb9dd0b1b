"""Components after the last stage: evaluate the result, decide on promotion, clean up whatever happened."""

from typing import NamedTuple

from kfp import dsl

from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE


@dsl.component(base_image=TRAINER_IMAGE, install_kfp_package=False)
def evaluate_model(uri: str, metrics: dsl.Output[dsl.Metrics], report: dsl.Output[dsl.HTML]) -> str:
    """Measure a trained model on what was held out of its data.

    Args:
        uri: Result of the last stage.
        metrics: The measured values.
        report: Their page.

    Returns:
        The measured values as JSON.
    """
    from kfp_pipelines.artifacts import publish_evaluation
    from kfp_pipelines.doors import evaluate_model as step
    from kfp_pipelines.failures import readable

    with readable():
        return publish_evaluation(step(uri), metrics, report)


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def gate(metrics_json: str, rule: str, uri: str, store_uri: str, run_id: str, job_id: str) -> NamedTuple(
    "Verdict", [("decision", str), ("reason", str)]
):
    """Decide whether the model is promoted; a promoted one is what search and evaluate take where no model is named.

    Args:
        metrics_json: Measured values as JSON.
        rule: Condition on a metric, for example "test/top1 >= 0.6"; empty always promotes.
        uri: The measured model.
        store_uri: Store that keeps runs and checkpoints.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.

    Returns:
        promote or hold, and why.
    """
    from kfp_pipelines.doors import gate_model as step
    from kfp_pipelines.failures import readable

    with readable("gate", store_uri, run_id or job_id):
        verdict = step(metrics_json, rule, uri, store_uri)
        print(f"{verdict.decision}: {verdict.reason}")
        return (verdict.decision, verdict.reason)


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def cleanup(run_id: str, job_id: str, store_uri: str, launcher: str, status: dsl.PipelineTaskFinalStatus) -> str:
    """Delete what training jobs of this run are left and write the run's final state. Runs whatever happened.

    Args:
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        store_uri: Store that keeps runs and checkpoints.
        launcher: Where training ran, local or pytorchjob.
        status: How the run ended, by Kubeflow.

    Returns:
        What was done.
    """
    from kfp_pipelines.doors import cleanup as step
    from kfp_pipelines.failures import readable

    with readable():
        return step(run_id or job_id, store_uri, launcher, status.state)
