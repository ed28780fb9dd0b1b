from datetime import UTC, datetime, timedelta

import pytest

from curricle.launch.job import RETRYABLE
from curricle.launch.kubernetes import reasons
from curricle.launch.kubernetes.options import ClusterOptions
from tests.launch.kubernetes.kinds import SHAPES

PYTORCHJOB = SHAPES["pytorchjob"].kind
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ended(name, code, *, seconds=0.0, reason="Error", message="", deleted=None, grace=0, **status):
    """A pod whose container ended so many seconds after NOW; `deleted`: when its deletion was asked for."""
    meta = {"name": name}
    if deleted is not None:
        meta |= {"deletionTimestamp": at(deleted + grace), "deletionGracePeriodSeconds": grace}
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at(seconds)}}
    limits = {"resources": {"limits": {"memory": "2Gi"}}}
    status = {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [{"name": "pytorch", "state": state}],
        **status,
    }
    return {"metadata": meta, "spec": {"containers": [limits]}, "status": status}


def failed(shape=SHAPES["pytorchjob"], state="failed"):
    return {
        "metadata": {"name": "j"},
        "spec": {"runPolicy": {"activeDeadlineSeconds": 9}, "activeDeadlineSeconds": 9},
        "status": shape.states[state],
    }


def disrupted(why):
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": why, "message": "node drained"}]}


