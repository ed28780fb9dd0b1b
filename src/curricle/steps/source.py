"""Which checkpoint is meant by a name, a path, a URI or an MLflow run. One that is missing or broken is an error, never a detour."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from curricle import environment
from curricle.config.schema import TrackingConfig
from curricle.errors import CheckpointError, CurricleError, StoreUnavailable
from curricle.planning import ChainPlan, Source
from curricle.registry import canonical
from curricle.store import Store, join_uri, layout, open_store
from curricle.store.local import what_else
from curricle.store.manifest import Manifest, read_manifest
from curricle.store.runs import survey


@dataclass(frozen=True)
class Candidate:
    """A complete checkpoint of a stage, with its validation loss."""

    uri: str
    val_loss: float
    manifest: Manifest


def resolve_source(text: str, store_uri: str, *, asked: str = "--from-checkpoint", of_family: str = "") -> Source:
    """The checkpoint that a text means.

    Args:
        text: a stage's name (the lowest validation loss over all runs wins), a run's id (its last stage), ``RUN/STAGE``, the path or URI of
            a checkpoint, a stage or a run, or an MLflow run id (32 hex digits).
        store_uri: where runs are looked for by name.
        asked: what a message calls the question: the option that the text was given by.
        of_family: of a stage's name, only checkpoints of this family are meant; empty takes all.

    Raises:
        CheckpointError: nothing complete was found, or the text names a run and a stage; lists what is there.
    """
    what = f"{asked} {text}"
    if "://" in text or Path(text).is_absolute():
        return _at(text, what)
    if "/" in text or text.endswith(".ckpt"):
        return _of_path(text, store_uri, what)
    if re.fullmatch(r"[0-9a-f]{32}", text):
        return _of_mlflow_run(text, what)
    return _of_name(text, store_uri, what, of_family)


def no_run(store_uri: str, run: str) -> str:
    """What is said of a run that a store does not hold: which ones it holds."""
    runs = [place for place in survey(open_store(store_uri)).values() if layout.PLAN in place.files or place.trained()]
    there = ", ".join(place.run for place in sorted(runs, key=lambda place: place.modified)) or "none"
    return f"{store_uri} holds no run {run!r}; runs there: {there}"


def no_stage(store_uri: str, run: str, stage: str, stages: Iterable[str]) -> str:
    """The same of a stage that a run has not."""
    return f"{run} in {store_uri} has no stage {stage!r}; its stages: {', '.join(stages) or 'none'}"


def best_checkpoint(place_uri: str) -> str:
    """The best checkpoint of a complete stage, by URI.

    Raises:
        CheckpointError: the stage is not complete.
    """
    manifest = read_manifest(open_store(place_uri), "")
    if manifest is None or manifest.kind != "stage":
        raise CheckpointError(
            f"{place_uri} holds no complete stage ({layout.MANIFEST} is missing); {_listing(place_uri)}"
        )
    best = manifest.info.get("best")
    if not isinstance(best, str) or not layout.parse_checkpoint_name(best) or "/" in best:
        raise CheckpointError(f"{join_uri(place_uri, layout.MANIFEST)} is damaged: its best checkpoint is {best!r}")
    return join_uri(place_uri, best)


def require_family(source: Source, name: str) -> None:
    """Refuse a checkpoint of another family; one that names none is let through.

    Raises:
        CheckpointError: names both.
    """
    manifest = read_manifest(open_store(source.uri), "")
    theirs = manifest.info.get("family") if manifest else None
    if theirs and canonical(theirs) != canonical(name):
        raise CheckpointError(f"{source.uri} is a checkpoint of {theirs}; a training of {name} cannot start from it")


def _at(uri: str, what: str) -> Source:
    uri = uri.rstrip("/")
    manifest = read_manifest(open_store(uri), "")
    if manifest is None:
        if (plan := open_store(uri).read(layout.PLAN)) is not None:
            return _at(last_stage(ChainPlan.from_stored(plan, uri)), what)
        raise CheckpointError(f"{what}: no complete checkpoint there ({layout.MANIFEST} is missing); {_listing(uri)}")
    if manifest.kind == "stage":
        return Source(best_checkpoint(uri), manifest.digest, f"best checkpoint of {uri}")
    if manifest.kind != "checkpoint":
        raise CheckpointError(f"{what} is a {manifest.kind}, not a checkpoint")
    digest = manifest.digest
    if uri.rpartition("/")[2] in (
        layout.LAST,
        layout.SPARE,
    ):  # its digest is the stage's, and stands for the best checkpoint
        content = "".join(f"{name} {entry.sha256}\n" for name, entry in sorted(manifest.files.items()))
        digest = hashlib.sha256(f"{digest}\n{content}".encode()).hexdigest()
    return Source(uri, digest, f"checkpoint {uri}")


def _of_path(text: str, store_uri: str, what: str) -> Source:
    """``RUN/STAGE``, or what lies below it, of the store; else a path from here."""
    inside = join_uri(store_uri, text) if store_uri else ""
    if inside and read_manifest(open_store(inside), ""):
        return _at(inside, what)
    run, _, rest = text.partition("/")
    stage = rest.partition("/")[0]
    if not inside or not stage or stage.endswith(".ckpt") or text.startswith(".") or Path(text).exists():
        return _at(text, what)
    place = survey(open_store(store_uri), run).get(run)
    if place is None:
        raise CheckpointError(f"{what}: {no_run(store_uri, run)}; there is no path {text} here either")
    if stage not in place.stages:
        begun = [name for name, one in place.stages.items() if one.checkpoints or one in place.trained()]
        raise CheckpointError(f"{what}: {no_stage(store_uri, run, stage, begun)}")
    return _at(inside, what)


def _of_name(name: str, store_uri: str, what: str, of_family: str) -> Source:
    store = open_store(store_uri)
    good, broken, stages = find_checkpoints(store, store_uri, name)
    plan = read_plan(store_uri, name)
    if good and plan:
        raise CheckpointError(
            f"{what}: {name} names a run and a stage in {store_uri}; say {name}/{plan.selected[-1].name} for the run's, RUN/{name} for the stage of one run"
        )
    if plan:
        return _at(last_stage(plan), what)
    if of_family:
        of_family = canonical(of_family)
        others = sorted({canonical(c.manifest.info.get("family")) for c in good} - {of_family})
        good = [c for c in good if canonical(c.manifest.info.get("family")) == of_family]
        if others and not good:
            broken.append(f"those of {', '.join(others)}, for {of_family} is trained")
    if not good:
        unreadable = "; unreadable: " + "; ".join(broken) if broken else ""
        trained = (
            f"stages with checkpoints there: {', '.join(stages)}" if stages else "no checkpoint of any stage is there"
        )
        here = Path(name)
        beside = ""
        if here.exists():
            beside = (
                f": ./{name} for the folder here"
                if here.is_dir()
                else f"; {name} here is {what_else(here) or 'a file'}"
            )
        raise CheckpointError(
            f"{what}: {store_uri} holds no complete checkpoint of stage {name!r}{unreadable}; {trained}. "
            f"Train {name} first, or give the path of a checkpoint{beside}"
        )
    best = min(good, key=lambda c: c.val_loss)
    ties = [c for c in good if c.val_loss == best.val_loss]
    best = max(ties, key=lambda c: (c.manifest.created, c.uri))
    reason = f"best of {len(good)} checkpoint{'s' if len(good) > 1 else ''} of {name} (val_loss {best.val_loss:.4f})"
    if len(ties) > 1:
        reason += f"; {len(ties)} tie, the newest was taken"
    if broken:
        reason += f"; left out as unreadable: {'; '.join(broken)}"
    return Source(best.uri, best.manifest.digest, reason)


def read_plan(store_uri: str, run: str) -> ChainPlan | None:
    """The plan of a run, or None where the store holds none.

    Raises:
        ConfigError: it is damaged, or of another version of curricle.
    """
    place = join_uri(store_uri, layout.run_folder(run))
    text = open_store(place).read(layout.PLAN)
    return ChainPlan.from_stored(text, place) if text is not None else None


def write_plan(plan: ChainPlan) -> str:
    """Write a plan to its run's place; its URI."""
    key = f"{plan.run_id}/{layout.PLAN}"
    open_store(plan.store_uri).write(key, plan.to_stored().encode())
    return join_uri(plan.store_uri, key)


