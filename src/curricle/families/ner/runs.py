"""Final trainings as folders: where the guide's patterns look for them, how one is chosen, and the cache files that lead to them.

<outputs_dir>/final_training/<backbone>_<run_id>/
  checkpoint/      the trained model: config.json, weights, tokenizer, labels
  run.json         experiment, backbone, run id, metrics, where the model came from
notebooks/final_training_cache.json          output_dir of the newest one
notebooks/best_configuration_cache.json      the best configuration known, with the output_dir of its training once there is one
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curricle.errors import CheckpointError

FINAL_CACHE = Path("notebooks/final_training_cache.json")
BEST_CACHE = Path("notebooks/best_configuration_cache.json")


def final_folder(outputs_dir: str | Path, backbone: str, run_id: str) -> Path:
    """The folder of a final training."""
    return Path(outputs_dir) / "final_training" / f"{backbone}_{run_id}"


def write_final(checkpoint: Path, target: Path, record: Mapping[str, Any]) -> Path:
    """Copy a trained checkpoint to `target`, whole or not at all, and point the cache files at it; the checkpoint's new place.

    A folder of the same run is kept as it is: the same run holds the same model.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            shutil.copytree(checkpoint, work / "checkpoint")
            _write(work / "run.json", {"created": datetime.now(UTC).isoformat(timespec="seconds"), **record})
            work.chmod(0o755)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    output = {
        "output_dir": str(target.resolve()),
        "backbone": record["backbone"],
        "run_id": record["run_id"],
        "experiment": record["experiment"],
        "config": record["config"],
        "metrics": record["metrics"],
    }
    _write(FINAL_CACHE, output)
    best = read_cache(BEST_CACHE)
    if (best.get("experiment"), best.get("backbone")) != (record["experiment"], record["backbone"]):
        best = {"experiment": record["experiment"], "backbone": record["backbone"], "hyperparameters": record["config"]}
    _write(BEST_CACHE, best | {name: output[name] for name in ("output_dir", "run_id")})
    return target / "checkpoint"


def write_best(found: Mapping[str, Any]) -> None:
    """Write a search's result."""
    _write(BEST_CACHE, found)


def read_cache(path: Path) -> dict[str, Any]:
    """A cache file's object; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}; delete it, or restore it") from None
    return content if isinstance(content, dict) else {}


def select_run(
    pattern: str, backbone: str, selection: str, experiment: str, roots: tuple[Path, ...]
) -> tuple[str, str]:
    """The run id that fills ``{run_id}`` of a source path, and why.

    Args:
        pattern: the source path.
        selection: ``latest``, ``best`` (highest validation F1), or a run id.
        experiment: only its runs, and folders without a run.json, count.
        roots: folders that a relative pattern is tried against.

    Raises:
        CheckpointError: there is no such run; says what to train first.
    """
    if selection not in ("latest", "best"):
        return selection, f"checkpoint_selection {selection}"
    filled = pattern.replace("{backbone}", backbone)
    wild = re.compile(
        re.escape(filled)
        .replace(re.escape("{run_id}"), r"(?P<run>[^/]+)", 1)
        .replace(re.escape("{run_id}"), "(?P=run)")
    )
    found: dict[str, dict[str, Any]] = {}
    others: set[str] = set()
    for root in roots:
        glob = filled.replace("{run_id}", "*")
        base = Path(glob).anchor or root
        for folder in sorted(Path(base).glob(glob.lstrip("/"))):
            match = wild.fullmatch(
                folder.as_posix() if Path(glob).is_absolute() else folder.relative_to(root).as_posix()
            )
            if match is None or not folder.is_dir():
                continue
            record = read_cache(folder.parent / "run.json")
            if record.get("experiment", experiment) != experiment:
                others.add(str(record["experiment"]))
            else:
                found.setdefault(match["run"], record)
    if not found:
        beside = f" (there are trainings of {', '.join(sorted(others))})" if others else ""
        raise CheckpointError(
            f"checkpoint_selection {selection}: no final training of {experiment} with backbone {backbone} matches "
            f"{pattern}{beside}; run `curricle train --experiment config/experiment/{experiment}.yaml` first, set "
            "CHECKPOINT_PATH, or name a run id"
        )
    if selection == "best":
        scored = {
            run: record["metrics"]["val/f1"] for run, record in found.items() if "val/f1" in record.get("metrics", {})
        }
        if not scored:
            raise CheckpointError(
                f"checkpoint_selection best: none of {', '.join(sorted(found))} has a run.json with val/f1; take latest, or a run id"
            )
        run = max(scored, key=lambda r: (scored[r], r))
        return run, f"best of {len(scored)} final trainings of {experiment} (val/f1 {scored[run]:.4f})"
    run = max(found, key=lambda r: (found[r].get("created", ""), r))
    return run, f"latest of {len(found)} final trainings of {experiment}"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)
