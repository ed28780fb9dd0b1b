"""Which model is meant where none is named: the promoted one, else the last stage of the newest finished chain.

A promotion is a pointer in the store, one a family: a small object that names a stage or a checkpoint. `curricle promote` writes it, and so
does every gate that promotes. A chain is finished when `final.json` at its run's place names its result, or, in a store that was
written before that was done, when all stages of its plan are complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from curricle.errors import CheckpointError, ConfigError, CurricleError, StoreError, StoreUnavailable
from curricle.masking import masked
from curricle.planning import ChainPlan, Source
from curricle.registry import canonical, family, first_name, names
from curricle.steps.source import read_plan, resolve_source
from curricle.store import join_uri, layout, open_store, references
from curricle.store.manifest import Manifest, read_manifest
from curricle.store.runs import stages, survey
from curricle.store.strict import read_json


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
    source = resolve_source(text, store_uri, asked="promote")
    manifest = read_manifest(open_store(source.uri), "")
    name = canonical(manifest.info.get("family", "")) if manifest else ""
    if name not in names():
        raise ConfigError(f"{source.uri} names the family {name!r}, which is not one of {', '.join(names())}")
    made = Promotion(name, source.uri, source.digest, masked(reason), layout.now())
    key = _pointer(name)
    record = {
        "model": references.refer(made.uri, join_uri(store_uri, key), store_uri),
        "digest": made.digest,
        "reason": made.reason,
        "time": made.time,
    }
    open_store(store_uri).write(key, layout.write_record(record))
    return made


def promoted(store_uri: str, name: str) -> Promotion | None:
    """A family's pointer, or None.

    Raises:
        StoreError: the pointer is damaged.
    """
    store = open_store(store_uri)
    held = ((key, store.read(key)) for key in map(_pointer, dict.fromkeys((canonical(name), first_name(name)))))
    key, text = next(((key, text) for key, text in held if text is not None), ("", None))
    if text is None:
        return None
    where = join_uri(store_uri, key)
    try:
        record = read_json(text)
        model, *rest = (record[key] for key in ("model", "digest", "reason", "time"))
        if not model or not all(isinstance(value, str) for value in (model, *rest)):
            raise ValueError("model, digest, reason and time must be text")
        return Promotion(canonical(name), references.resolve(model, where), *rest)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{where} is damaged ({error}); `curricle promote` writes it anew") from None


def pinned_because(text: str, store_uri: str) -> str:
    """Why the model that `text` means is promoted; empty where another one is, or none."""
    digest = resolve_source(text, store_uri).digest
    pins = (promoted(store_uri, name) for name in names())
    return next((f"promote ({pin.reason})" for pin in pins if pin and pin.digest == digest), "")


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
        return _pinned(max(pointers, key=lambda pointer: pointer.time), store_uri)
    store = open_store(store_uri)
    finished: list[tuple[str, str, str]] = []
    for run in survey(store).values():
        if run.run.startswith(layout.SEARCH):
            continue
        place = _result(store_uri, run.run, run.files)
        manifest = _manifest(place) if place else None
        if manifest and canonical(manifest.info.get("family")) in wanted:
            finished.append((manifest.created, run.run, place))
    if finished:
        _, run_id, place = max(finished)
        source = resolve_source(place, store_uri, asked="the newest finished chain")
        return Source(
            source.uri, source.digest, f"last stage of {run_id}, the newest finished chain; nothing is promoted"
        )
    raise StoreError(_nothing(store_uri, verb, wanted))


def named_model(text: str, store_uri: str, *, asked: str = "--from-checkpoint", of_family: str = "") -> Source:
    """What a text means (`steps.source.resolve_source`); ``promoted`` is the promoted model.

    Raises:
        CheckpointError, StoreError: it is not there, or not complete.
    """
    if text != layout.PROMOTED:
        return resolve_source(text, store_uri, asked=asked, of_family=of_family)
    wanted = [canonical(of_family)] if of_family else names()
    pointers = [pointer for name in wanted if (pointer := promoted(store_uri, name))]
    if not pointers:
        raise CheckpointError(
            f"{asked} {text}: {store_uri} holds no promoted model{f' of {wanted[0]}' if of_family else ''}; `curricle promote RUN` pins one, or name a stage, a run or a path"
        )
    return _pinned(max(pointers, key=lambda pointer: pointer.time), store_uri)


def _pinned(pointer: Promotion, store_uri: str) -> Source:
    """The model that a pointer names.

    Raises:
        StoreError: it is not there any more, or is not what was promoted.
    """
    where = join_uri(store_uri, _pointer(pointer.family))
    again = "`curricle promote RUN/STAGE` pins another one, --model names one for once"
    try:
        source = resolve_source(pointer.uri, store_uri, asked="the promoted model")
    except StoreUnavailable:
        raise
    except CurricleError as error:
        raise StoreError(f"{where} pins {pointer.uri}, which cannot be taken: {error}. {again}") from None
    if source.digest != pointer.digest:
        raise StoreError(
            f"{where} pins {pointer.uri} with digest {pointer.digest[:12]}, and what lies there now has {source.digest[:12]}: it was "
            f"trained again since. {again}"
        )
    return Source(source.uri, source.digest, f"promoted {pointer.time[:10]} ({pointer.reason})")


def finish_run(plan: ChainPlan, state: str, facts: dict[str, str]) -> None:
    """Write how a run ended to its place; where it succeeded, also which stage is its result."""
    store = open_store(plan.store_uri)
    key = f"{plan.run_id}/{layout.FINAL}"
    record = {"run_id": plan.run_id, "state": state, "time": layout.now(), **facts}
    if state == "SUCCEEDED":
        record["result"] = references.refer(
            plan.selected[-1].uri, join_uri(plan.store_uri, plan.run_id), plan.store_uri
        )
    else:
        before = layout.read_record(store.read(key))
        record |= {name: before[name] for name in ("result",) if name in before}
    store.write(key, layout.write_record(record))


def _result(store_uri: str, run: str, files: set[str]) -> str:
    """The place of a finished run's result; empty where it is not finished."""
    place = join_uri(store_uri, run)
    if layout.FINAL in files:
        record = layout.read_record(open_store(place).read(layout.FINAL))
        result = record.get("result")
        if isinstance(result, str) and references.is_relative(result):
            with suppress(ValueError):  # a damaged one costs this run only
                return references.resolve(result, place)
    if layout.PLAN not in files:
        return ""
    try:
        plan = read_plan(store_uri, run)
    except ConfigError:
        return ""
    places = plan.selected if plan else ()
    if not places or not all(_complete(stage.uri, stage.digest) for stage in places):
        return ""
    return places[-1].uri


def _complete(uri: str, digest: str) -> bool:
    manifest = _manifest(uri)
    return manifest is not None and manifest.digest == digest


def _manifest(uri: str) -> Manifest | None:
    """A stage's manifest; None where there is none, or a damaged one: such a run is not finished."""
    try:
        return read_manifest(open_store(uri), "")
    except StoreUnavailable:
        raise
    except CurricleError:
        return None


def _nothing(store_uri: str, verb: str, wanted: Sequence[str]) -> str:
    store = open_store(store_uri)
    complete = [
        place.prefix
        for place in stages(store)
        if place.complete
        and canonical(layout.read_record(store.read(f"{place.prefix}/{layout.STAGE}")).get("family")) in wanted
    ]
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