def last_stage(plan: ChainPlan) -> str:
    """The place of a run's last stage.

    Raises:
        CheckpointError: the run is not complete.
    """
    last = plan.selected[-1]
    if read_manifest(open_store(last.uri), "") is None:
        raise CheckpointError(
            f"run {plan.run_id} is not complete: its last stage {last.name} has no {layout.MANIFEST} at {last.uri}; "
            "run the same command again, it goes on from there"
        )
    return last.uri


def _of_mlflow_run(run_id: str, what: str) -> Source:
    """The stage that an MLflow run tracked: its tags and parameters say which."""
    tracking = environment.mlflow_uri() or TrackingConfig().mlflow_uri
    path = tracking.removeprefix("sqlite:///")
    if path != tracking and not Path(path).is_file():
        raise CheckpointError(
            f"{what} looks like an MLflow run id, but {tracking} is not there; set {environment.MLFLOW_TRACKING_URI}"
        )
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        run = MlflowClient(tracking).get_run(run_id)
    except MlflowException as error:
        raise CheckpointError(f"{what}: {tracking} knows no such run ({error.message})") from None
    except Exception as error:  # an address that is none makes MLflow, its database or its driver fail in any way
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{what}: MLflow at {tracking} cannot be asked ({said}); set {environment.MLFLOW_TRACKING_URI}"
        ) from None
    tags, params = run.data.tags, run.data.params
    missing = [name for name in ("curricle.run", "curricle.stage") if name not in tags]
    missing += [name for name in ("paths.store_uri",) if name not in params]
    if missing:
        raise CheckpointError(
            f"{what}: the MLflow run {run.info.run_name} has no {', '.join(missing)}; it is no run of Curricle"
        )
    digest = tags.get("curricle.digest", "")
    place = _place_of(params["paths.store_uri"], tags["curricle.run"], tags["curricle.stage"], digest)
    stage = _at(place, what)
    if digest and stage.digest != digest:
        raise CheckpointError(
            f"{what}: the MLflow run {run.info.run_name} trained digest {digest[:12]}, and {place} holds {stage.digest[:12]}: it was trained again since"
        )
    return Source(stage.uri, stage.digest, f"MLflow run {run.info.run_name}")


