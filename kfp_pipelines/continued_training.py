"""Continued training as a pipeline: combine and resolve side by side, one stage, both domains measured, gate, publish."""

from kfp import dsl

from kfp_pipelines.components.continued import (
    combine_data,
    judge_forgetting,
    measure_models,
    plan_continued,
    publish_model,
    resolve_checkpoint,
)
from kfp_pipelines.components.finish import cleanup
from kfp_pipelines.components.start import preflight as check_first
from kfp_pipelines.curriculum import in_cluster, stage_branches, uncached, with_workers


@dsl.pipeline(
    name="continued-training",
    description="Trains a model further on new data, measures what it gained and what it forgot, and publishes it if both are within bounds.",
)
def continued_training(
    new_dataset_path: str,
    old_dataset_path: str = "",
    checkpoint: str = "",
    experiment: str = "resume_ner_continued",
    backbone: str = "",
    strategy: str = "",
    overrides: str = "",
    min_gain: float = 0.0,
    max_drop: float = 0.01,
    allow_scratch: bool = False,
    store_uri: str = "minio://mlpipeline/curricle",
    launcher: str = "pytorchjob",
    resume: bool = True,
    preflight: bool = True,
    run_id: str = "",
):
    """Trains a model further.

    Args:
        new_dataset_path: New data: a folder, or the URI of one in the store, with train.json and if possible validation.json and test.json.
        old_dataset_path: Old data, likewise: combined with the new, and what forgetting is measured on. Empty takes the experiment's.
        checkpoint: Model to continue: a stage's name, the path or URI of a checkpoint, or an MLflow run id. Empty takes the newest published one.
        experiment: Experiment file of the configuration, without its suffix.
        backbone: One of the experiment's backbones. Empty takes the first.
        strategy: combined, new_only or append. Empty takes the experiment's.
        overrides: Further settings, separated by spaces, for example data.replay=0.25 training.learning_rate=1e-4
        min_gain: Promote only if the new domain's score (F1 for entities) rises by at least this (0 to 1).
        max_drop: Promote only if the old domain's score falls by at most this (0 to 1).
        allow_scratch: Start from the plain encoder where there is no model to continue.
        store_uri: Where data, runs and models are kept: minio://bucket/prefix, s3://bucket/prefix or a folder.
        launcher: Where training runs: pytorchjob (a training job on the cluster) or local (in the component itself).
        resume: Reuse a training that is complete and go on with an interrupted one; false trains anew.
        preflight: Try store, rights, operator, queue and image before anything is trained.
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
        ready = check_first(
            enabled=preflight, store_uri=store_uri, launcher=launcher, run_id=run_id, job_id=job_id
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
        )
        plan.after(ready).set_display_name("plan")
        uri = stage_branches(plan, 0, "model", start.output, launcher)
        scores = measure_models(start_uri=start.output, uri=uri, data_uri=data.outputs["Output"]).set_display_name(
            "measure old and new"
        )
        verdict = judge_forgetting(
            scores_json=scores.outputs["Output"], min_gain=min_gain, max_drop=max_drop
        ).set_display_name("gate")
        published = publish_model(
            **which, decision=verdict.outputs["decision"], uri=uri, scores_json=scores.outputs["Output"]
        )
        published.set_display_name("publish")
        uncached(ready, data, start, plan, scores, verdict, published)
        in_cluster(last, ready, data, start, plan, scores, published)
        with_workers(ready)
