"""Search and benchmark files of an experiment: what is searched and how, what latency is measured with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from curricle.config.experiment import Experiment, StageBlock, without_unused, words_of
from curricle.config.load import Loaded, build, read_yaml
from curricle.config.schema import Count, Epochs, Range, Tokens, Weight, require
from curricle.errors import ConfigError
from curricle.registry import family

PAIRS = 1000
"""Pairs of searched values that are checked before a search, at most: some seconds."""
Bound = Annotated[float, Range("[-1e30, 1e30]")]


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One searched value."""

    type: Literal["choice", "uniform", "loguniform"]
    """How it is drawn."""
    values: tuple[Any, ...] = ()
    """Of `choice`."""
    min: Bound | None = None
    """Of `uniform` and `loguniform`."""
    max: Bound | None = None
    """Of `uniform` and `loguniform`."""

    def __post_init__(self) -> None:
        if self.type == "choice":
            require(bool(self.values), "values must name at least one value of a choice")
            require(self.min is None and self.max is None, "min and max have no meaning beside the values of a choice")
        else:
            require(not self.values, f"values have no meaning for {self.type}, which is drawn from min to max")
            require(
                self.min is not None and self.max is not None and self.min < self.max,
                f"min and max must be given, min below max, for {self.type}",
            )
            require(self.type == "uniform" or (self.min or 0) > 0, "min must be above 0 for loguniform")

    @property
    def ends(self) -> tuple[Any, ...]:
        """What has to be allowed for every value to be: all values of a choice, both ends of a range."""
        return self.values if self.type == "choice" else (self.min, self.max)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How trials are drawn and how many."""

    algorithm: Literal["random", "tpe"] = "random"
    """Optuna's sampler."""
    max_trials: Annotated[int, Range("[1, 100000]")] = 10
    """Trials of the search, those of an earlier call counted, and those that failed."""
    timeout_minutes: Annotated[float, Range("(0, 10000000]")] = 240.0
    """No trial is begun after this."""


@dataclass(frozen=True, kw_only=True)
class EarlyTermination:
    """Ends trials that fall behind the median of those before (the guide's `bandit` too: its code always took the median)."""

    policy: Literal["median", "bandit"] = "median"
    """Rule."""
    evaluation_interval: Annotated[int, Range("[1, 100000]")] = 1
    """Epochs between two looks."""
    delay_evaluation: Epochs = 0
    """Epochs before the first."""
    slack_factor: Weight | None = None
    """Of the guide's bandit; without effect."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is searched for."""

    metric: str = "val/f1"
    """A metric of the trained stage."""
    goal: Literal["maximize", "minimize"] = "maximize"
    """Direction."""

    def __post_init__(self) -> None:
        require(
            self.goal == "minimize" or not self.metric.endswith("loss"),
            f"goal must be minimize for {self.metric}: the highest loss is the worst trial",
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search file."""

    search_space: dict[str, Dimension]
    """By the training file's words (learning_rate, batch_size, weight_decay, dropout, epochs) or a dotted key of the configuration."""
    sampling: Sampling = field(default_factory=Sampling)
    """Trials."""
    early_termination: EarlyTermination | None = None
    """Pruning."""
    objective: Objective = field(default_factory=Objective)
    """Goal."""

    def __post_init__(self) -> None:
        require(bool(self.search_space), "search_space must name at least one value to search")


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How latency is measured."""

    batch_sizes: tuple[Annotated[int, Range("[1, 1000000]")], ...] = (1, 8, 16)
    """Texts at once."""
    iterations: Count = 100
    """Measured calls a batch size."""
    warmup_iterations: Annotated[int, Range("[0, 1000000000]")] = 10
    """Calls before that."""
    max_length: Tokens | None = None
    """Window length; null keeps the model's."""

    def __post_init__(self) -> None:
        require(bool(self.batch_sizes), "batch_sizes must name at least one size")


@dataclass(frozen=True, kw_only=True)
class LatencyOutput:
    """Where it is written."""

    filename: str = "benchmark.json"
    """Name of the file, beside the model's; never a path, and never that of the training's own `run.json`."""

    def __post_init__(self) -> None:
        plain = self.filename.endswith(".json") and not {"/", "\\", "\0"} & set(self.filename)
        require(
            plain and self.filename[0] != "." and self.filename != "run.json",
            f"filename must be a plain name that ends in .json, and not run.json; it is {self.filename!r}",
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark file."""

    benchmarking: Latency = field(default_factory=Latency)
    """Measurement."""
    output: LatencyOutput = field(default_factory=LatencyOutput)
    """Result."""


def draws_to_check(search: Search) -> Iterator[dict[str, Any]]:
    """Draws that hold every value there is, and every pair of them (`PAIRS` at most): if these are allowed, so is (nearly) every draw.

    Every one of them could be drawn: a value is never set beside one that no trial has.
    """
    space = {name: dimension.ends for name, dimension in search.search_space.items()}
    first = {name: values[0] for name, values in space.items()}
    yield first
    for name, values in space.items():
        yield from (first | {name: value} for value in values[1:])
    pairs = (
        first | {one: mine, other: theirs}
        for one, other in itertools.combinations(space, 2)
        for mine, theirs in itertools.product(space[one][1:], space[other][1:])
    )
    yield from itertools.islice(pairs, PAIRS)


def load_search(experiment: Experiment, config_dir: Path, block: StageBlock | None) -> Loaded[Search]:
    """The search that a stage makes, and where each of its values stands.

    Raises:
        ConfigError: no search file is named, or it is wrong.
    """
    name = (block.hpo_config if block else "") or experiment.hpo_config
    if not name:
        raise ConfigError(f"experiment {experiment.experiment_name} names no hpo_config; a search needs one")
    words = words_of(family(experiment.family))
    layer, _ = without_unused(read_yaml(config_dir / name, what="hpo_config"), "search file", words)
    return build(Search, layer)


def load_benchmark(experiment: Experiment, config_dir: Path) -> Benchmark:
    """The latency measurement.

    Raises:
        ConfigError: no benchmark file is named, or it is wrong.
    """
    if not experiment.benchmark_config:
        raise ConfigError(f"experiment {experiment.experiment_name} names no benchmark_config")
    words = words_of(family(experiment.family))
    layer, _ = without_unused(
        read_yaml(config_dir / experiment.benchmark_config, what="benchmark_config"), "benchmark file", words
    )
    return build(Benchmark, layer).config