def _place_of(store_uri: str, run: str, stage: str, digest: str) -> str:
    """Where a run keeps the stage with that digest: at the place of its name, or apart; else the former."""
    places = [join_uri(store_uri, run, stage)]
    if digest:
        places.append(join_uri(store_uri, run, layout.place_apart(stage, digest)))
        places.append(join_uri(store_uri, layout.place_apart(run, digest), stage))  # where 0.1 kept it
    for place in places:
        manifest = read_manifest(open_store(place), "")
        if manifest is not None and manifest.digest == digest:
            return place
    return places[0]


def find_checkpoints(store: Store, store_uri: str, stage: str) -> tuple[list[Candidate], list[str], list[str]]:
    """All checkpoints of a stage in all runs: complete ones, why others are left out, and which stages have any.

    ``last.ckpt`` is never among them: it is for resuming, not for continuing.
    """
    places = [place for run in survey(store).values() for place in run.stages.values() if place.checkpoints]
    good, broken = [], []
    for place in places:
        if stage not in layout.stages_at(place.stage):
            continue
        for name, files in sorted(place.checkpoints.items()):
            prefix = f"{place.prefix}/{name}"
            try:
                manifest = read_manifest(store, prefix) if layout.MANIFEST in files else None
            except StoreUnavailable:
                raise
            except CurricleError as error:
                broken.append(f"{prefix} ({error})")
                continue
            loss = manifest.metrics.get("val_loss") if manifest else None
            if manifest is None:
                broken.append(f"{prefix} (no {layout.MANIFEST}: its upload never finished)")
            elif not isinstance(loss, int | float) or loss != loss:
                broken.append(f"{prefix} (its manifest gives no val_loss)")
            else:
                good.append(Candidate(join_uri(store_uri, prefix), loss, manifest))
    return good, broken, sorted({place.stage for place in places})


def _listing(uri: str) -> str:
    """What lies at a place or beside it, for an error message."""
    if uri.startswith(("https://", "http://")):
        return "a web server does not say what else it holds"
    here = sorted({e.key.split("/")[0] for e in open_store(uri).list("")})
    if here:
        return f"it holds {', '.join(here[:8])}{' ...' if len(here) > 8 else ''}"
    head = uri.rpartition("/")[0] or "."
    beside = sorted({e.key.split("/")[0] for e in open_store(head).list("")})
    if beside:
        return f"it is empty or missing; {head} holds {', '.join(beside[:8])}{' ...' if len(beside) > 8 else ''}"
    return f"neither it nor {head} holds anything"