@pytest.mark.parametrize(
    ("pod", "reason", "code", "words"),
    [
        (ended("w", 137, reason="OOMKilled"), "oom_killed", 137, "limit 2Gi"),
        (ended("w", 137, message="rank 1 was killed (SIGKILL)"), "oom_killed", 137, "rank 1 was killed"),
        (ended("w", 1, message="ValueError: boom on rank 1"), "error", 1, "boom on rank 1"),
        (ended("w", 2, message="no such stage"), "configuration", 2, "no such stage"),
        (ended("w", 75, message="the server is away"), "store_away", 75, "the server is away"),
        (ended("w", 143, message="saved step 20"), "interrupted", 143, "saved step 20"),
        (
            ended("w", 128, reason="StartError", message="exec: python: not found"),
            "configuration",
            128,
            "is no worker's: it holds no Python (exec: python: not found)",
        ),
        (
            ended(
                "w", 128, deleted=1, reason="StartError", message='exec: "python": executable file not found in $PATH'
            ),
            "configuration",
            128,
            "it holds no Python",
        ),
        (ended("w", 1, message="python: No module named curricle"), "configuration", 1, "it holds no Curricle"),
        (ended("w", 1, message="FileNotFoundError: python: not found"), "error", 1, "FileNotFoundError"),
        (ended("w", 137, **disrupted("EvictionByEvictionAPI")), "evicted", 137, "node drained"),
        (ended("w", 143, **disrupted("PreemptionByScheduler")), "preempted", 143, "node drained"),
        (ended("w", 137, deleted=-1), "lost", 137, "deleted while it ran"),
        (ended("w", 143, deleted=-1, grace=120), "interrupted", 143, "deleted while it ran"),
        (
            {"metadata": {"name": "w"}, "status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}},
            "evicted",
            137,
            "low on memory",
        ),
        (
            {"metadata": {"name": "w"}, "status": {"phase": "Failed", "reason": "DeadlineExceeded"}},
            "deadline",
            143,
            "active_deadline_seconds",
        ),
        ({"metadata": {"name": "w"}, "status": {"phase": "Failed", "reason": "OutOfcpu"}}, "error", 1, "OutOfcpu"),
    ],
)
def test_each_end_of_a_pod_has_its_own_reason(pod, reason, code, words):
    outcome = reasons.classify(PYTORCHJOB, [pod], failed())
    assert (outcome.state, outcome.reason, outcome.exit_code, outcome.where) == ("failed", reason, code, "w")
    assert words in outcome.message


def test_the_init_container_that_never_found_the_master_is_named():
    pod = ended("w", 0)
    pod["status"] = {
        "phase": "Failed",
        "initContainerStatuses": [
            {"name": "init-pytorch", "state": {"terminated": {"exitCode": 1, "finishedAt": at(0)}}}
        ],
    }
    assert "init container init-pytorch failed" in reasons.classify(PYTORCHJOB, [pod], failed()).message


def test_the_pod_that_failed_first_is_the_cause():
    pods = [ended("m", 1, seconds=4, message="connection reset"), ended("w", 1, seconds=1, message="boom")]
    assert reasons.classify(PYTORCHJOB, pods, failed()).message == "boom"


def test_a_memory_kill_goes_before_the_rank_that_lost_it_in_the_same_second():
    pods = [ended("m", 1, seconds=0, message="connection reset"), ended("w", 137, seconds=1, reason="OOMKilled")]
    assert reasons.classify(PYTORCHJOB, pods, failed()).where == "w"


def test_a_survivor_that_was_cleaned_up_is_not_the_cause():
    pods = [
        ended("m", 1, message="boom"),
        ended("w", 137, seconds=21, deleted=1, grace=20),
        ended("v", 143, seconds=2, deleted=0, grace=30),
    ]
    outcome = reasons.classify(PYTORCHJOB, pods, failed())
    assert (outcome.where, outcome.reason) == ("m", "error")


def test_a_pod_killed_by_hand_is_the_cause_though_others_fail_with_it():
    pods = [ended("m", 1, seconds=2, message="connection closed by peer"), ended("w", 137, seconds=1, deleted=1)]
    outcome = reasons.classify(PYTORCHJOB, pods, failed())
    assert (outcome.where, outcome.reason) == ("w", "lost")
    assert outcome.reason in RETRYABLE


def test_the_deadline_is_read_from_the_job(shape):
    outcome = reasons.classify(shape.kind, [], failed(shape, "late"))
    assert outcome.reason == "deadline" and "9 s" in outcome.message


def test_a_failed_job_without_pods_quotes_the_operator(shape):
    outcome = reasons.classify(shape.kind, [], failed(shape))
    assert outcome.reason == "lost" and shape.states["failed"]["conditions"][0]["message"] in outcome.message


def test_a_deleted_job_is_cancelled(shape):
    assert reasons.classify(shape.kind, [ended("m", 143)], None).state == "cancelled"


@pytest.mark.parametrize("state", ["created", "running", "suspended", "succeeded", "failed"])
def test_each_state_of_a_job_is_told(state, shape):
    job = {"spec": {}, "status": shape.states[state]}
    assert shape.kind.phase(job) == ("pending" if state == "created" else state) and reasons.picked_up(shape.kind, job)
    assert not reasons.picked_up(shape.kind, {"spec": {}}) and shape.kind.phase({"spec": {}}) == "pending"


@pytest.mark.parametrize(
    ("true", "phase"),
    [
        (["Created", "Running"], "running"), (["Running", "Suspended"], "suspended"), (["Running", "Succeeded"], "succeeded"),
        (["Succeeded", "Failed"], "failed"),
    ],
)  # fmt: skip
def test_the_gravest_of_several_true_conditions_counts(true, phase):
    assert PYTORCHJOB.phase({"status": {"conditions": [{"type": t, "status": "True"} for t in true]}}) == phase


def test_pods_are_in_order_and_the_first_leads(shape):
    pods = [{"metadata": {"name": f"j-{name}"}} for name in reversed(shape.pods)]
    assert [pod["metadata"]["name"] for pod in sorted(pods, key=lambda pod: shape.kind.order(pod, "j"))] == [
        f"j-{name}" for name in shape.pods
    ]
    options = ClusterOptions(image="x:1")
    assert [shape.kind.leads(pod, "j", options) for pod in pods] == [False, True]
    assert shape.kind.host("j", options) == shape.host


def waiting(why, message="", key="containerStatuses"):
    return {"metadata": {"name": "p", "creationTimestamp": at(-90)}, "status": {"phase": "Pending", key: [
        {"name": "pytorch", "image": "x:1", "state": {"waiting": {"reason": why, "message": message}}}]}}  # fmt: skip


@pytest.mark.parametrize(
    ("pod", "reason", "final"),
    [
        (waiting("ErrImagePull", "no such host"), "image_pull", False),
        (waiting("ImagePullBackOff", key="initContainerStatuses"), "image_pull", False),
        (waiting("InvalidImageName"), "image_pull", True),
        (waiting("CreateContainerConfigError", 'secret "store" not found'), "configuration", True),
    ],
)
def test_a_container_that_cannot_start_says_why_and_for_how_long(pod, reason, final):
    stuck = reasons.stuck([pod], NOW)
    assert (stuck.reason, stuck.final, stuck.seconds) == (reason, final, 90)


def test_a_pod_that_fits_no_node_has_the_schedulers_words():
    conditions = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes",
            "lastTransitionTime": at(-7),
        }
    ]
    pod = {"metadata": {"name": "p"}, "status": {"phase": "Pending", "conditions": conditions}}
    assert reasons.stuck([pod], NOW) == reasons.Stuck("unschedulable", "p", "0/1 nodes", 7)


@pytest.mark.parametrize("why", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_made_is_not_stuck(why):
    assert reasons.stuck([waiting(why)], NOW) is None
