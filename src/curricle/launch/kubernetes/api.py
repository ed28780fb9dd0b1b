"""What the launcher needs of a cluster, and the one place where the kubernetes client is used (30.1: kfp's own cap).

Objects are dicts in the API's own spelling. `ClusterApi` is the seam: tests put a cluster in memory behind it. A cluster is seen for one kind of
job and one namespace.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from curricle.errors import JobError
from curricle.launch.kubernetes.kind import JobKind
from curricle.store.wire import cause

TIMEOUTS = (5.0, 30.0)
"""Seconds for a connection, and for an answer over it."""


class Conflict(Exception):
    """An object of that name is there already (409)."""


class Missing(Exception):
    """There is no such object (404)."""


class Expired(Exception):
    """The server no longer knows what happened since that version (410)."""


class Unreachable(OSError):
    """The API server did not answer, or answered 5xx or 429: worth another try."""


class ClusterApi(Protocol):
    """What the launcher needs of a cluster, in dicts as the API returns them. All raise `Unreachable` and `JobError` (refused)."""

    namespace: str

    def create_job(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create a job; raises `Conflict`."""

    def get_job(self, name: str) -> dict[str, Any] | None:
        """The job, or None."""

    def list_jobs(self, selector: str) -> list[dict[str, Any]]:
        """Jobs by label selector."""

    def patch_job(self, name: str, body: dict[str, Any]) -> None:
        """Merge `body` into the job."""

    def delete_job(self, name: str, *, timeout: float | None = None) -> None:
        """Delete the job and its pods; not an error when it is gone."""

    def list_pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a job, those that exist now."""

    def pod_events(self, name: str, since: str | None, seconds: float) -> Iterable[tuple[str, dict[str, Any]]]:
        """What happens to a job's pods within so many seconds, in its order: (ADDED, MODIFIED or DELETED, the pod).

        `since`: the resourceVersion of the last event that was seen; without one the pods that exist now come first, as ADDED.
        Raises `Expired` when the server has forgotten that version.
        """

    def job_warnings(self, name: str) -> list[str]:
        """What the operator could not do for a job (events of type Warning of the kind's `tellers`); empty where they may not be read."""

    def read_log(self, pod: str, *, since_seconds: int | None, follow: bool) -> Iterable[bytes]:
        """See `logs.LogSource`."""

    def allowed(self, verb: str, resource: str, group: str = "") -> bool:
        """Whether this account may do that in the namespace; `resource` may name a subresource (``pods/log``)."""

    def serves(self, group: str, version: str, resource: str) -> bool:
        """Whether the API server knows a resource; every account may ask."""

    def get_object(
        self, group: str, version: str, resource: str, name: str, *, cluster_wide: bool = False
    ) -> dict[str, Any] | None:
        """A custom object of the namespace, or of none, or None; raises `JobError` where it may not be read."""

    def nodes_with(self, resource: str) -> int:
        """How many nodes offer a resource; raises `JobError` where nodes may not be listed."""

    def operator_images(self) -> list[str]:
        """Images of the operators of this kind that run in the cluster; raises `JobError` where deployments may not be listed."""

    def containers_of(self, deployment: str) -> list[tuple[str, dict[str, str]]]:
        """(image, plain environment) of the containers of every deployment of that name; raises `JobError` where deployments may not be listed."""


class KubernetesApi:
    """A `ClusterApi` over the official client. It connects when it is first asked for something: in a pod by its service account, else by
    kubeconfig. Where neither is there, every verb raises `JobError` with reason `configuration`."""

    def __init__(self, kind: JobKind, namespace: str, *, kubeconfig: str | None = None, context: str | None = None):
        self.namespace = namespace
        self._kind, self._kubeconfig, self._context = kind, kubeconfig, context
        self._resource = f"{kind.plural}.{kind.group}"
        self._place = (kind.group, kind.version, namespace, kind.plural)

    @functools.cached_property
    def _client(self) -> Any:
        from kubernetes import client, config
        from urllib3.exceptions import InsecureRequestWarning

        settings = client.Configuration()
        try:
            if self._kubeconfig is None and self._context is None:
                try:
                    config.load_incluster_config(settings)
                except config.ConfigException:
                    config.load_kube_config(client_configuration=settings)
            else:
                config.load_kube_config(self._kubeconfig, self._context, client_configuration=settings)
        except config.ConfigException as error:
            raise JobError(
                f"no cluster: neither a pod's service account nor a kubeconfig ({error})",
                reason="configuration",
                exit_code=2,
            ) from error
        if not settings.verify_ssl:
            # Somebody wrote that into the kubeconfig; a warning at every request tells nobody anything.
            warnings.filterwarnings("ignore", category=InsecureRequestWarning)
        settings.retries = False
        return client.ApiClient(settings)

    @functools.cached_property
    def _jobs(self) -> Any:
        from kubernetes import client

        return client.CustomObjectsApi(self._client)

    @functools.cached_property
    def _core(self) -> Any:
        from kubernetes import client

        return client.CoreV1Api(self._client)

    def _call(
        self,
        what: str,
        call: Callable[..., Any],
        *args: Any,
        timeout: float | tuple[float, float] = TIMEOUTS,
        **kwargs: Any,
    ) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call(*args, _request_timeout=timeout, **kwargs)
        except HTTPError as error:
            raise Unreachable(f"{what}: {_why(error)}") from error
        except ApiException as error:
            if not error.status and error.__context__:  # TLS
                raise Unreachable(f"{what}: {_why(error)}") from error
            if error.status == 409:
                raise Conflict(what) from error
            if error.status == 404:
                raise Missing(what) from error
            if (
                error.status == 429
                or error.status >= 500
                or (error.status == 400 and "waiting to start" in str(error.body))
            ):
                raise Unreachable(f"{what}: {_webhook(_said(error))}") from error
            raise JobError(f"{what}: {_said(error)}", reason="refused", exit_code=2) from error

    def create_job(self, body: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create a job, strictly: a field that the server does not know is an error. `dry_run` only asks it."""
        what = f"create {self._kind.kind} {body['metadata']['name']!r} in namespace {self.namespace!r}"
        extra: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        create = self._jobs.create_namespaced_custom_object
        try:
            return self._call(what, create, *self._place, body, field_validation="Strict", **extra)
        except Missing as error:
            raise JobError(
                f"cannot {what}: the cluster knows no {self._resource}, or has no such namespace. Install the {self._kind.operator}",
                reason="no_operator",
                exit_code=2,
            ) from error

    def get_job(self, name: str) -> dict[str, Any] | None:
        """The job, or None."""
        what = f"get {self._kind.kind} {name!r}"
        try:
            return self._call(what, self._jobs.get_namespaced_custom_object, *self._place, name)
        except Missing:
            return None

    def list_jobs(self, selector: str) -> list[dict[str, Any]]:
        """Jobs by label selector."""
        what = f"list {self._kind.kind}s in namespace {self.namespace!r}"
        list_objects = self._jobs.list_namespaced_custom_object
        try:
            return self._call(what, list_objects, *self._place, label_selector=selector)["items"]
        except Missing as error:
            raise JobError(
                f"the cluster knows no {self._resource}. Install the {self._kind.operator}",
                reason="no_operator",
                exit_code=2,
            ) from error

    def patch_job(self, name: str, body: dict[str, Any]) -> None:
        """Merge `body` into the job."""
        what = f"patch {self._kind.kind} {name!r}"
        self._call(what, self._jobs.patch_namespaced_custom_object, *self._place, name, body)

    def delete_job(self, name: str, *, timeout: float | None = None) -> None:
        """Delete the job; its pods follow."""
        what, delete = f"delete {self._kind.kind} {name!r}", self._jobs.delete_namespaced_custom_object
        with contextlib.suppress(Missing):
            self._call(what, delete, *self._place, name, propagation_policy="Background", timeout=timeout or TIMEOUTS)

    def list_pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a job, as plain dicts in the API's own spelling."""
        pods = self._pods_of(name, f"list pods of {name!r}")
        return self._client.sanitize_for_serialization(pods)["items"]

    def pod_events(self, name: str, since: str | None, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """A watch of the job's pods; `seconds` are rounded up to whole ones."""
        what, whole = f"watch pods of {name!r}", max(1, math.ceil(seconds))
        version = {} if since is None else {"resource_version": since}
        response = self._pods_of(
            name,
            what,
            watch=True,
            timeout_seconds=whole,
            _preload_content=False,
            timeout=(5.0, whole + 10.0),
            **version,
        )
        rest = b""
        for chunk in _body(what, response):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(_pod_event, lines)

    def _pods_of(self, name: str, what: str, **kwargs: Any) -> Any:
        return self._call(
            what,
            self._core.list_namespaced_pod,
            self.namespace,
            label_selector=self._kind.pod_selector(name),
            **kwargs,
        )

    def job_warnings(self, name: str) -> list[str]:
        """Messages of events of type Warning, each teller's newest last; empty where they may not be read."""
        list_events, said = self._core.list_namespaced_event, []
        for kind, teller in self._kind.tellers(name):
            selector = f"involvedObject.name={teller},involvedObject.kind={kind},type=Warning"
            try:
                events = self._call(f"events of {teller!r}", list_events, self.namespace, field_selector=selector)
            except (JobError, Missing):
                return []
            said += [f"{event.reason}: {event.message}" for event in events.items]
        return said

    def allowed(self, verb: str, resource: str, group: str = "") -> bool:
        """Whether this account may do that in the namespace; `resource` may name a subresource (``pods/log``)."""
        from kubernetes import client

        name, _, sub = resource.partition("/")
        attributes = client.V1ResourceAttributes(
            namespace=self.namespace, verb=verb, resource=name, subresource=sub or None, group=group
        )
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        return bool(
            self._call(
                "review of rights", client.AuthorizationV1Api(self._client).create_self_subject_access_review, review
            ).status.allowed
        )

    def serves(self, group: str, version: str, resource: str) -> bool:
        """Whether the API server knows a resource; every account may ask."""
        try:
            known = self._call(f"resources of {group}/{version}", self._jobs.get_api_resources, group, version)
        except Missing:
            return False
        return any(item.name == resource for item in known.resources)

    def get_object(
        self, group: str, version: str, resource: str, name: str, *, cluster_wide: bool = False
    ) -> dict[str, Any] | None:
        """A custom object of the namespace, or of none, or None; raises `JobError` where it may not be read."""
        what, jobs = f"get {resource} {name!r}", self._jobs
        try:
            if cluster_wide:
                return self._call(what, jobs.get_cluster_custom_object, group, version, resource, name)
            return self._call(what, jobs.get_namespaced_custom_object, group, version, self.namespace, resource, name)
        except Missing:
            return None

    def nodes_with(self, resource: str) -> int:
        """How many nodes offer a resource; raises `JobError` where nodes may not be listed."""
        nodes = self._call("list nodes", self._core.list_node)
        return sum(1 for node in nodes.items if int((node.status.allocatable or {}).get(resource, "0")) > 0)

    def operator_images(self) -> list[str]:
        """Images of the operators of this kind that run in the cluster; raises `JobError` where deployments may not be listed."""
        from kubernetes import client

        deployments = self._call(
            "list deployments",
            client.AppsV1Api(self._client).list_deployment_for_all_namespaces,
            field_selector=f"metadata.name={self._kind.deployment}",
        )
        return [
            container.image
            for deployment in deployments.items
            for container in deployment.spec.template.spec.containers
        ]

    def containers_of(self, deployment: str) -> list[tuple[str, dict[str, str]]]:
        """(image, plain environment) of the containers of every deployment of that name."""
        from kubernetes import client

        found = self._call(
            "list deployments",
            client.AppsV1Api(self._client).list_deployment_for_all_namespaces,
            field_selector=f"metadata.name={deployment}",
        )
        return [
            (container.image, {entry.name: entry.value or "" for entry in container.env or []})
            for item in found.items
            for container in item.spec.template.spec.containers
        ]

    def read_log(self, pod: str, *, since_seconds: int | None, follow: bool) -> Iterator[bytes]:
        """Chunks of a pod's log with timestamps; raises `Unreachable` when there is none (yet)."""
        since = {} if since_seconds is None else {"since_seconds": since_seconds}
        try:
            response = self._call(
                f"log of {pod!r}", self._core.read_namespaced_pod_log, pod, self.namespace, container=self._kind.container,
                follow=follow, timestamps=True, _preload_content=False, timeout=(5.0, 60.0), **since)  # fmt: skip
        except Missing as error:
            raise Unreachable(f"log of {pod!r}: {error}") from error
        yield from _body(f"log of {pod!r}", response)


def _pod_event(line: bytes) -> tuple[str, dict[str, Any]]:
    """A line of a watch."""
    event = json.loads(line)
    if event["type"] == "ERROR":
        said = event["object"].get("message", "")
        raise Expired(said) if event["object"].get("code") == 410 else Unreachable(f"watch of pods: {said}")
    return event["type"], event["object"]


def _body(what: str, response: Any) -> Iterator[bytes]:
    """The chunks of a response as they come; a broken connection is `Unreachable`."""
    from urllib3.exceptions import HTTPError

    try:
        yield from response.stream(65536, decode_content=False)
    except HTTPError as error:
        raise Unreachable(f"{what}: {_why(error)}") from error
    finally:
        response.release_conn()


def _why(error: Exception) -> str:
    """What happened on the way to the API server."""
    return cause(error).words


def _said(error: Any) -> str:
    """What the API server says, without headers."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _webhook(said: str) -> str:
    """An admission webhook that does not answer, by its name; anything else as it is."""
    match = re.search(r'failed calling webhook "([^"]+)"', said)
    if not match:
        return said
    why = said.rpartition('": ')[2] or said
    return f"the admission webhook {match[1]} does not answer ({why}): is the pod of the operator or of Kueue that serves it running?"
