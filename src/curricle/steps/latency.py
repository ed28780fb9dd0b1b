"""Latency of a trained model on an experiment's own records, by batch size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from curricle.config.experiment import compose_backbone, config_dir_of
from curricle.config.search import Latency, load_benchmark
from curricle.registry import family
from curricle.steps.experiment import read_experiment
from curricle.steps.final import final_folder, select_run
from curricle.store.local import write_whole
from curricle.store.ours import check_output_file, check_replaced


class Probe(Protocol):
    """What a family's `latency` gives."""

    run: Callable[[list[str]], Any]
    """Answers one batch of texts."""
    texts: list[str]
    source: str
    """Where the texts come from."""


def measure_latency(path: Path, backbone: str, overrides: list[str]) -> tuple[Path, dict[str, Any]]:
    """Measure the newest final training of an experiment; the file beside its checkpoint that holds the result, and the result.

    Raises:
        CheckpointError: nothing was trained yet.
    """
    experiment = read_experiment(path, overrides)
    entry = family(experiment.family)
    asked = load_benchmark(experiment, config_dir_of(path))
    config = compose_backbone(experiment, path, backbone, overrides).loaded.config
    pattern = str(final_folder(config.paths.outputs_dir, "{backbone}", "{run_id}") / "checkpoint")
    name = experiment.experiment_name
    run_id, _ = select_run(pattern, backbone, "latest", name, (Path(),), entry.headlines[-1])
    folder = final_folder(config.paths.outputs_dir, backbone, run_id)
    probe: Probe = entry.load("latency")(folder / "checkpoint", config, asked.benchmarking.max_length)
    rows = {str(size): _timed(probe, size, asked.benchmarking) for size in asked.benchmarking.batch_sizes}
    result = {
        "model": str(folder),
        "data": probe.source,
        "iterations": asked.benchmarking.iterations,
        "batch_sizes": rows,
    }
    target = folder / asked.output.filename
    text = json.dumps(result, indent=1) + "\n"
    check_output_file(target)
    check_replaced(target, "curricle train --stage benchmark", lambda head: b'"batch_sizes"' in head)
    write_whole(target, lambda out: out.write(text.encode()))
    return target, result


def _timed(probe: Probe, size: int, asked: Latency) -> dict[str, float]:
    """Mean and 95th percentile of a batch in milliseconds, and texts a second."""
    times = []
    for call in range(asked.warmup_iterations + asked.iterations):
        batch = [probe.texts[(call * size + place) % len(probe.texts)] for place in range(size)]
        began = time.perf_counter()
        probe.run(batch)
        times.append(time.perf_counter() - began)
    times = sorted(times[asked.warmup_iterations :])
    return {
        "mean_ms": 1000 * sum(times) / len(times),
        "p95_ms": 1000 * times[int(0.95 * (len(times) - 1))],
        "texts_per_second": size * len(times) / sum(times),
    }
