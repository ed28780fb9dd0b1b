"""The curriculum chain as a pipeline: how many stages is decided when it is compiled, which of them run and from where when it is started.

The shape is flat, because every sequential node of a run costs Kubeflow about ten seconds: one plan task for the whole
chain, then per stage only the branch group, whose tasks carry their conditions themselves (`kfp_pipelines.shape`); the URI of each stage's
result, a string, feeds the next one.
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl, kubernetes

from curricle import environment
from curricle.errors import PipelineError
from curricle.registry import DataParameter
from kfp_pipelines import TRAINER_IMAGE
from kfp_pipelines.artifacts import MAX_STAGES
from kfp_pipelines.components.finish import cleanup, evaluate_model, gate, register_model
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
    minimal: bool = False,
) -> Callable[..., Any]:
    """The pipeline of a chain, for the compiler.

    Args:
        chain_name: stem of the chain's file, for example ``chain_default``; the pipeline is called ``chain-default``.
        stage_names: the chain's stages, in order.
        config: its base file, below the configuration's folder.
        data: the data setting of the chain's family that a person fills in; None for none.
        gate_rule: the chain's own rule of promotion.
        minimal: whether its form asks only for what everybody sets; the rest is then as the full one's defaults say.

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
        registry: str = "",
        model_name: str = registered_name(chain_name),
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
            launcher: Where training runs: pytorchjob or trainjob (training jobs on the cluster), auto (which of these the cluster has) or local (in the component itself).
            resume: Reuse stages that are complete and go on with interrupted ones; false trains everything anew.
            preflight: Try store, rights, operator, queue and image before anything is trained.
            gate_rule: Condition for promoting the result, for example val_loss <= 0.6. Empty promotes always.
            registry: Where the model is registered after the gate: mlflow, or the URL of a Kubeflow Model Registry. Empty for nowhere.
            model_name: Name of the registered model.
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
                gate_rule=gate_rule, registry=registry, model_name=model_name,
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
            measured = evaluate_model(**which, uri=uri).set_display_name("evaluate")
            verdict = gate(
                **which,
                metrics_json=measured.outputs["Output"],
                rule=gate_rule,
                uri=uri,
                model=measured.outputs["model"],
            )
            verdict.set_display_name("gate")
            uncached(measured, verdict)
            in_cluster(measured, verdict)
            register_after(verdict, registry, model_name, measured.outputs["Output"], uri, which)

    def short(
        store_uri: str = "minio://mlpipeline/curricle",
        data_source: str = data.default if data else "",
        overrides: str = "",
        launcher: str = "pytorchjob",
    ):
        """Trains a chain of stages.

        Args:
            store_uri: Where runs and checkpoints are kept: minio://bucket/prefix, s3://bucket/prefix or a folder.
            data_source: DATA_SOURCE
            overrides: Settings for every stage, separated by spaces, for example training.learning_rate=1e-4 data_loader.batch_size=64
            launcher: Where training runs: pytorchjob (a training job on the cluster) or local (in the component itself).
        """
        chain(store_uri, data_source, overrides=overrides, launcher=launcher)

    order = f"Trains the stages {', '.join(stage_names)} one after the other, each from the best checkpoint of the one before."
    made, name = (short, f"{chain_name}_minimal") if minimal else (chain, chain_name)
    if minimal:
        order += f" The short form of {chain_name.replace('_', '-')}, which has every parameter."
    made.__doc__ = str(made.__doc__).replace("DATA_SOURCE", data.description if data else "Not used by this chain.")
    return dsl.pipeline(made, name=name.replace("_", "-"), description=order)


def stage_branches(plan: dsl.PipelineTask, index: int, name: str, parent_uri: Any, launcher: Any) -> Any:
    """The branch group of one stage, called after it; the URI of its result, whichever branch ran."""
    which = {"plan_uri": plan.outputs["plan_uri"], "index": index, "mode": plan.outputs[f"mode_{index + 1}"]}
    with dsl.If(which["mode"] == "scratch", name=name):
        scratch = train_stage(**which, parent_uri="", launcher=launcher)
    with dsl.Elif(which["mode"] == "continued", name=name):
        continued = train_stage(**which, parent_uri=parent_uri, launcher=launcher)
    with dsl.Else(name=name):
        reused = reuse_stage(**which, parent_uri=parent_uri)
    for task, title in ((scratch, "train"), (continued, "train further"), (reused, "reuse")):
        task.set_display_name(f"{title} {name}")
    uncached(scratch, continued, reused)
    in_cluster(scratch, continued, reused)
    with_workers(scratch, continued)
    return dsl.OneOf(scratch.outputs["Output"], continued.outputs["Output"], reused.outputs["Output"])


def register_after(
    verdict: dsl.PipelineTask, registry: Any, model_name: Any, metrics_json: Any, uri: Any, which: dict[str, Any]
) -> None:
    """Register the model, where a registry is named; a run without one passes a condition and starts no task."""
    if isinstance(registry, str):  # of a short form, which has no such parameter
        return
    with dsl.If(registry != "", name="register"):
        task = register_model(
            **which, uri=uri, registry=registry, model_name=model_name, metrics_json=metrics_json,
            decision=verdict.outputs["decision"], reason=verdict.outputs["reason"],
        )  # fmt: skip
        task.set_display_name("register")
        uncached(task)
        in_cluster(task)
        kubernetes.use_secret_as_env(
            task, "curricle-registry-token", {"token": environment.REGISTRY_TOKEN}, optional=True
        )


def registered_name(pipeline: str) -> str:
    """What models of a pipeline are called in a registry, unless somebody says."""
    return f"curricle-{pipeline.removeprefix('chain_').replace('_', '-')}"


def in_cluster(*tasks: dsl.PipelineTask) -> None:
    """Give components the store's credentials, the cluster's settings and its own certificate authorities; optional, so that a pipeline starts without them and says what is missing."""
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
        kubernetes.use_config_map_as_env(task, "curricle-ca", {"ca.crt": environment.CA_CERTIFICATES}, optional=True)


def with_workers(*tasks: dsl.PipelineTask) -> None:
    """Give components that start training pods these pods' image: a compiled pipeline names all the code that it runs."""
    for task in tasks:
        task.set_env_variable(environment.TRAINER_IMAGE, TRAINER_IMAGE)


def uncached(*tasks: dsl.PipelineTask) -> None:
    """Let Kubeflow run what the pipeline says. Its cache is off: a branch of cache hits never completes, what a plan decides depends on the store, and data
    may change under the same name. And a task is tried once more, for the node under it may be lost: each goes on from what the first try left."""
    for task in tasks:
        task.set_caching_options(False)
        task.set_retry(1, backoff_duration="10s")
