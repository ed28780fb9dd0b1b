"""The launcher against a genuine API server, operator, scheduler and kubelet. The pods run the node agent of the trainer image."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from curricle.errors import JobError
from curricle.launch.job import RETRYABLE
from curricle.launch.kubernetes.options import Elastic, Waits

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")]

ALL_REDUCE = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(x)
print(f"sum {x.item():.0f} of {dist.get_world_size()}", flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def no_pods(launcher, name, seconds):
    until = time.monotonic() + seconds
    while launcher.api.list_pods(name):
        assert time.monotonic() < until, [p["metadata"]["name"] for p in launcher.api.list_pods(name)]
        time.sleep(0.5)


def test_the_server_accepts_what_is_rendered(make_launcher, make_job):
    launcher = make_launcher()
    job = make_job("pass", nodes=2)
    assert launcher.api.create_job(launcher.render(job), dry_run=True)["metadata"]["name"] == job.name


def test_the_server_refuses_a_field_that_it_does_not_know(make_launcher, make_job):
    launcher = make_launcher()
    body = launcher.render(make_job("pass"))
    body["spec"]["ttlSecondsAfterFinished"] = 5
    with pytest.raises(JobError, match="ttlSecondsAfterFinished"):
        launcher.api.create_job(body, dry_run=True)


def test_two_pods_reduce_and_succeed(make_launcher, make_job):
    launcher, lines = make_launcher(), []
    outcome = launcher.wait(launcher.submit(make_job(ALL_REDUCE, nodes=2)), lines.append)
    assert outcome.state == "succeeded", (outcome, lines)
    assert any("sum 3 of 2" in line and line.startswith("[master-0]") for line in lines), lines


def test_the_master_outlives_a_slower_worker(make_launcher, make_job):
    launcher = make_launcher()
    job = make_job(
        "import os, time; time.sleep(12 * int(os.environ['RANK'])); print('rank', os.environ['RANK'], 'is done', flush=True)",
        nodes=2,
    )
    handle, states = launcher.submit(job), {}
    succeeded = {f"{job.name}-master-0": "Succeeded", f"{job.name}-worker-0": "Succeeded"}

    def follow():  # the operator removes a worker whose pod ends a moment after the master's: what counts is its last state
        for _, pod in launcher.api.pod_events(job.name, None, 180):
            states[pod["metadata"]["name"]] = pod["status"]["phase"]
            if states == succeeded:
                return

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    assert launcher.wait(handle, print).state == "succeeded"
    following.join()
    assert states == succeeded


def test_an_elastic_job_goes_on_when_one_of_its_pods_is_lost(make_launcher, make_job):
    launcher, lines, outcomes = make_launcher(elastic=Elastic(min_nodes=1, max_nodes=2)), [], []
    job = make_job(
        "import os, time, torch, torch.distributed as d\nd.init_process_group('gloo')\n"
        "print('attempt', os.environ['TORCHELASTIC_RESTART_COUNT'], 'of', d.get_world_size(), flush=True)\n"
        "until = time.monotonic() + 40\n"
        "while True:\n    go = torch.tensor([float(time.monotonic() < until)]); d.all_reduce(go, op=d.ReduceOp.MIN); time.sleep(.2)\n    if not go: break\n"
        "print('done with', d.get_world_size(), flush=True)", nodes=2)  # fmt: skip
    handle = launcher.submit(job)
    waiting = threading.Thread(target=lambda: outcomes.append(launcher.wait(handle, lines.append)))
    waiting.start()
    until = time.monotonic() + 120
    while not any("of 2" in line for line in lines):
        assert time.monotonic() < until and waiting.is_alive(), (lines, outcomes)
        time.sleep(0.2)
    launcher.api._core.delete_namespaced_pod(f"{job.name}-worker-1", launcher.api.namespace, grace_period_seconds=0)
    waiting.join(240)
    assert outcomes and outcomes[0].state == "succeeded", (outcomes, lines)
    assert any("done with" in line for line in lines) and sum("attempt" in line for line in lines) >= 2, lines


def test_a_job_out_of_memory_is_told_apart(make_launcher, make_job):
    launcher, lines = make_launcher(), []
    outcome = launcher.wait(launcher.submit(make_job("x = bytearray(2**30); print(len(x))")), lines.append)
    assert (outcome.state, outcome.reason, outcome.exit_code) == ("failed", "oom_killed", 137), (outcome, lines)


def test_a_failing_worker_is_quoted(make_launcher, make_job):
    launcher, lines = make_launcher(), []
    code = "import os, sys, time\nif os.environ['RANK'] == '1': raise ValueError('boom on rank 1')\ntime.sleep(60)"
    outcome = launcher.wait(launcher.submit(make_job(code, nodes=2)), lines.append)
    assert (outcome.state, outcome.reason) == ("failed", "error"), (outcome, lines)
    assert outcome.where.endswith("worker-0") and "boom on rank 1" in outcome.message + "".join(lines[-20:]), (
        outcome,
        lines,
    )


def test_an_unknown_image_is_told_apart(make_launcher, make_job):
    launcher = make_launcher(image="registry.invalid/none:1", waits=Waits(poll=0.5, image_pull=5))
    job = make_job("pass")
    outcome = launcher.wait(launcher.submit(job), print)
    assert outcome.reason == "image_pull" and "registry.invalid" in outcome.message
    no_pods(launcher, job.name, 30)


def test_a_request_that_fits_no_node_is_told_apart(make_launcher, make_job):
    launcher = make_launcher(cpu="5000", cpu_limit="5000", waits=Waits(poll=0.5, schedule=5))
    outcome = launcher.wait(launcher.submit(make_job("pass")), print)
    assert outcome.reason == "unschedulable" and "Insufficient cpu" in outcome.message


def test_a_missing_secret_is_told_apart(make_launcher, make_job):
    launcher = make_launcher(env_from_secrets={"TOKEN": ("no-such-secret", "token")}, waits=Waits(poll=0.5, broken=3))
    outcome = launcher.wait(launcher.submit(make_job("pass")), print)
    assert outcome.reason == "configuration" and "no-such-secret" in outcome.message


def test_a_job_over_its_deadline_is_told_apart(make_launcher, make_job):
    launcher = make_launcher(active_deadline_seconds=5)
    started = time.monotonic()
    outcome = launcher.wait(launcher.submit(make_job("import time; time.sleep(100)")), print)
    assert outcome.reason == "deadline", outcome
    assert time.monotonic() - started < 60, "the operator's own deadline, which waits for the next event, ended it"


def test_cancel_leaves_no_pod_after_thirty_seconds(make_launcher, make_job):
    launcher, lines = make_launcher(), []
    job = make_job("import time; print('up', flush=True); time.sleep(200)", nodes=2)
    handle = launcher.submit(job)
    outcomes = []
    waiting = threading.Thread(target=lambda: outcomes.append(launcher.wait(handle, lines.append)))
    waiting.start()
    until = time.monotonic() + 120
    while not any("up" in line for line in lines):
        assert time.monotonic() < until, lines
        time.sleep(0.2)
    launcher.cancel(handle)
    no_pods(launcher, job.name, 30)
    waiting.join(30)
    assert outcomes[0].state == "cancelled"


def test_a_second_launcher_attaches_to_a_running_job_and_other_work_is_refused(make_launcher, make_job):
    job = make_job("import time; time.sleep(8); print('done', flush=True)")
    first, second = make_launcher(), make_launcher()
    handle = first.submit(job)
    assert second.submit(job) == handle == second.attach(job.name)
    with pytest.raises(JobError, match="does other work"):
        second.submit(type(job)(**(vars(job) | {"digest": "d2"})))
    assert second.wait(handle, print).state == "succeeded"
    assert len(first.api.list_jobs(f"curricle.dev/job={job.name}")) == 1


def test_a_launcher_that_gets_sigterm_deletes_its_job_within_a_third_of_a_second(
    make_launcher, make_job, kubeconfig, options
):
    job = make_job("import time; time.sleep(200)")
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from curricle.launch.job import Job\nfrom curricle.launch.kubernetes.client import on_cluster\n"
        "from curricle.launch.kubernetes.options import ClusterOptions\nfrom curricle.launch.kubernetes.pytorchjob import PYTORCHJOB\n"
        f"l = on_cluster(PYTORCHJOB, ClusterOptions(**{vars(options)!r}), kubeconfig={kubeconfig!r})\n"
        f"h = l.submit({job!r}); print('up', flush=True); l.wait(h, print)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert child.stdout.readline() == "up\n"
    time.sleep(4)
    started = time.monotonic()
    child.send_signal(signal.SIGTERM)
    launcher = make_launcher()
    while (found := launcher.api.get_job(job.name)) and "deletionTimestamp" not in found["metadata"]:
        assert time.monotonic() - started < 0.3
    child.communicate(timeout=10)
    no_pods(launcher, job.name, 30)


def test_the_exit_handler_deletes_what_a_run_left(make_launcher, make_job):
    launcher = make_launcher()
    job = make_job("import time; time.sleep(200)")
    launcher.submit(job)
    assert job.name in launcher.delete_by_run(job.labels["curricle.dev/run"])
    no_pods(launcher, job.name, 30)


@pytest.mark.parametrize("grace", [0, 20])
def test_a_worker_pod_killed_by_hand_may_be_retried(grace, make_launcher, make_job):
    launcher, lines, outcomes = make_launcher(), [], []
    job = make_job(
        "import time, torch.distributed as d; d.init_process_group('gloo'); print('up', flush=True)\nwhile True: d.barrier(); time.sleep(.2)",
        nodes=2,
    )
    handle = launcher.submit(job)
    waiting = threading.Thread(target=lambda: outcomes.append(launcher.wait(handle, lines.append)))
    waiting.start()
    until = time.monotonic() + 120
    while not any("up" in line for line in lines):
        assert time.monotonic() < until and waiting.is_alive(), (lines, outcomes)
        time.sleep(0.2)
    launcher.api._core.delete_namespaced_pod(f"{job.name}-worker-0", launcher.api.namespace, grace_period_seconds=grace)
    waiting.join(90)
    assert outcomes and outcomes[0].state == "failed" and outcomes[0].reason in RETRYABLE, (outcomes, lines)
    assert launcher.submit(job) == f"{handle}-a2"
