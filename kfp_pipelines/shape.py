"""The shape of a compiled pipeline: what the compiler cannot be asked for is put right in its YAML, and its graph is told as text.

The compiler wraps every branch of an ``If`` in a graph of its own and calls each group of branches ``condition-branches-N``. Kubeflow needs neither:
a task may carry its condition itself, and a group any name. So a stage is one box that is called after the stage, with its tasks right inside:
two nodes (the group's driver, the task's) come before training starts, not three. Imports no kfp.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Tree = dict[str, Any]
_CHANNEL = re.compile(r"inputs\.parameter_values\['([^']+)'\]")


def flatten_branches(spec: Tree) -> None:
    """Take the graph around every branch away, in place: its one task gets the branch's condition, and the group the branches' name.

    The value that decides must be an input ``mode`` of every task of the group, since a task's condition sees that task's own inputs.
    """
    components: Tree = spec["components"]
    for tree in _graphs(spec):
        for task in tree["tasks"].values():
            group = components[task["componentRef"]["name"]]
            if "dag" in group and all(
                "condition" in t.get("triggerPolicy", {}) for t in group["dag"]["tasks"].values()
            ):
                _flatten(task, group, components)


def _flatten(task: Tree, group: Tree, components: Tree) -> None:
    branches: Tree = group["dag"]["tasks"]
    (channel,) = {
        name for branch in branches.values() for name in _CHANNEL.findall(branch["triggerPolicy"]["condition"])
    }
    task["taskInfo"]["name"] = next(iter(branches.values()))["taskInfo"]["name"]
    _rename(task["inputs"]["parameters"], channel)
    _rename(group["inputDefinitions"]["parameters"], channel)
    tasks, came_from = {}, {}
    for branch_name, branch in branches.items():
        inner = components.pop(branch["componentRef"]["name"])["dag"]
        ((name, own),) = inner["tasks"].items()
        given = branch["inputs"]["parameters"]
        for key, value in own["inputs"]["parameters"].items():
            if "componentInputParameter" in value:
                own["inputs"]["parameters"][key] = given[value["componentInputParameter"]]
        for value in own["inputs"]["parameters"].values():
            if value.get("componentInputParameter") == channel:
                value["componentInputParameter"] = "mode"
        own["triggerPolicy"] = {"condition": branch["triggerPolicy"]["condition"].replace(f"'{channel}'", "'mode'")}
        tasks[name] = own
        for key, output in inner["outputs"]["parameters"].items():
            came_from[branch_name, key] = output["valueFromParameter"]
    group["dag"]["tasks"] = tasks
    for output in group["dag"]["outputs"]["parameters"].values():
        selectors = output["valueFromOneof"]["parameterSelectors"]
        output["valueFromOneof"]["parameterSelectors"] = [
            dict(came_from[one["producerSubtask"], one["outputParameterKey"]]) for one in selectors
        ]


def _rename(parameters: Tree, channel: str) -> None:
    parameters["mode"] = parameters.pop(channel)


def add_choices(spec: Tree, choices: Mapping[str, Sequence[Any]]) -> None:
    """Name the values that a parameter of the pipeline may have, in place: Kubeflow's form shows a select box, and its server refuses others. The
    compiler cannot be asked for it (`typing.Literal` is refused), and servers before 2.16 do not know the field."""
    for name, parameter in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        if values := [True, False] if parameter["parameterType"] == "BOOLEAN" else list(choices.get(name, ())):
            parameter["literals"] = values


def _graphs(spec: Tree) -> Iterator[Tree]:
    yield spec["root"]["dag"]
    yield from [component["dag"] for component in spec["components"].values() if "dag" in component]


def titles(spec: Tree) -> dict[str, str]:
    """What Kubeflow's pages call each task, by the task's name in the workflow."""
    return {name: task["taskInfo"]["name"] for tree in _graphs(spec) for name, task in tree["tasks"].items()}


def stages_of(spec: Tree) -> list[str]:
    """The stages of a compiled chain, in their order; empty of another pipeline."""
    found = [
        (task["inputs"]["parameters"]["index"]["runtimeValue"]["constant"], task["taskInfo"]["name"].partition(" ")[2])
        for tree in _graphs(spec)
        for name, task in tree["tasks"].items()
        if name.startswith("reuse-stage")
    ]
    return [name for _, name in sorted(found)]


def constants_of(spec: Tree, name: str) -> Tree:
    """What the compiler has written into the task of that name; empty where there is no such task."""
    for tree in _graphs(spec):
        if task := tree["tasks"].get(name):
            given = task.get("inputs", {}).get("parameters", {})
            return {key: one["runtimeValue"]["constant"] for key, one in given.items() if "runtimeValue" in one}
    return {}


@dataclass(frozen=True)
class Graph:
    """A compiled pipeline's graph as numbers and as text."""

    levels: int
    """Graphs in one another, the root among them."""
    pods: int
    """Pods of a run in which nothing is taken from Kubeflow's cache and each group takes one branch."""
    sequence: int
    """Nodes of the longest way through the run, one after the other: Kubeflow needs about ten seconds for each."""
    before_training: int
    """Nodes one after the other between the end of a stage and the start of the next one's training."""
    text: str

    def __str__(self) -> str:
        head = (
            f"{self.levels} levels, {self.pods} pods, {self.sequence} nodes in sequence; {self.before_training} nodes in sequence before a "
            "stage's training starts"
        )
        return f"{head}\n\n{self.text}"


