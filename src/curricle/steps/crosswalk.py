"""Crosswalk: a model of one classification becomes a model of another. Its data are carried over by the family, and it is trained further by a chain of continued training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curricle.config.load import leaves, parse_yaml
from curricle.errors import ConfigError
from curricle.launch.job import Launcher
from curricle.planning import ChainPlan
from curricle.steps.chain import ChainRequest, Judged, judge_chain, make_plan, run_chain
from curricle.steps.evaluate import data_of
from curricle.steps.train import StageOutcome
from curricle.steps.use import Model
from curricle.store import join_uri, layout, open_store
from curricle.store.manifest import fetch, publish, read_manifest
from curricle.store.scratch import scratch
from curricle.training.events import Listener

GATE = "drop <= 0.01"
"""Rule where nothing else is said: top-1 of the texts whose new code is certain, against the old model through the concordance."""
GATE_WITH_NEW = "gain >= 0 and drop <= 0.01"
"""The same where texts of the new classification are given."""
REPORT = "report.json"


@dataclass(frozen=True)
class CarriedModel:
    """What a crosswalk made of a model's data, before it is trained."""

    data_uri: str
    """Prepared data of the new classification, in the store."""
    report: dict[str, Any]
    """What became of codes and texts, as the family says it."""


def carry(model: Model, concordance: Path, store_uri: str, tables: Path, **options: str) -> CarriedModel:
    """Carry a model's data over to another classification: into the store, and as tables for people into a folder.

    Args:
        options: of the family's crosswalk (`FamilyEntry.crosswalk`).

    Raises:
        ConfigError: the family has no crosswalk.
        DataError: a table is missing, damaged or of other codes.
    """
    work = model.entry.load("crosswalk")
    data_dir, before = fetch(data_of(model.manifest, model.uri), model.cache_dir)
    with scratch("curricle-crosswalk-") as place:
        facts = work(model.folder, data_dir, concordance, place / "prepared", tables, **options)
        digest = hashlib.sha256(f"crosswalk of {before.digest}\n".encode())
        for path in sorted((place / "prepared").iterdir()):
            digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        name = f"{layout.DATA}/{model.family}-{digest.hexdigest()[:16]}"
        store = open_store(store_uri)
        if read_manifest(store, name) is None:
            info = {"family": model.family} | facts
            publish(store, name, place / "prepared", kind="dataset", digest=digest.hexdigest(), info=info)
    return CarriedModel(join_uri(store_uri, name), facts["crosswalk"])


def plan_further(model: Model, carried: CarriedModel, request: ChainRequest) -> ChainPlan:
    """Plan the training that follows: the family's chain, from the model, on the carried data; settings on which its weights depend are the model's.

    Args:
        request: configuration, overrides and run id; the rest is filled in. Overrides may name texts of the new classification.
    """
    entry = model.entry
    own = leaves(parse_yaml((model.folder / layout.CONFIG).read_text(encoding="utf-8"), str(model.folder)).tree)
    given = {item.partition("=")[0] for item in request.overrides}
    kept = [f"{key}={json.dumps(own[key])}" for key in entry.kept if key in own and key not in given]
    new = _names_texts(entry.continues, given)
    overrides = [*kept, *request.overrides, *([f"{entry.continues}={json.dumps(carried.data_uri)}"] if new else [])]
    gate = request.gate if request.gate is not None else GATE_WITH_NEW if new else GATE
    return make_plan(
        replace(
            request,
            chain=request.chain or entry.crosswalk_chain,
            overrides=tuple(overrides),
            from_checkpoint=model.uri,
            data_uris=() if new else (carried.data_uri,),
            gate=gate,
        )
    )


def _names_texts(continues: str, given: set[str]) -> bool:
    """Whether overrides name data of the new classification beside the carried ones."""
    section = continues.partition(".")[0]
    named = {key for key in given if key.startswith(f"{section}.")}
    if continues in named:
        raise ConfigError(f"{continues} is what the crosswalk makes; leave it out")
    return f"{section}.labelled" in named


def train_further(plan: ChainPlan, launcher: Launcher, listen: Listener) -> tuple[StageOutcome, Judged | None]:
    """Train as planned and judge the result; nothing is pinned: from then on all answers would be of the new codes, which is a person's decision."""
    outcome = run_chain(plan, launcher, listen)[-1]
    return outcome, judge_chain(plan, outcome.uri, pins=False)


def write_report(folder: Path, carried: CarriedModel, outcome: StageOutcome | None, judged: Judged | None) -> None:
    """Write what was done as JSON beside the tables."""
    record: dict[str, Any] = {"crosswalk": carried.report, "data_uri": carried.data_uri}
    if outcome is not None:
        record["model_uri"] = outcome.uri
        record["metrics"] = outcome.metrics
    if judged is not None:
        verdict, scores = judged.verdict, judged.scores
        record |= {
            "decision": verdict.decision,
            "reason": verdict.reason,
            "before": scores.before,
            "after": scores.after,
        }
    (folder / REPORT).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
