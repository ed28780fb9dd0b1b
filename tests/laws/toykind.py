"""A kind of job that no operator runs, shaped like Kubeflow Trainer's TrainJob: it differs from a PyTorchJob in all that a kind may differ in."""


class ToyKind:
    name = "toyjob"
    group, version, plural, kind = "toys.example.com", "v1alpha1", "toyjobs", "ToyJob"
    container = "node"
    operator = "toy operator"
    deployment = "toy-controller"
    queue_integration = "toys.example.com/toyjob"
    name_limit = 40

    def check(self, job, options):
        return ["a ToyJob is never elastic"] if options.elastic else []

    def host(self, name, options):
        return f"{name}-node-0-0.{name}"

    def spec(self, job, options, template):
        return {"numNodes": job.nodes, "template": template, "activeDeadlineSeconds": options.active_deadline_seconds}

    def gang(self, job):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        return job["spec"]["numNodes"], container

    def phase(self, job):
        conditions = (job.get("status") or {}).get("conditions") or []
        true = {condition["type"] for condition in conditions if condition["status"] == "True"}
        if self.suspended(job):
            return "suspended"
        return "failed" if "Failed" in true else "succeeded" if "Complete" in true else "pending"

    def suspended(self, job):
        return job["spec"].get("suspend")

    def over_deadline(self, job):
        return None

    def pod_selector(self, name):
        return f"jobset.sigs.k8s.io/jobset-name={name}"

    def leads(self, pod, name, options):
        return self.order(pod, name) == 0

    def order(self, pod, name):
        return int(pod["metadata"]["name"].removeprefix(f"{name}-node-0-").partition("-")[0])
