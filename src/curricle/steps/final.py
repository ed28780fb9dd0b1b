"""Final trainings as folders: where the guide's patterns look for them, how one is chosen, and the cache files that lead to them.

<outputs_dir>/final_training/<backbone>_<run_id>/
  checkpoint/      the trained model as its family writes it, with its card (README.md)
  run.json         experiment, backbone, run id, metrics, where the model came from
notebooks/final_training_cache.json          output_dir of the newest one
notebooks/best_configuration_cache.json      the best configuration known, with the output_dir of its training once there is one
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curricle.cards.card import FILE
from curricle.errors import CheckpointError
from curricle.store import layout, references
from curricle.store.local import what_else, write_whole
from curricle.store.manifest import Manifest
from curricle.store.ours import new_folder
from curricle.store.strict import read_json

FINAL_CACHE = Path("notebooks/final_training_cache.json")
BEST_CACHE = Path("notebooks/best_configuration_cache.json")


def final_folder(outputs_dir: str | Path, backbone: str, run_id: str) -> Path:
    """The folder of a final training."""
    return Path(outputs_dir) / "final_training" / f"{backbone}_{run_id}"


def write_final(checkpoint: Path, manifest: Manifest, target: Path, record: Mapping[str, Any], card: str = "") -> Path:
    """Copy a trained checkpoint to `target`, whole or not at all, and point the cache files at it; the checkpoint's new place.

    A folder of the same run is kept as it is: the same run holds the same model.

    Args:
        checkpoint: its files on this machine.
        manifest: its manifest; the copy's references are made good for the new place.
        record: what `run.json` says; `checkpoint_uri` is where the checkpoint lies in its store.
        card: README.md of the model; empty for none.
    """
    if not target.exists():
        with new_folder(target) as work:
            shutil.copytree(checkpoint, work / "checkpoint")
            lineage = references.relocate(manifest.lineage, record["checkpoint_uri"], str(target / "checkpoint"), "")
            (work / "checkpoint" / layout.MANIFEST).write_text(
                replace(manifest, lineage=lineage).to_json(), encoding="utf-8"
            )
            if card:
                (work / "checkpoint" / FILE).write_text(card, encoding="utf-8")
            _write(work / "run.json", {"created": datetime.now(UTC).isoformat(timespec="seconds"), **record})
    output = {"output_dir": str(target.resolve())}
    output |= {name: record[name] for name in ("backbone", "run_id", "experiment", "config", "metrics")}
    _write(FINAL_CACHE, output)
    best = read_cache(BEST_CACHE)
    if (best.get("experiment"), best.get("backbone")) != (record["experiment"], record["backbone"]):
        best = {name: record[name] for name in ("experiment", "backbone")} | {"hyperparameters": record["config"]}
    _write(BEST_CACHE, best | {name: output[name] for name in ("output_dir", "run_id")})
    return target / "checkpoint"


def write_best(result: Mapping[str, Any]) -> None:
    """Write a search's result."""
    _write(BEST_CACHE, result)


def read_cache(path: Path) -> dict[str, Any]:
    """A cache file's object; empty where there is none.

    Raises:
        CheckpointError: it is not JSON.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is {what_else(path) or 'a folder'}, where a file was expected")
    try:
        content = read_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}; delete it, or restore it") from None
    return content if isinstance(content, dict) else {}


def select_run(
    pattern: str, backbone: str, selection: str, experiment: str, roots: tuple[Path, ...], metric: str
) -> tuple[str, str]:
    """The run id that fills ``{run_id}`` of a source path, and why.

    Args:
        pattern: the source path.
        selection: ``latest``, ``best`` (highest `metric`), or a run id.
        experiment: only its runs, and folders without a run.json, count.
        roots: folders that a relative pattern is tried against.
        metric: the validation metric that `best` goes by.

    Raises:
        CheckpointError: there is no such run; says what to train first.
    """
    if selection not in ("latest", "best"):
        return selection, f"checkpoint_selection {selection}"
    runs, others = _final_trainings(pattern.replace("{backbone}", backbone), experiment, roots)
    if not runs:
        beside = f" (there are trainings of {', '.join(sorted(others))})" if others else ""
        raise CheckpointError(
            f"checkpoint_selection {selection}: no final training of {experiment} with backbone {backbone} matches "
            f"{pattern}{beside}; run `curricle train --experiment config/experiment/{experiment}.yaml --backbone {backbone}` first, set "
            "CHECKPOINT_PATH, or name a run id"
        )
    if selection == "best":
        scored = {run: r["metrics"][metric] for run, r in runs.items() if metric in r.get("metrics", {})}
        if not scored:
            raise CheckpointError(
                f"checkpoint_selection best: none of {', '.join(sorted(runs))} has a run.json with {metric}; "
                "take latest, or a run id"
            )
        run = max(scored, key=lambda r: (scored[r], r))
        return run, f"best of {len(scored)} final trainings of {experiment} ({metric} {scored[run]:.4f})"
    run = max(runs, key=lambda r: (runs[r].get("created", ""), r))
    return run, f"latest of {len(runs)} final trainings of {experiment}"


def _final_trainings(
    pattern: str, experiment: str, roots: tuple[Path, ...]
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Records of the final trainings that match a pattern, by run id; and which other experiments left some there."""
    placeholder = re.escape("{run_id}")
    expression = re.escape(pattern).replace(placeholder, r"(?P<run>[^/]+)", 1).replace(placeholder, "(?P=run)")
    glob = pattern.replace("{run_id}", "*")
    absolute = Path(glob).is_absolute()
    runs: dict[str, dict[str, Any]] = {}
    others: set[str] = set()
    for root in roots:
        base = Path(Path(glob).anchor) if absolute else root
        for folder in sorted(base.glob(glob.lstrip("/"))):
            match = re.fullmatch(expression, folder.as_posix() if absolute else folder.relative_to(root).as_posix())
            if match is None or not folder.is_dir():
                continue
            record = read_cache(folder.parent / "run.json")
            if record.get("experiment", experiment) != experiment:
                others.add(str(record["experiment"]))
            else:
                runs.setdefault(match["run"], record)
    return runs, others


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_whole(path, lambda out: out.write(text.encode()))
