"""Which model is meant where none is named: the promoted one, else the last stage of the newest finished chain.

A promotion is a pointer in the store, one a family: a small object that names a stage or a checkpoint. `curricle promote` writes it, and so
does every gate that promotes. A chain is finished when `final.json` at its run's place names its result, or, in a store that was
written before that was done, when all stages of its plan are complete.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from curricle.errors import ConfigError, CurricleError, StoreError, StoreUnavailable
from curricle.planning import ChainPlan, Source
from curricle.registry import family, names
from curricle.steps.source import last_stage_of_run, read_plan, resolve_source
from curricle.store import join_uri, layout, open_store, references
from curricle.store.manifest import Manifest, read_manifest
from curricle.store.runs import stages, survey


@dataclass(frozen=True)
class Promotion:
    """The pointer of one family."""

    family: str
    uri: str
    digest: str
    reason: str
    time: str
    """UTC, ISO 8601, to the second."""


def promote(text: str, store_uri: str, reason: str) -> Promotion:
    """Make the model that `text` means (see `steps.source.resolve_source`) the one that is taken where none is named.

    Raises:
        CheckpointError, StoreError: it is not there, or not complete.
    """
    place = last_stage_of_run(store_uri, text) if "/" not in text and "://" not in text else ""
    source = resolve_source(place or text, store_uri, asked="promote")
    manifest = read_manifest(open_store(source.uri), "")
    name = str(manifest.info.get("family", "")) if manifest else ""
    if name not in names():
        raise ConfigError(f"{source.uri} names the family {name!r}, which is not one of {', '.join(names())}")
    made = Promotion(name, source.uri, source.digest, reason, _now())
    key = _pointer(name)
    record = {
        "model": references.refer(made.uri, join_uri(store_uri, key), store_uri),
        "digest": made.digest,
        "reason": reason,
        "time": made.time,
    }
    open_store(store_uri).write(key, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    return made


def promoted(store_uri: str, name: str) -> Promotion | None:
    """A family's pointer, or None.

    Raises:
        StoreError: the pointer is damaged.
    """
    key = _pointer(name)
    text = open_store(store_uri).read(key)
    if text is None:
        return None
    where = join_uri(store_uri, key)
    try:
        record = json.loads(text)
        uri = references.resolve(record["model"], where)
        return Promotion(name, uri, record["digest"], record["reason"], record["time"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{where} is damaged ({error}); `curricle promote` writes it anew") from None


def default_model(store_uri: str, verb: str = "") -> Source:
    """The model that is meant where none is named, and in its reason why.

    Args:
        verb: what it is wanted for: families without that verb do not count.

    Raises:
        StoreError: there is none; says which stages are complete.
    """
    wanted = [name for name in names() if not verb or verb in (*family(name).verbs, "evaluate")]
    pointers = [pointer for name in wanted if (pointer := promoted(store_uri, name))]
    if pointers:
        newest = max(pointers, key=lambda pointer: pointer.time)
        source = resolve_source(newest.uri, store_uri, asked="the promoted model")
        return Source(source.uri, source.digest, f"promoted {newest.time[:10]} ({newest.reason})")
    store = open_store(store_uri)
    finished: list[tuple[str, str, str]] = []
    for run in survey(store).values():
        if run.run.startswith(layout.SEARCH):
            continue
        place = _result(store_uri, run.run, run.files)
        manifest = read_manifest(open_store(place), "") if place else None
        if manifest and manifest.info.get("family") in wanted:
            finished.append((manifest.created, run.run, place))
    if finished:
        _, run_id, place = max(finished)
        source = resolve_source(place, store_uri, asked="the newest finished chain")
        return Source(
            source.uri, source.digest, f"last stage of {run_id}, the newest finished chain; nothing is promoted"
        )
    raise StoreError(_nothing(store_uri, verb))


def finish_run(plan: ChainPlan, state: str, facts: dict[str, str]) -> None:
    """Write how a run ended to its place; where it succeeded, also which stage is its result."""
    store = open_store(plan.store_uri)
    key = f"{plan.run_id}/{layout.FINAL}"
    record = {"run_id": plan.run_id, "state": state, "time": _now(), **facts}
    if state == "SUCCEEDED":
        last = [stage for stage in plan.stages if stage.start != "skip"][-1]
        record["result"] = references.refer(last.uri, join_uri(plan.store_uri, plan.run_id), plan.store_uri)
    else:
        before = layout.read_record(store.read(key))
        record |= {name: before[name] for name in ("result",) if name in before}
    store.write(key, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


def _result(store_uri: str, run: str, files: set[str]) -> str:
    """The place of a finished run's result; empty where it is not finished."""
    place = join_uri(store_uri, run)
    if layout.FINAL in files:
        record = layout.read_record(open_store(place).read(layout.FINAL))
        if record.get("result"):
            return references.resolve(record["result"], place)
    if layout.PLAN not in files:
        return ""
    try:
        plan = read_plan(store_uri, run)
    except ConfigError:
        return ""
    places = [stage for stage in plan.stages if stage.start != "skip"] if plan else []
    if not places or not all(_complete(stage.uri, stage.digest) for stage in places):
        return ""
    return places[-1].uri


def _complete(uri: str, digest: str) -> bool:
    try:
        manifest: Manifest | None = read_manifest(open_store(uri), "")
    except StoreUnavailable:
        raise
    except CurricleError:
        return False
    return manifest is not None and manifest.digest == digest


def _nothing(store_uri: str, verb: str) -> str:
    complete: Sequence[str] = [place.prefix for place in stages(open_store(store_uri)) if place.complete]
    if complete:
        return (
            f"{store_uri} holds no promoted model and no finished chain{f' that can {verb}' if verb else ''}; complete stages there: "
            f"{', '.join(complete[:8])}{' ...' if len(complete) > 8 else ''}. Name one with --model RUN/STAGE, or pin it with "
            "`curricle promote RUN/STAGE`"
        )
    return (
        f"{store_uri} holds no trained model{f' that can {verb}' if verb else ''}; train one first "
        "(curricle train-curriculum --chain chain_smoke), or name another store with --store"
    )


def _pointer(name: str) -> str:
    return f"{layout.PROMOTED}/{name}.json"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
