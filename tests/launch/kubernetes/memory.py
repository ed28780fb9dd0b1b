"""A cluster in memory, for everything that speaks to a `ClusterApi`."""

import time

from curricle.launch.kubernetes.api import Conflict, Unreachable
from curricle.launch.kubernetes.options import Waits
from tests.launch.kubernetes.kinds import shape_of

FAST = Waits(poll=0.01, notice=0.0, drain=2.0, submit=0.2)


class Cluster:
    """Objects that a test moves by hand."""

    namespace = "kubeflow"

    def __init__(self):
        self.jobs, self.pods, self.logs, self.deleted, self.down, self.warned = {}, {}, {}, [], 0, []
        self.events, self.served = [], ()
        self.webhook = 0
        """How often an admission webhook does not answer yet."""
        self.on_get = lambda: None

    def create_job(self, body):
        name = body["metadata"]["name"]
        if self.webhook:
            self.webhook -= 1
            raise Unreachable(f"create {name}: the admission webhook v.kubeflow.org does not answer")
        if name in self.jobs:
            raise Conflict(name)
        self.jobs[name] = body
        return body

    def get_job(self, name):
        self.on_get()
        if self.down:
            self.down -= 1
            raise Unreachable("503")
        return self.jobs.get(name)

    def list_jobs(self, selector):
        key, value = selector.split("=")
        return [j for j in self.jobs.values() if j["metadata"]["labels"].get(key) == value]

    def patch_job(self, name, body):
        self.jobs[name]["metadata"] |= body["metadata"]

    def delete_job(self, name, *, timeout=None):
        self.deleted.append((name, timeout))
        self.jobs.pop(name, None)

    def job_warnings(self, name):
        return self.warned

    def list_pods(self, name):
        return self.pods.get(name, [])

    def pod_events(self, name, since, seconds):
        yield from self.events
        self.events = []
        yield from [("MODIFIED", pod) for pod in self.list_pods(name)]
        time.sleep(seconds)

    def read_log(self, pod, *, since_seconds, follow):
        yield self.logs.get(pod, b"")

    def allowed(self, verb, resource, group=""):
        return True

    def serves(self, group, version, resource):
        return resource in self.served

    def get_object(self, group, version, resource, name, *, cluster_wide=False):
        return None

    def nodes_with(self, resource):
        return 1

    def operator_images(self):
        return ["operator:1"]

    def containers_of(self, deployment):
        return []

    def end(self, name, exit_code):
        """Let a job's only pod end, and the job with it."""
        pod_name = shape_of(self.jobs[name]).pods[0]
        self.pods[name] = [pod(f"{name}-{pod_name}", exit_code, "said by the rank" if exit_code else "")]
        self.now(name, "failed" if exit_code else "succeeded")

    def now(self, name, state):
        """Bring a job into a state that its `Shape` names."""
        self.jobs[name]["status"] = shape_of(self.jobs[name]).states[state]


def pod(name, code=None, message=""):
    state = (
        {"running": {}}
        if code is None
        else {"terminated": {"exitCode": code, "message": message, "finishedAt": "2026-01-01T00:00:00Z"}}
    )
    return {
        "metadata": {"name": name, "uid": name},
        "status": {"phase": "Running", "containerStatuses": [{"name": "pytorch", "state": state}]},
    }
