"""The curriculum chain as a pipeline: how many stages is decided when it is compiled, which of them run and from where when it is started.

The shape is flat, because every sequential node of a run costs Kubeflow about ten seconds: one plan task for the whole
chain, then per stage only the branch group; the URI of each stage's result, a string, feeds the next one.
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl, kubernetes

from curricle import environment
from curricle.errors import PipelineError
from curricle.registry import DataParameter
from kfp_pipelines import TRAINER_IMAGE
from kfp_pipelines.artifacts import MAX_STAGES
from kfp_pipelines.components.finish import cleanup, evaluate_model, gate
from kfp_pipelines.components.stage import reuse_stage, train_stage
from kfp_pipelines.components.start import plan_chain, prepare_data, resolve_start
from kfp_pipelines.components.start import preflight as check_first


def build(
    chain_name: str,
    stage_names: list[str],
    *,
    config: str = "config.yaml",
    data: DataParameter | None = None,
    gate_rule: str = "",
) -> Callable[..., Any]:
    """The pipeline of a chain, for the compiler.

    Args:
        chain_name: stem of the chain's file, for example ``chain_default``; the pipeline is called ``chain-default``.
        stage_names: the chain's stages, in order.
        config: its base file, below the configuration's folder.
        data: the data setting of the chain's family that a person fills in; None for none.
        gate_rule: the chain's own rule of promotion.

    Raises:
        PipelineError: no stage, or more than `MAX_STAGES`.
    """
    if not 1 <= len(stage_names) <= MAX_STAGES:
        raise PipelineError(
            f"chain {chain_name} has {len(stage_names)} stages; a compiled pipeline holds 1 to {MAX_STAGES}. "
            "Cut the chain in two and start the second from the first one's last stage (from_checkpoint)."
        )

    def chain(
        store_uri: str = "minio://mlpipeline/curricle",
        data_source: str = data.default if data else "",
        stages: str = "all",
        start_mode: str = "auto",
        from_checkpoint: str = "",
        overrides: str = "",
        launcher: str = "pytorchjob",
        resume: bool = True,
        preflight: bool = True,
        gate_rule: str = gate_rule,
        run_id: str = "",
    ):
        """Trains a chain of stages.

        Args:
            store_uri: Where runs and checkpoints are kept: minio://bucket/prefix, s3://bucket/prefix or a folder.
            data_source: DATA_SOURCE
            stages: all, or the names of the stages to run, separated by commas.
            start_mode: How the first stage starts: auto, scratch or continued (needs from_checkpoint or a complete run of the stage before).
            from_checkpoint: Checkpoint to start from: a stage's name, or the path or URI of a checkpoint. Empty for none.
            overrides: Settings for every stage, separated by spaces, for example training.learning_rate=1e-4 data_loader.batch_size=64
            launcher: Where training runs: pytorchjob (a training job on the cluster) or local (in the component itself).
            resume: Reuse stages that are complete and go on with interrupted ones; false trains everything anew.
            preflight: Try store, rights, operator, queue and image before anything is trained.
            gate_rule: Condition for promoting the result, for example val_loss <= 0.6. Empty promotes always.
            run_id: Name of the run's folder in the store. Empty takes Kubeflow's own id of the run.
        """
        job_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        last = cleanup(run_id=run_id, job_id=job_id, store_uri=store_uri, launcher=launcher).set_display_name(
            "clean up"
        )
        with dsl.ExitHandler(exit_task=last, name="chain"):
            which = {"store_uri": store_uri, "run_id": run_id, "job_id": job_id}
            ready = check_first(**which, enabled=preflight, launcher=launcher)
            given = {
                "config": config,
                "chain": chain_name,
                "data_key": data.key if data else "",
                "data_source": data_source,
            }
            prepared = prepare_data(**which, **given, overrides=overrides)
            start = resolve_start(**which, from_checkpoint=from_checkpoint, stage=stage_names[0])
            plan = plan_chain(
                **which, **given, stages=stages, overrides=overrides, data_uri=prepared.output,
                start_uri=start.output, start_mode=start_mode, resume=resume, launcher=launcher,
            )  # fmt: skip
            plan.after(ready)
            in_cluster(last, ready, prepared, start, plan)
            with_workers(ready)
            for task, title in (
                (ready, "preflight"),
                (prepared, "prepare data"),
                (start, "resolve start"),
                (plan, "plan"),
            ):
                task.set_display_name(title)
            uncached(ready, prepared, start, plan)
            uri = start.output
            for index, name in enumerate(stage_names):
                uri = stage_branches(plan, index, name, uri, launcher)
            measured = evaluate_model(uri=uri).set_display_name("evaluate")
            verdict = gate(**which, metrics_json=measured.outputs["Output"], rule=gate_rule, uri=uri)
            verdict.set_display_name("gate")
            uncached(measured, verdict)
            in_cluster(measured, verdict)

    chain.__doc__ = str(chain.__doc__).replace("DATA_SOURCE", data.description if data else "Not used by this chain.")
    order = f"Trains the stages {', '.join(stage_names)} one after the other, each from the best checkpoint of the one before."
    return dsl.pipeline(chain, name=chain_name.replace("_", "-"), description=order)


def stage_branches(plan: dsl.PipelineTask, index: int, name: str, parent_uri: Any, launcher: Any) -> Any:
    """The branch group of one stage; the URI of its result, whichever branch ran."""
    place, mode = plan.outputs["plan_uri"], plan.outputs[f"mode_{index + 1}"]
    with dsl.If(mode == "scratch", name=f"{name} scratch"):
        scratch = train_stage(plan_uri=place, index=index, parent_uri="", launcher=launcher)
    with dsl.Elif(mode == "continued", name=f"{name} continued"):
        continued = train_stage(plan_uri=place, index=index, parent_uri=parent_uri, launcher=launcher)
    with dsl.Else(name=f"{name} reuse"):
        reused = reuse_stage(plan_uri=place, index=index, parent_uri=parent_uri)
    for task, title in ((scratch, "train"), (continued, "train further"), (reused, "reuse")):
        task.set_display_name(f"{title} {name}")
    uncached(scratch, continued, reused)
    in_cluster(scratch, continued, reused)
    with_workers(scratch, continued)
    return dsl.OneOf(scratch.outputs["Output"], continued.outputs["Output"], reused.outputs["Output"])


def in_cluster(*tasks: dsl.PipelineTask) -> None:
    """Give components the store's credentials and the cluster's settings; optional, so that a pipeline starts without them and says what is missing."""
    for task in tasks:
        kubernetes.use_secret_as_env(
            task,
            "mlpipeline-minio-artifact",
            {"accesskey": environment.AWS_ACCESS_KEY_ID, "secretkey": environment.AWS_SECRET_ACCESS_KEY},
            optional=True,
        )
        kubernetes.use_config_map_as_env(
            task, "curricle-cluster", {"cluster.yaml": environment.CLUSTER_YAML}, optional=True
        )


def with_workers(*tasks: dsl.PipelineTask) -> None:
    """Give components that start training pods these pods' image: a compiled pipeline names all the code that it runs."""
    for task in tasks:
        task.set_env_variable(environment.TRAINER_IMAGE, TRAINER_IMAGE)


def uncached(*tasks: dsl.PipelineTask) -> None:
    """Switch Kubeflow's cache off: a branch of cache hits never completes, what a plan decides depends on the store, and data may change
    under the same name."""
    for task in tasks:
        task.set_caching_options(False)