def graph(spec: Tree) -> Graph:
    """The graph of a compiled pipeline."""
    components: Tree = spec["components"]
    lines: list[str] = []
    before: list[int] = []
    levels = 1

    def walk(tree: Tree, depth: int, drivers: int) -> tuple[int, int]:
        """Pods and length of a graph; `drivers` are the nodes since the one that everything in it waits for."""
        nonlocal levels
        levels = max(levels, depth)
        tasks: Tree = tree["tasks"]
        pods, ends, executors = 0, dict[str, int](), list[int]()
        waiting = list(_in_order(tasks))
        for name in waiting:
            task = tasks[name]
            component = components[task["componentRef"]["name"]]
            starts = max((ends[other] for other in task.get("dependentTasks", [])), default=0)
            condition = task.get("triggerPolicy", {}).get("condition", "")
            after = ", ".join(tasks[other]["taskInfo"]["name"] for other in task.get("dependentTasks", []))
            said = f" [{_words(condition)}]" if condition else f" after {after}" if after else ""
            lines.append(f"{'  ' * depth}{task['taskInfo']['name']}  ({name}){said}")
            if "dag" in component:
                its_pods, length = walk(component["dag"], depth + 1, 1 if not condition else drivers + 1)
                pods, length = pods + 1, length + 1
            else:
                its_pods, length = 1, 2
                pods += 1
                if name.startswith("train-stage"):
                    before.append(drivers + 1)
            if condition:
                executors.append(its_pods)
            else:
                pods += its_pods
            ends[name] = starts + length
        return pods + max(executors, default=0), max(ends.values())

    pods, length = walk(spec["root"]["dag"], 1, 0)
    return Graph(levels, pods + 1, length + 1, max(before, default=0), "root\n" + "\n".join(lines))


def _in_order(tasks: Tree) -> Iterator[str]:
    """Names of tasks, each after those that it waits for."""
    left = list(tasks)
    told: set[str] = set()
    while left:
        name = next(name for name in left if told.issuperset(tasks[name].get("dependentTasks", [])))
        left.remove(name)
        told.add(name)
        yield name


def _words(condition: str) -> str:
    """A condition as a person writes it."""
    return re.sub(r"inputs\.parameter_values\['(?:pipelinechannel--)?([^']+)'\]", r"\1", condition).replace("&&", "and")
