"""Training a stage: one training a place, and never another configuration's model for one's own."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from curricle.errors import JobError, StoreError
from curricle.launch.job import Outcome
from curricle.steps.train import reuse_stage, train_stage
from curricle.store import layout, open_store
from curricle.store.failure import Failure
from curricle.store.manifest import publish, read_manifest
from curricle.training.spec import StageSpec
from tests.steps.test_claim import hold
from tests.steps.toy_stage import make_plan
from tests.training.toy import make_data


class Pretended:
    """A launcher whose jobs leave a complete stage of any digest, or fail."""

    max_attempts = 1
    retryable = frozenset()

    def __init__(self, digest: str = "", outcome: Outcome | None = None):
        self.digest, self.outcome = digest, outcome or Outcome("succeeded", "succeeded", 0)
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job)
        return "handle"

    def wait(self, handle, on_log):
        place = self.jobs[-1].argv[3]
        finish(place, self.digest)
        return self.outcome

    def cancel(self, handle):
        pass


def finish(place: str, digest: str) -> None:
    """Leave a complete stage at a place."""
    base, _, stage = place.rpartition("/")
    if digest:
        publish(open_store(base), stage, None, kind="stage", digest=digest, metrics={}, lineage={}, info={})


def train(plan, launcher):
    return train_stage(plan, 0, "", launcher, lambda event: None)


def test_the_place_is_claimed_while_a_stage_trains_and_free_afterwards(tmp_path):
    seen = []

    class Looking(Pretended):
        def submit(self, job):
            seen.append(Path(tmp_path, "store/r/01_stage", layout.CLAIM).is_file())
            return super().submit(job)

    launcher = Looking("d1")
    assert train(make_plan(tmp_path, "d1", resume=False), launcher).manifest.digest == "d1"
    assert seen == [True] and not Path(tmp_path, "store/r/01_stage", layout.CLAIM).exists()
    assert launcher.jobs[0].argv[-4:] == ("--digest", "d1", "--progress", "json")
    with pytest.raises(JobError):
        train(make_plan(tmp_path, "d1", resume=False), Looking(outcome=Outcome("failed", "error", 1, "no")))
    assert not Path(tmp_path, "store/r/01_stage", layout.CLAIM).exists()


def test_a_job_that_leaves_another_configurations_model_is_an_error_that_names_both(tmp_path):
    with pytest.raises(JobError, match="digest is d2, d1 was planned") as error:
        train(make_plan(tmp_path, "d1"), Pretended("d2"))
    assert error.value.exit_code == 2


@pytest.mark.parametrize("resume", [True, False])
def test_another_configurations_model_that_came_after_the_plan_is_neither_taken_nor_deleted(tmp_path, resume):
    plan, launcher = make_plan(tmp_path, "d1", resume=resume), Pretended("d1")
    finish(plan.stages[0].uri, "d2")
    with pytest.raises(JobError, match="complete model of other work: its digest is d2, d1 was planned"):
        train(plan, launcher)
    assert not launcher.jobs and read_manifest(open_store(plan.stages[0].uri), "").digest == "d2"


def test_training_again_deletes_a_stages_own_files_and_says_what_stays(tmp_path):
    plan, said = make_plan(tmp_path, "d1", resume=False), []
    place = Path(plan.stages[0].uri)
    finish(plan.stages[0].uri, "d1")
    for name in ("notes.txt", "last.ckpt/model.safetensors", "last.ckpt/notes.txt"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("mine")
    train_stage(plan, 0, "", Pretended("d1"), lambda event: said.append(event))
    assert {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()} == {
        *("notes.txt", "last.ckpt/notes.txt", layout.STAGE, layout.MANIFEST)
    }
    assert any("keeps 01_stage/last.ckpt/notes.txt, 01_stage/notes.txt" in str(event) for event in said)


def test_another_configurations_beginnings_are_left_alone(tmp_path):
    plan = make_plan(tmp_path, "d1")
    spec = StageSpec("r", "01_stage", "d2", "toy", {}, "scratch", make_data(tmp_path), "x")
    open_store(plan.stages[0].uri).write(layout.STAGE, spec.to_json(plan.stages[0].uri).encode())
    with pytest.raises(JobError, match="beginning of other work: its digest is d2"):
        train(plan, Pretended("d1"))


def test_a_failed_job_leaves_one_record(tmp_path):
    plan = make_plan(tmp_path, "d1")
    with pytest.raises(JobError):
        train(plan, Pretended(outcome=Outcome("failed", "oom_killed", 137, "too big", "rank 1")))
    failure = Failure.read(open_store(plan.stages[0].uri))
    assert failure.sentence().startswith(
        "stage 01_stage failed (oom_killed): too big. Try a smaller data_loader.batch_size (it is 8)"
    )
    assert (failure.run_id, failure.exit_code, failure.where) == ("r", 137, "rank 1")


@pytest.mark.parametrize(("said", "reason"), [("no memory", "oom_killed"), ("another one", "configuration")])
def test_the_reason_is_the_ranks_own_where_its_words_are_the_outcomes(tmp_path, said, reason):
    plan = make_plan(tmp_path, "d1")

    class Recording(Pretended):
        def wait(self, handle, on_log):
            Failure("no memory", 2, "oom_killed", stage="01_stage").write(open_store(plan.stages[0].uri))
            return super().wait(handle, on_log)

    with pytest.raises(JobError, match=rf"failed \({reason}, exit code 2\): rank 0: {said}$") as error:
        train(plan, Recording(outcome=Outcome("failed", "configuration", 2, f"rank 0: {said}", "rank 0")))
    assert (error.value.reason, error.value.exit_code) == (reason, 2)
    assert Failure.read(open_store(plan.stages[0].uri)).cause == reason


def test_a_failure_that_cannot_be_recorded_is_told_all_the_same(tmp_path, monkeypatch):
    plan = make_plan(tmp_path, "d1")

    def full(*args, **options):
        raise StoreError("no space left")

    monkeypatch.setattr(Failure, "write", full)
    with pytest.raises(JobError, match="too big"):
        train(plan, Pretended(outcome=Outcome("failed", "oom_killed", 137, "too big", "rank 1")))


def start(folder: Path, digest: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.steps.toy_stage", str(folder), digest]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("digests", [("d1", "d1"), ("d1", "d2")], ids=["same", "different"])
def test_of_two_commands_at_once_one_trains_and_the_other_takes_its_stage_or_is_refused(tmp_path, digests):
    make_data(tmp_path)
    processes = [start(tmp_path, digest) for digest in digests]
    said = ["".join(process.communicate(timeout=240)) for process in processes]
    place = tmp_path / "store/r/01_stage"
    made = read_manifest(open_store(str(place)), "").digest
    assert sum("epoch 3" in text for text in said) == 1, said
    if digests[0] == digests[1]:
        assert [process.returncode for process in processes] == [0, 0], said
        assert all("DIGEST d1" in text for text in said) and sum("waiting for its end" in text for text in said) == 1
    else:
        trained = digests.index(made)
        assert processes[trained].returncode == 0 and f"DIGEST {made}" in said[trained], said
        assert processes[1 - trained].returncode == 2 and "d1" in said[1 - trained] and "d2" in said[1 - trained], said
    assert not (place / layout.CLAIM).exists() and not (place / layout.FAILURE).exists()


@pytest.mark.parametrize("start", ["scratch", "reuse"])
def test_a_complete_stage_loses_the_claim_and_the_failure_of_processes_that_were_killed_right_at_its_end(
    tmp_path, start
):
    plan = make_plan(tmp_path, "d1")
    stage = replace(plan.stages[0], start=start)
    plan = replace(plan, stages=(stage,))
    finish(stage.uri, "d1")
    owner = hold(stage.uri, "d1", 60)
    assert owner.stdout.readline()
    Path(stage.uri, layout.FAILURE).write_text("{}")
    claim, step = Path(stage.uri, layout.CLAIM), train_stage if start == "scratch" else reuse_stage
    arguments = (plan, 0, "") if start == "reuse" else (plan, 0, "", Pretended(), lambda event: None)
    step(*arguments)
    assert claim.is_file(), "its owner is alive"
    owner.kill()
    owner.communicate()
    step(*arguments)
    assert not claim.exists() and not Path(stage.uri, layout.FAILURE).exists()
