"""Components of one stage: train it, or hand on what is there already."""

from kfp import dsl

from kfp_pipelines import CONTROL_IMAGE


@dsl.component(
    base_image=CONTROL_IMAGE,
    install_kfp_package=False,
    task_config_passthroughs=[
        dsl.TaskConfigField.RESOURCES,
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
        dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
        dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        dsl.TaskConfigField.KUBERNETES_AFFINITY,
        dsl.TaskConfigField.KUBERNETES_VOLUMES,
    ],
)
def train_stage(
    plan_uri: str,
    index: int,
    mode: str,
    parent_uri: str,
    launcher: str,
    task_config: dsl.TaskConfig,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    stage_report: dsl.Output[dsl.HTML],
) -> str:
    """Train one stage: here, or as a training job with what is set on this task (GPUs, tolerations, secrets, volumes).

    Args:
        plan_uri: The chain's plan.
        index: Its place in the chain, from 0.
        mode: How it starts, by the plan: the condition under which this task runs.
        parent_uri: What it continues; empty for scratch.
        launcher: Where it trains.
        task_config: What is set on the task, for the training pods.
        model: The manifest of the stage's best checkpoint, with its lineage.
        metrics: The stage's metrics that say most.
        stage_report: The stage's report, as curricle report writes it.

    Returns:
        URI of the stage's result.
    """
    from kfp_pipelines.artifacts import publish_stage, task_settings
    from kfp_pipelines.doors import train_stage as step
    from kfp_pipelines.failures import readable

    with readable("train", plan_uri=plan_uri):
        outcome = step(plan_uri, index, parent_uri, launcher, **task_settings(task_config))
        return publish_stage(outcome, model, metrics, stage_report)


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def reuse_stage(
    plan_uri: str,
    index: int,
    mode: str,
    parent_uri: str,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    stage_report: dsl.Output[dsl.HTML],
) -> str:
    """Hand on a complete stage, or the parent of one that was not selected.

    Args:
        plan_uri: The chain's plan.
        index: Its place in the chain, from 0.
        mode: How it starts, by the plan: the condition under which this task runs.
        parent_uri: Result of the stage before; empty for none.
        model: The manifest of the stage's best checkpoint, with its lineage.
        metrics: The stage's metrics that say most.
        stage_report: The stage's report, as curricle report writes it.

    Returns:
        URI of the stage's result.
    """
    from kfp_pipelines.artifacts import publish_stage
    from kfp_pipelines.doors import reuse_stage as step
    from kfp_pipelines.failures import readable

    with readable("reuse", plan_uri=plan_uri):
        return publish_stage(step(plan_uri, index, parent_uri), model, metrics, stage_report)
