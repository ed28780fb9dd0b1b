"""The nodes of a run, as Kubeflow lists its tasks: which stand for tasks of the pipeline, and which one a failure began in.

Kubeflow keeps no message and names no failed pod. But a node's id is ``<workflow>-<FNV-1a of its path>``, so the path that a person can ask Kubernetes
for follows from the names and the ids of the children.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_INNER = re.compile(r"root|executor(\(\d+\))?|.*-driver|condition(-branches)?-\d+|exit-handler-\d+(\.onExit)?|onExit")
"""Nodes of Kubeflow's own that stand for no task of the pipeline."""


@dataclass(frozen=True)
class Failed:
    """A node that failed, and no node below it."""

    title: str
    """``task boom``, or ``driver of task boom``: Kubeflow's own pod that starts it."""
    node: str
    """Its id in the workflow's status; empty where the list does not tell."""
    message: str
    """What Kubeflow says of it: mostly nothing."""

    def sentence(self, namespace: str) -> str:
        """The failure for a person, with how to read the rest."""
        said = f": {self.message}" if self.message else ""
        if not self.node:
            return f"{self.title} failed{said}"
        workflow, _, number = self.node.rpartition("-")
        read = f"kubectl -n {namespace} get workflow {workflow} -o jsonpath='{{.status.nodes.{self.node}.message}}'"
        return f"{self.title} failed{said or f' (its message: {read})'}; pod {workflow}-...-{number}"


def is_task(task: Any, root: str) -> bool:
    """Whether a node stands for a task that the pipeline's author wrote."""
    name = str(task.display_name or "")
    return bool(name) and name != root and not _INNER.fullmatch(name)


def root_of(tasks: Iterable[Any]) -> str:
    """Name of the workflow, which is that of its first node; empty where there is none yet."""
    names = {str(task.display_name) for task in tasks}
    pods = (pod for task in tasks for pod in _children(task))
    return next((root for pod in pods if (root := pod.rpartition("-")[0]) in names), "")


def failed(tasks: Sequence[Any], titles: Mapping[str, str]) -> list[Failed]:
    """Where the run failed: the failed tasks and drivers; where there are none, whatever else failed. `titles` are those of Kubeflow's pages."""
    root = root_of(tasks)
    paths = _paths(root, tasks)
    broken = [task for task in tasks if str(task.state) in ("FAILED", "SYSTEM_ERROR") and task.display_name]
    drivers = [task for task in broken if str(task.display_name).endswith("-driver")]
    chosen = [task for task in broken if is_task(task, root)] + drivers
    inner = [task for task in broken if task.display_name != root and task not in chosen]
    found = []
    for task in chosen or inner or broken:
        name = str(task.display_name)
        path = next((p for p in paths if _last(p) == name and _fits(p, task, paths)), "")
        executors = (
            sorted((p for p in paths if p.startswith(f"{path}.executor")), key=lambda p: (len(p), p)) if path else []
        )
        runs = executors[-1] if executors else path
        of = name.removesuffix("-driver") if task in drivers else name
        title = f"{'driver of ' if task in drivers else ''}task {titles.get(of, of)}"
        if name == root:
            title = "the workflow"
        elif task in inner and not chosen:
            title = f"node {name}"
        found.append(Failed(title, paths.get(runs, ""), str(task.error.message or "") if task.error else ""))
    return sorted(set(found), key=lambda one: one.title)


def _paths(root: str, tasks: Sequence[Any]) -> dict[str, str]:
    """Path of each node below the root → its id; a try of a node is called as the node, with its number in brackets."""
    names = {str(task.display_name) for task in tasks}
    ids = {pod for task in tasks for pod in _children(task)}
    paths: dict[str, str] = {}
    todo = [root] if root else []
    while todo:
        path = todo.pop()
        tries = (path + name.removeprefix(_last(path)) for name in names if name.startswith(f"{_last(path)}("))
        for below in (*(f"{path}.{name}" for name in names), *tries):
            if below not in paths and (ident := f"{root}-{_fnv(below)}") in ids:
                paths[below] = ident
                todo.append(below)
    return paths


def _fits(path: str, task: Any, paths: dict[str, str]) -> bool:
    """Whether a task of that name may be the node at that path: its children lie in the same part of the tree."""
    at = {ident: p for p, ident in paths.items()}
    parent = path.rpartition(".")[0]
    return all(at.get(child, parent).startswith(parent) for child in _children(task))


def _children(task: Any) -> list[str]:
    return [str(child.pod_name) for child in task.child_tasks or [] if child.pod_name]


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _fnv(text: str) -> int:
    """32-bit FNV-1a, as Argo numbers its nodes."""
    value = 2166136261
    for byte in text.encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value
