import contextlib
import dataclasses
import os
import re
import signal
import threading
import time

import pytest

from curricle.errors import Interrupted, JobError
from curricle.launch.job import RETRYABLE, RUN, Outcome
from curricle.launch.kubernetes.api import Expired
from curricle.launch.kubernetes.client import KubernetesLauncher
from curricle.launch.kubernetes.options import Owner
from curricle.launch.kubernetes.render import label_value
from tests.launch.kubernetes.memory import FAST, Cluster, pod


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def launcher(cluster, plain, shape):
    return KubernetesLauncher(shape.kind, plain, cluster, waits=FAST)


def test_submit_sends_what_render_shows(launcher, cluster, job):
    assert launcher.submit(job) == f"kubeflow:{job.name}"
    assert cluster.jobs[job.name] == launcher.render(job)


@pytest.mark.parametrize("state", ["created", "running", "suspended", "succeeded"])
def test_the_same_work_is_adopted(state, launcher, cluster, job):
    launcher.submit(job)
    cluster.now(job.name, state)
    assert launcher.submit(job) == f"kubeflow:{job.name}"
    assert len(cluster.jobs) == 1


def test_other_work_of_that_name_is_refused(launcher, cluster, job):
    launcher.submit(job)
    with pytest.raises(JobError, match="does other work") as caught:
        launcher.submit(dataclasses.replace(job, digest="another"))
    assert caught.value.reason == "refused" and caught.value.exit_code == 2


def test_other_work_without_our_labels_is_refused_too(launcher, cluster, job):
    cluster.jobs[job.name] = {"metadata": {"name": job.name, "labels": {}}}
    with pytest.raises(JobError, match="does other work"):
        launcher.submit(job)


def test_two_launchers_at_once_share_one_job(cluster, plain, job, shape):
    """The second lists before the first creates: it meets a conflict and then adopts."""
    first, second = (
        KubernetesLauncher(shape.kind, plain, cluster, waits=FAST),
        KubernetesLauncher(shape.kind, plain, cluster, waits=FAST),
    )
    create, listed = cluster.create_job, cluster.list_jobs

    def slow(body):
        cluster.create_job = create
        first.submit(job)
        return create(body)

    cluster.create_job = slow
    assert second.submit(job) == f"kubeflow:{job.name}"
    assert len(listed("curricle.dev/run=r1")) == 1


def test_after_a_failed_attempt_comes_the_next_counted_in_the_cluster(launcher, cluster, plain, job, shape):
    launcher.submit(job)
    cluster.now(job.name, "failed")
    assert launcher.submit(job) == f"kubeflow:{job.name}-a2"
    cluster.now(f"{job.name}-a2", "failed")
    assert KubernetesLauncher(shape.kind, plain, cluster, waits=FAST).submit(job) == f"kubeflow:{job.name}-a3"


