"""Components after the last stage: evaluate the result, decide on promotion, clean up whatever happened."""

from typing import NamedTuple

from kfp import dsl

from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE


@dsl.component(base_image=TRAINER_IMAGE, install_kfp_package=False)
def evaluate_model(uri: str, data_uri: str, metrics: dsl.Output[dsl.Metrics], report: dsl.Output[dsl.HTML]) -> str:
    """Measure a trained model on held-out data.

    Args:
        uri: Result of the last stage.
        data_uri: Prepared data.
        metrics: The measured values.
        report: Their page.

    Returns:
        The measured values as JSON.
    """
    from curricle.steps.component import evaluate_model as step
    from kfp_pipelines.artifacts import publish_evaluation
    from kfp_pipelines.failures import readable

    with readable():
        return publish_evaluation(step(uri, data_uri), metrics, report)


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def gate(metrics_json: str, rule: str) -> NamedTuple("Verdict", [("decision", str), ("reason", str)]):
    """Decide whether the model is promoted.

    Args:
        metrics_json: Measured values as JSON.
        rule: Condition on a metric, for example "test/top1 >= 0.6"; empty always promotes.

    Returns:
        promote or hold, and why.
    """
    from curricle.steps.component import gate_model as step
    from kfp_pipelines.failures import readable

    with readable():
        verdict = step(metrics_json, rule)
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
    from curricle.steps.component import cleanup as step
    from kfp_pipelines.failures import readable

    with readable():
        return step(run_id or job_id, store_uri, launcher, status.state)
