"""Continued training as a pipeline: combine and resolve side by side, one stage, both domains measured, gate, publish."""

from kfp import dsl

from kfp_pipelines.components.continued import (
    combine_data,
    judge_forgetting,
    measure_models,
    plan_continued,
    preflight_continued,
    publish_model,
    resolve_checkpoint,
)
from kfp_pipelines.components.finish import cleanup
from kfp_pipelines.curriculum import in_cluster, register_after, stage_branches, uncached, with_workers

WHAT = "Trains a model further on new data, measures what it gained and what it forgot, and publishes it if both are within bounds."


def continued(
    new_dataset_path: str,
    old_dataset_path: str = "",
    checkpoint: str = "",
    experiment: str = "resume_ner_continued",
    backbone: str = "",
    strategy: str = "experiment",
    overrides: str = "",
    min_gain: float = 0.0,
    max_drop: float = 0.01,
    allow_scratch: bool = False,
    store_uri: str = "minio://mlpipeline/curricle",
    launcher: str = "pytorchjob",
    resume: bool = True,
    preflight: bool = True,
    registry: str = "",
    model_name: str = "curricle-continued-training",
    run_id: str = "",
):
    """Trains a model further.

    Args:
        new_dataset_path: New data: a folder, or the URI of one in the store, with train.json and if possible validation.json and test.json.
        old_dataset_path: Old data, likewise: combined with the new, and what forgetting is measured on. Needed unless strategy is new_only.
        checkpoint: Model to continue: a stage's name, the path or URI of a checkpoint, or an MLflow run id. Empty takes the newest published one.
        experiment: Experiment file of the configuration, without its suffix.
        backbone: One of the experiment's backbones, or another of the files model/<backbone>.yaml. Empty takes the first.
        strategy: combined, new_only or append; experiment takes the experiment's own.
        overrides: Further settings, separated by spaces, for example data.replay=0.25 training.learning_rate=1e-4
        min_gain: Promote only if the new domain's score (F1 for entities) rises by at least this; 0.01 is one point.
        max_drop: Promote only if the old domain's score falls by at most this; 0.01 is one point.
        allow_scratch: Start from the plain encoder where there is no model to continue.
        store_uri: Where data, runs and models are kept: minio://bucket/prefix, s3://bucket/prefix or a folder.
        launcher: Where training runs: pytorchjob or trainjob (training jobs on the cluster), auto (which of these the cluster has) or local (in the component itself).
        resume: Reuse a training that is complete and go on with an interrupted one; false trains anew.
        preflight: Try experiment, data, start checkpoint, store, rights, operator, queue and image before anything is trained.
        registry: Where the model is registered after the gate: mlflow, or the URL of a Kubeflow Model Registry. Empty for nowhere.
        model_name: Name of the registered model.
        run_id: Name of the run's folder in the store. Empty takes Kubeflow's own id of the run.
    """
    job_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    which = {
        "experiment": experiment,
        "backbone": backbone,
        "overrides": overrides,
        "store_uri": store_uri,
        "run_id": run_id,
        "job_id": job_id,
    }
    data_is = {"new_dataset_path": new_dataset_path, "old_dataset_path": old_dataset_path, "strategy": strategy}
    last = cleanup(run_id=run_id, job_id=job_id, store_uri=store_uri, launcher=launcher).set_display_name("clean up")
    with dsl.ExitHandler(exit_task=last, name="continued training"):
        ready = preflight_continued(
            **which, **data_is, enabled=preflight, checkpoint=checkpoint, allow_scratch=allow_scratch, launcher=launcher
        ).set_display_name("preflight")
        data = combine_data(**which, **data_is).set_display_name("combine data")
        start = resolve_checkpoint(**which, checkpoint=checkpoint, allow_scratch=allow_scratch).set_display_name(
            "resolve checkpoint"
        )
        plan = plan_continued(
            **which,
            **data_is,
            data_uri=data.outputs["Output"],
            start_uri=start.output,
            resume=resume,
            launcher=launcher,
            registry=registry,
            model_name=model_name,
        )
        plan.after(ready).set_display_name("plan")
        uri = stage_branches(plan, 0, "model", start.output, launcher)
        place = {"store_uri": store_uri, "run_id": run_id, "job_id": job_id}
        bounds = {"min_gain": min_gain, "max_drop": max_drop}
        scores = measure_models(
            **place, **bounds, start_uri=start.output, uri=uri, data_uri=data.outputs["Output"]
        ).set_display_name("measure old and new")
        verdict = judge_forgetting(
            **place, **bounds, scores_json=scores.outputs["Output"], model=scores.outputs["model"]
        ).set_display_name("gate")
        published = publish_model(
            **which,
            decision=verdict.outputs["decision"],
            uri=uri,
            scores_json=scores.outputs["Output"],
            measured=scores.outputs["model"],
        )
        published.set_display_name("publish")
        place = {"store_uri": store_uri, "run_id": run_id, "job_id": job_id}
        register_after(verdict, registry, model_name, scores.outputs["Output"], uri, place)
        uncached(ready, data, start, plan, scores, verdict, published)
        in_cluster(last, ready, data, start, plan, scores, verdict, published)
        with_workers(ready)


def short(
    new_dataset_path: str,
    old_dataset_path: str = "",
    checkpoint: str = "",
    strategy: str = "experiment",
    store_uri: str = "minio://mlpipeline/curricle",
    launcher: str = "pytorchjob",
):
    """Trains a model further.

    Args:
        new_dataset_path: New data: a folder, or the URI of one in the store, with train.json and if possible validation.json and test.json.
        old_dataset_path: Old data, likewise: combined with the new, and what forgetting is measured on. Needed unless strategy is new_only.
        checkpoint: Model to continue: a stage's name, the path or URI of a checkpoint, or an MLflow run id. Empty takes the newest published one.
        strategy: combined, new_only or append; experiment takes the experiment's own.
        store_uri: Where data, runs and models are kept: minio://bucket/prefix, s3://bucket/prefix or a folder.
        launcher: Where training runs: pytorchjob (a training job on the cluster) or local (in the component itself).
    """
    continued(new_dataset_path, old_dataset_path, checkpoint, strategy=strategy, store_uri=store_uri, launcher=launcher)


continued_training = dsl.pipeline(continued, name="continued-training", description=WHAT)
continued_training_minimal = dsl.pipeline(
    short,
    name="continued-training-minimal",
    description=f"{WHAT} The short form of continued-training, which has every parameter.",
)