def test_a_job_that_is_being_deleted_is_waited_for(launcher, cluster, job):
    launcher.submit(job)
    cluster.jobs[job.name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    threading.Timer(0.1, lambda: cluster.jobs.pop(job.name)).start()
    launcher.submit(job)
    assert "deletionTimestamp" not in cluster.jobs[job.name]["metadata"]


def test_a_deletion_that_never_ends_is_an_error(cluster, plain, job, shape):
    launcher = KubernetesLauncher(shape.kind, plain, cluster, waits=dataclasses.replace(FAST, gone=0.05))
    launcher.submit(job)
    cluster.jobs[job.name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(JobError, match="finalizers"):
        launcher.submit(job)


def test_a_second_launcher_becomes_a_further_owner(cluster, plain, job, shape):
    for uid in ("one", "two", "two"):
        options = dataclasses.replace(plain, owner=Owner(name=uid, uid=uid))
        KubernetesLauncher(shape.kind, options, cluster, waits=FAST).submit(job)
    assert [o["uid"] for o in cluster.jobs[job.name]["metadata"]["ownerReferences"]] == ["one", "two"]


def test_the_first_pod_is_streamed_and_the_first_to_fail_has_the_last_word(launcher, cluster, job, shape):
    handle, lines = launcher.submit(job), []
    first, second = shape.pods
    master, worker = f"{job.name}-{first}", f"{job.name}-{second}"
    cluster.pods[job.name] = [pod(master, 0), pod(worker, 1, "ValueError: boom")]
    cluster.logs = {
        master: b"2026-01-01T00:00:00Z epoch 1\n",
        worker: b"2026-01-01T00:00:00Z Traceback\n2026-01-01T00:00:01Z ValueError: boom",
    }
    cluster.now(job.name, "failed")
    outcome = launcher.wait(handle, lines.append)
    assert outcome == Outcome("failed", "error", 1, "ValueError: boom", worker)
    assert lines == [
        f"[{first}] epoch 1", f"[launcher] {worker} failed first (error, exit code 1); its last lines:",
        f"[{second}] Traceback", f"[{second}] ValueError: boom",
    ]  # fmt: skip


def test_pods_that_are_gone_are_judged_as_they_were_last_seen(launcher, cluster, job, shape):
    handle = launcher.submit(job)
    cluster.pods[job.name] = [pod(f"{job.name}-{shape.pods[1]}", 1, "boom")]
    looks = iter(range(100))

    def move():
        if next(looks) == 3:
            cluster.pods[job.name] = []
            cluster.now(job.name, "failed")

    cluster.on_get = move
    assert launcher.wait(handle, lambda line: None).message == "boom"


@pytest.mark.parametrize(
    ("events", "reason", "blamed"),
    [
        ([("DELETED", "worker", None), ("MODIFIED", "master", 1)], "lost", "worker"),
        ([("MODIFIED", "master", 1), ("DELETED", "worker", None)], "error", "master"),
        # a finalizer keeps the pod
        ([("LEAVING", "worker", None), ("MODIFIED", "master", 1), ("DELETED", "worker", 137)], "lost", "worker"),
        ([("MODIFIED", "master", 1), ("LEAVING", "worker", None), ("DELETED", "worker", 137)], "error", "master"),
        (
            [("DELETED", "worker", None), ("ADDED", "new worker", None), ("MODIFIED", "new worker", 1)],
            "error",
            "new worker",
        ),
    ],
)
def test_a_pod_deleted_between_two_looks_is_the_cause_of_what_its_gang_says_afterwards_only(
    events, reason, blamed, launcher, cluster, job, shape
):
    """The operator may have made the pod again, or cleaned up, before the launcher looks: the order of events decides."""
    handle = launcher.submit(job)
    first, second = (f"{job.name}-{pod_name}" for pod_name in shape.pods)
    names = {"master": first, "worker": second, "new worker": second}

    def seen(kind, who, code):
        body = pod(names[who], code, "connection closed by peer" if code else "")
        leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if kind == "LEAVING" or code == 137 else {}
        return kind.replace("LEAVING", "MODIFIED"), body | {"metadata": body["metadata"] | {"uid": who} | leaving}

    cluster.events = [seen("ADDED", "master", None), seen("ADDED", "worker", None), *(seen(*event) for event in events)]
    looks = iter(range(100))
    cluster.on_get = lambda: next(looks) == 2 and cluster.now(job.name, "failed")
    outcome = launcher.wait(handle, lambda line: None)
    assert outcome.reason == reason and outcome.where == names[blamed]
    assert (outcome.reason in RETRYABLE) == (reason == "lost")


def test_a_version_the_server_has_forgotten_starts_the_watch_anew(launcher, cluster, job):
    handle, asked = launcher.submit(job), []

    def events(name, since, seconds):
        asked.append(since)
        if len(asked) == 2:
            cluster.now(job.name, "succeeded")
            raise Expired("too old")
        yield "ADDED", {"metadata": {"name": "m", "uid": "m", "resourceVersion": "7"}, "status": {}}

    cluster.pod_events = events
    assert launcher.wait(handle, print).state == "succeeded" and asked == [None, "7"]


def test_a_success_is_a_success(launcher, cluster, job):
    handle = launcher.submit(job)
    cluster.now(job.name, "succeeded")
    assert launcher.wait(handle, print).state == "succeeded"


def test_a_cluster_that_does_not_answer_for_a_while_is_waited_for(launcher, cluster, job):
    handle = launcher.submit(job)
    cluster.now(job.name, "succeeded")
    cluster.down = 5
    assert launcher.wait(handle, print).state == "succeeded"


def test_a_cluster_that_never_answers_is_an_error_and_the_job_is_left_alone(cluster, plain, job, shape):
    launcher = KubernetesLauncher(shape.kind, plain, cluster, waits=dataclasses.replace(FAST, unreachable=0.05))
    handle = launcher.submit(job)
    cluster.down = 10**6
    with pytest.raises(JobError, match="attach to it later") as caught:
        launcher.wait(handle, print)
    assert caught.value.reason == "lost" and job.name in cluster.jobs


def test_without_an_operator_the_job_is_given_up_and_taken_away(cluster, plain, job, shape):
    launcher = KubernetesLauncher(shape.kind, plain, cluster, waits=dataclasses.replace(FAST, no_operator=0.05))
    outcome = launcher.wait(launcher.submit(job), lambda line: None)
    assert outcome.reason == "no_operator" and not cluster.jobs


def test_a_pod_that_fits_no_node_is_waited_for_unless_told_otherwise(cluster, plain, job, shape):
    unfit = {"metadata": {"name": "p"}, "status": {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}}  # fmt: skip
    lines = []
    for schedule, state in ((0.0, "succeeded"), (1.0, "failed")):
        launcher = KubernetesLauncher(shape.kind, plain, cluster, waits=dataclasses.replace(FAST, schedule=schedule))
        handle = launcher.submit(job)
        cluster.pods[job.name] = [unfit]
        cluster.now(job.name, "created")
        timer = threading.Timer(0.2, lambda: job.name in cluster.jobs and cluster.now(job.name, "succeeded"))
        timer.start()
        assert launcher.wait(handle, lines.append).state == state
        timer.join()
        cluster.jobs.clear()
    assert "[launcher] p waits (unschedulable): 0/1 nodes" in lines


def test_a_cancelled_job_ends_its_wait(launcher, cluster, job):
    handle = launcher.submit(job)
    threading.Timer(0.1, lambda: launcher.cancel(handle)).start()
    outcome = launcher.wait(handle, print)
    assert (outcome.state, outcome.message) == ("cancelled", "cancelled on request")
    launcher.cancel(handle)


@pytest.mark.parametrize(("watched", "left"), [(False, 0), (True, 1)])
def test_sigterm_deletes_the_job_and_leaves_one_that_was_attached_to(watched, left, cluster, plain, job, shape):
    launcher = KubernetesLauncher(shape.kind, plain, cluster, waits=FAST)
    handle = launcher.submit(job)
    if watched:
        launcher = KubernetesLauncher(shape.kind, plain, cluster, waits=FAST)
        assert launcher.attach(job.name) == handle
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    started = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        launcher.wait(handle, print)
    assert time.monotonic() - started < 0.4 and caught.value.exit_code == 143
    assert len(cluster.jobs) == left and signal.getsignal(signal.SIGTERM) is before
    assert cluster.deleted == ([] if watched else [(job.name, 0.7)])


def test_everything_of_a_run_goes_and_nothing_else(launcher, cluster, job):
    launcher.submit(job)
    launcher.submit(dataclasses.replace(job, name="other", labels={"curricle.dev/run": "r2"}))
    assert launcher.delete_by_run("r1") == [job.name]
    assert list(cluster.jobs) == ["other"]


def test_a_webhook_that_does_not_answer_is_waited_for_and_then_named(launcher, cluster, job):
    cluster.webhook = 2
    assert launcher.submit(job) == f"kubeflow:{job.name}"
    cluster.webhook = 1000
    with pytest.raises(JobError, match="could not be started in 0 s: .*admission webhook v.kubeflow.org") as caught:
        launcher.submit(dataclasses.replace(job, name="other"))
    assert caught.value.reason == "lost"


LONG_IDS = [
    "sequential_01_anchors-02_positives-03_negatives-04_hard-05_all_of_them",  # as the shipped chain_classic's default
    "x" * 300,
    "ночной_прогон",
    "تشغيل-ليلي",
    "_x.",
    "a+b",
    "a_b",
    "a-b",
    "学习",
]


def test_runs_of_any_name_are_labelled_and_each_takes_its_own_jobs_with_it(launcher, cluster, job):
    """Two ids with one slug, and one that is called as another one's label, are three runs."""
    ids = [*LONG_IDS, label_value("x" * 300), label_value("a+b")]
    for number, run in enumerate(ids):
        launcher.submit(dataclasses.replace(job, name=f"job-{number}", labels={RUN: run, "curricle.dev/stage": run}))
    for body in cluster.jobs.values():
        labels = body["metadata"]["labels"]
        assert all(
            re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value) for value in labels.values()
        )
    wholes = [b["metadata"]["annotations"].get(RUN) or b["metadata"]["labels"][RUN] for b in cluster.jobs.values()]
    assert wholes == ids
    for number, run in enumerate(ids):
        assert launcher.delete_by_run(run) == [f"job-{number}"], run


def test_attach_finds_the_last_attempt(launcher, cluster, job, shape):
    with pytest.raises(JobError, match=f"no {shape.kind.kind} of job"):
        launcher.attach(job.name)
    launcher.submit(job)
    cluster.now(job.name, "failed")
    launcher.submit(job)
    assert launcher.attach(job.name) == f"kubeflow:{job.name}-a2"


def test_whoever_waits_for_a_job_keeps_its_heart_beating(launcher, cluster, job, tmp_path):
    handle = launcher.submit(dataclasses.replace(job, heartbeat=f"{tmp_path}/heartbeat"))
    beats = []

    def look():
        with contextlib.suppress(OSError):
            beats.append((tmp_path / "heartbeat").read_bytes())
        if beats:
            cluster.now(job.name, "succeeded")

    cluster.on_get = look
    assert launcher.wait(handle, print).state == "succeeded"
    assert beats[0] and not (tmp_path / "heartbeat").exists()


def test_a_queue_that_nobody_reads_is_a_warning(cluster, plain, job, shape):
    launcher = KubernetesLauncher(shape.kind, dataclasses.replace(plain, queue="team"), cluster, waits=FAST)
    handle, lines = launcher.submit(job), []
    cluster.now(job.name, "succeeded")
    launcher.wait(handle, lines.append)
    assert "'team'" in lines[0] and "integration" in lines[0]
    shape.hold(cluster.jobs[job.name], False)
    launcher.wait(handle, (admitted := []).append)
    assert admitted == []


@pytest.mark.parametrize("seen", [True, False])
def test_a_job_that_no_pod_is_made_for_is_given_up_with_the_operators_words(cluster, plain, job, seen, shape):
    launcher = KubernetesLauncher(shape.kind, plain, cluster, waits=dataclasses.replace(FAST, no_pod=0.05))
    cluster.warned = ["FailedCreatePod: no such service account"]
    handle = launcher.submit(job)
    if seen:
        cluster.now(handle.rpartition(":")[2], "created")
    outcome = launcher.wait(handle, lambda line: None)
    assert (outcome.state, outcome.reason) == ("failed", "no_pod") and "no such service account" in outcome.message
    assert cluster.deleted


@pytest.mark.parametrize("shape", ["trainjob"], indirect=True)
def test_the_flag_that_the_server_writes_itself_is_no_sign_of_a_queue(cluster, plain, job, shape):
    """`suspend` of a TrainJob defaults to false."""
    launcher = KubernetesLauncher(shape.kind, dataclasses.replace(plain, queue="team"), cluster, waits=FAST)
    handle, lines = launcher.submit(job), []
    cluster.jobs[job.name]["spec"]["suspend"] = False
    cluster.now(job.name, "succeeded")
    launcher.wait(handle, lines.append)
    assert "integration trainer.kubeflow.org/trainjob is off" in lines[0]


def test_a_job_that_its_queue_lets_go_but_that_never_starts_is_given_up_and_time_in_the_queue_does_not_count(
    cluster, plain, job, shape
):
    """Kueue 0.19 wrote a TrainJob back without a field: its JobSet refused the change, and only an event said so."""
    launcher = KubernetesLauncher(shape.kind, plain, cluster, waits=dataclasses.replace(FAST, no_pod=0.1))
    cluster.warned = ["TrainJobResourcesCreationFailed: spec.replicatedJobs: Invalid value: field is immutable"]
    handle, lines, held = launcher.submit(job), [], []
    shape.hold(cluster.jobs[job.name], True)

    def look():
        held.append(time.monotonic())
        if held[-1] - held[0] > 0.3:
            shape.hold(cluster.jobs[job.name], False)
            cluster.jobs[job.name]["status"] = shape.states["suspended"]

    cluster.on_get = lambda: job.name in cluster.jobs and look()
    outcome = launcher.wait(handle, lines.append)
    assert time.monotonic() - held[0] > 0.4
    assert (outcome.state, outcome.reason) == ("failed", "no_pod") and "field is immutable" in outcome.message
    assert lines[0] == "[launcher] the job is suspended: it waits for its queue"
    assert any("made no pod yet" in line and "field is immutable" in line for line in lines), lines
    assert cluster.deleted
