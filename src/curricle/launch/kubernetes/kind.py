"""What is asked of a kind of job: all in which a PyTorchJob differs from the job of another operator. A kind knows no running cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from curricle.launch.job import Job
from curricle.launch.kubernetes.options import ClusterOptions

Phase = Literal["pending", "suspended", "running", "succeeded", "failed"]


@dataclass(frozen=True)
class Template:
    """An object of the cluster that a job is made from, and that somebody has put there before."""

    plural: str
    """Its resource, of the kind's own group and version."""
    name: str
    cluster_wide: bool
    """Whether it stands in no namespace."""
    noun: str
    """What people call it."""
    bring: str
    """What to do where it is not there, or of no use."""


class JobKind(Protocol):
    """Names and shapes of one kind of job. Jobs and pods are dicts in the API's own spelling, as they were sent or as the server returns them."""

    name: str
    """The launcher's name: a key of `curricle.launch.LAUNCHERS`."""
    group: str
    version: str
    plural: str
    kind: str
    """Group, version, plural and kind of the custom resource."""
    container: str
    """The container of a pod that runs the ranks."""
    operator: str
    """The operator to install, in words."""
    deployment: str
    """Name of the operator's deployment, by which its version is found."""
    queue_integration: str
    """What Kueue calls its integration of this kind."""
    name_limit: int
    """How many characters the name of a job may have: the operator appends to it, and 63 is Kubernetes' limit."""

    def check(self, job: Job, options: ClusterOptions) -> list[str]:
        """What only this kind, or its operator's webhook, would refuse."""

    def host(self, name: str, options: ClusterOptions) -> str:
        """Host name at which the ranks of the job called `name` meet."""

    def spec(self, job: Job, options: ClusterOptions, template: dict[str, Any]) -> dict[str, Any]:
        """The object's `spec`, for one pod template (metadata and spec) that holds the one container `container`."""

    def gang(self, job: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """How many pods a job has, and the container that each of them runs."""

    def phase(self, job: Mapping[str, Any]) -> Phase:
        """Where the job stands."""

    def suspended(self, job: Mapping[str, Any]) -> bool | None:
        """The flag by which a queue holds the job back; None where nobody has written it."""

    def over_deadline(self, job: Mapping[str, Any]) -> int | None:
        """The deadline in seconds where the operator ended the job for it, else None."""

    def pod_selector(self, name: str) -> str:
        """Label selector of the pods of the job called `name`."""

    def leads(self, pod: Mapping[str, Any], name: str, options: ClusterOptions) -> bool:
        """Whether the pod is the one at which the ranks meet; its log is the one to show."""

    def order(self, pod: Mapping[str, Any], name: str) -> int:
        """The pod's place among those of the job called `name`, least first."""

    def tellers(self, name: str) -> list[tuple[str, str]]:
        """Kind and name of each object whose events say what could not be made for the job called `name`."""

    def template(self, options: ClusterOptions) -> Template | None:
        """What the jobs are made from beside what is sent; None where they are sent whole."""

    def template_problems(self, template: Mapping[str, Any], options: ClusterOptions) -> list[str]:
        """What would go wrong with jobs that are made from this one."""
