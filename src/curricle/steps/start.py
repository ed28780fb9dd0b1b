"""What a continued training starts from: the environment, then the configuration, then a cache file; and that checkpoint as an artifact.

The first source that is set decides. One that is set and does not lead to a whole checkpoint is an error, never a detour to the next.
Nothing set at all means scratch, if the configuration does not ask for a checkpoint or allows it (``checkpoint.allow_scratch``).
A URI stays a URI, so that a training elsewhere sees it; a folder that another program wrote becomes a copy in the store.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from curricle import environment
from curricle.config.schema import PathsConfig
from curricle.errors import CheckpointError, CurricleError, MissingCheckpointError, StoreUnavailable
from curricle.planning import Source
from curricle.registry import EXPERIMENT_FAMILY, FamilyEntry, family
from curricle.steps.source import require_family, resolve_source
from curricle.store import join_uri, layout, open_store, web
from curricle.store.local import what_else
from curricle.store.manifest import Manifest, fetch, files_of, publish, read_manifest, sha256_of
from curricle.store.models import fetch_model
from curricle.store.strict import read_json

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")
Via = Literal["environment", "config", "cache", "scratch"]
WEB_CACHE = Path(PathsConfig().cache_dir) / "web"
ORDER: tuple[Via, ...] = ("environment", "config", "cache")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Everything that may name a checkpoint."""

    environment: str = ""
    """Value of CHECKPOINT_PATH."""
    source_path: str = ""
    """``checkpoint.source_path``, with its placeholders."""
    cache: Path | None = None
    """JSON file of a former training whose `output_dir` holds ``checkpoint``."""
    backbone: str | None = None
    run_id: str | None = None
    """Fill ``{backbone}`` and ``{run_id}``."""
    config_dir: Path = Path()
    """The configuration's folder: a relative path is tried against the working folder, then against this one's parent."""
    store_uri: str = PathsConfig().store_uri
    """Where stages are looked for by name."""
    required: bool = False
    """Whether it is an error that nothing is set."""
    validate: bool = True
    """Whether a folder's files are opened before they are taken."""


@dataclass(frozen=True)
class Place:
    """Where the asked sources lead to."""

    place: str
    """A folder, a URI, a stage's name or an MLflow run id; empty for scratch."""
    via: Via
    why: str
    """The source as it was given, for messages."""
    reasons: tuple[str, ...]
    """One sentence a source that was passed over, in order of priority."""


@dataclass(frozen=True)
class Start:
    """What a training starts from."""

    source: Source | None
    """What a plan continues; None for scratch."""
    via: Via
    reasons: tuple[str, ...]
    """One sentence a source, in order of priority."""
    folder: Path | None = None
    """A folder that is not in the store yet: `ensure` puts its copy at `source.uri`."""
    family: str = ""
    origin: str = ""
    """Where that folder came from."""

    def ensure(self) -> None:
        """Put the copy of a folder from elsewhere into the store, unless it is there.

        Raises:
            StoreError: the store refuses.
        """
        if self.folder is None or self.source is None:
            return
        store = open_store(self.source.uri)
        if read_manifest(store, "") is not None:
            return
        base, _, name = self.source.uri.rpartition("/")
        info = {"family": self.family, "imported_from": self.origin}
        publish(open_store(base), name, self.folder, kind="checkpoint", digest=self.source.digest, info=info)


def locate(asked: Asked) -> Place:
    """Which source decides, and what it names; only a file of the cache is read.

    Raises:
        CheckpointError: a source is set and names nothing that could be a checkpoint; or none is set and one is required.
    """
    reasons: list[str] = []
    for via in ORDER:
        place, why = _LOOK[via](asked)
        if not place:
            reasons.append(f"{via}: {why}")
            continue
        later = ORDER[ORDER.index(via) + 1 :]
        passed = (f"{other}: not looked at, {via} goes before it" for other in later)
        return Place(place, via, why, (*reasons, f"{via}: {why} leads to {place}: taken", *passed))
    if asked.required:
        raise CheckpointError(
            "no checkpoint to continue from ("
            + "; ".join(reasons)
            + f"). Set {environment.CHECKPOINT_PATH} or checkpoint.source_path, "
            "give a cache file, or set checkpoint.allow_scratch to true to start from the base encoder"
        )
    return Place("", "scratch", "", (*reasons, "scratch: no source is set"))


def find_start(asked: Asked, name: str) -> Start:
    """What a training of a family starts from, checked. Writes nothing.

    Raises:
        CheckpointError, StoreError: a source is set, but leads to no whole checkpoint of the family.
    """
    located = locate(asked)
    if not located.place:
        return Start(None, "scratch", located.reasons)
    try:
        return start_at(located.place, name, asked.store_uri, located)
    except CheckpointError as error:
        raise type(error)(f"{located.why}: {error}") from None


def start_at(place: str, name: str, store_uri: str, located: Place | None = None) -> Start:
    """A checkpoint as something that a chain can start from: one of ours as it lies, a foreign folder as a copy in the store.

    A folder of this machine is copied too where the store is elsewhere: a training there could not see it.

    Raises:
        CheckpointError: it is not whole, or of another family.
    """
    located = located or Place(place, "config", place, ())
    folder = Path(place)
    if "://" not in place and folder.is_dir():
        manifest = read_manifest(open_store(place), "")
        if manifest is None or "://" in store_uri:
            return _copied(folder, manifest, name, store_uri, located)
        place = str(folder.resolve())
    elif "://" not in place and "/" in place:
        what = f"is {what_else(folder) or 'a file'}, not a folder" if folder.exists() else "does not exist"
        raise MissingCheckpointError(f"Checkpoint path {place} {what}")
    elif _is_web_folder(place):
        return _copied(fetch_model(place, WEB_CACHE), None, name, store_uri, located, web.settled(place))
    source = resolve_source(place, store_uri, asked="checkpoint")
    require_family(source, name)
    reason = f"{located.why}: {source.uri}"
    return Start(Source(source.uri, source.digest, reason), located.via, located.reasons)


def _is_web_folder(place: str) -> bool:
    """Whether a place is on a hub or a web server, and no artifact of ours."""
    return place.partition("://")[0] in web.SCHEMES and read_manifest(open_store(place), "") is None


def _copied(
    folder: Path, manifest: Manifest | None, name: str, store_uri: str, located: Place, origin: str = ""
) -> Start:
    """A folder of this machine, which came from `origin`, as its copy in the store, which `Start.ensure` makes."""
    if manifest is not None:
        source = resolve_source(str(folder.resolve()), store_uri, asked="checkpoint")
        require_family(source, name)
        whole, digest = Path(source.uri), source.digest
    else:
        entry = family(name)
        if not entry.checkpoint:
            raise CheckpointError(
                f"{folder} is no checkpoint of Curricle ({layout.MANIFEST} is missing), and {name} takes no other"
            )
        whole = entry.load("checkpoint")(folder).path
        lines = "\n".join(f"{name} {sha256_of(path)}" for name, path in files_of(whole).items())
        digest = hashlib.sha256(lines.encode()).hexdigest()
    uri = join_uri(store_uri, layout.IMPORTED, f"{name}-{digest[:16]}")
    reason = f"{located.why}: {origin or folder}"
    return Start(Source(uri, digest, reason), located.via, located.reasons, whole, name, origin or str(folder))


def _from_environment(asked: Asked) -> tuple[str, str]:
    if not asked.environment:
        return "", f"{environment.CHECKPOINT_PATH} is not set"
    return asked.environment, f"{environment.CHECKPOINT_PATH}={asked.environment}"


def _from_config(asked: Asked) -> tuple[str, str]:
    if not asked.source_path:
        return "", "checkpoint.source_path is not set"
    why = f"checkpoint.source_path {asked.source_path}"
    place = fill_pattern(asked.source_path, {"backbone": asked.backbone, "run_id": asked.run_id})
    here, beside = Path(place), asked.config_dir.resolve().parent / place
    if "://" in place or here.is_absolute() or here.is_dir():
        return place, why
    if beside.is_dir():
        return str(beside), why
    if _NAME.fullmatch(place):
        return place, why
    absolute = Path.cwd() / place
    missing = f"{absolute} does not exist" if absolute == beside else f"neither {absolute} nor {beside} exists"
    raise MissingCheckpointError(f"{why}: {missing}; train the model first, or correct the path")


def _from_cache(asked: Asked) -> tuple[str, str]:
    if not asked.cache:
        return "", "no cache file was given"
    cache, why = asked.cache, f"cache file {asked.cache}"
    if cache.exists() and not cache.is_file():
        raise CheckpointError(f"{why} is {'a folder' if cache.is_dir() else 'no plain file'}")
    try:
        content = read_json(cache.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CheckpointError(f"{why} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{why} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{why} must hold an object with output_dir, not a {type(content).__name__}")
    folder = content.get("output_dir")
    if not isinstance(folder, str) or not folder:
        raise CheckpointError(
            f"{why} has no output_dir (its keys: {', '.join(content) or 'none'}); a final training writes it"
        )
    if re.match(r"[A-Za-z]:[\\/]|\\\\", folder):
        raise CheckpointError(f"{why}: output_dir {folder} is a Windows path; it was written on another machine")
    path = Path(folder)
    if not path.is_absolute() and not path.is_dir():
        path = cache.parent / path
    if not path.is_dir():
        raise MissingCheckpointError(
            f"{why}: output_dir {folder} does not exist (deleted, or written on another machine)"
        )
    return str(path / "checkpoint"), why


_LOOK = {"environment": _from_environment, "config": _from_config, "cache": _from_cache}


def fill_pattern(pattern: str, values: Mapping[str, str | None]) -> str:
    """Fill ``{name}`` placeholders.

    Raises:
        CheckpointError: a placeholder is unknown or has no value, or a value is more than one plain folder name.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            known = ", ".join(f"{{{known}}}" for known in values)
            raise CheckpointError(f"checkpoint.source_path {pattern!r} holds {{{name}}}; known are {known}")
        filling = values[name]
        if not filling:
            option = f"--{name.replace('_', '-')}"
            raise CheckpointError(f"checkpoint.source_path {pattern!r} needs {name}, and none was given ({option})")
        if not _NAME.fullmatch(filling) or ".." in filling:
            raise CheckpointError(
                f"{name} {filling!r} is not a plain name (letters, digits, . _ @ + -): a path in it could leave the "
                f"folder of {pattern!r}; of a name like org/model give the part behind the slash"
            )
        return filling

    return _PLACEHOLDER.sub(value, pattern)


def asked_of(config: Mapping[str, Any], **given: Any) -> Asked:
    """The question that a configuration's ``training.checkpoint`` or ``checkpoint`` block asks; `given` goes before.

    Raises:
        CheckpointError: the block is no mapping.
    """
    training, paths = config.get("training") or {}, config.get("paths") or {}
    inner = training.get("checkpoint") if isinstance(training, Mapping) else None
    block = inner if inner is not None else config.get("checkpoint")
    if block is not None and not isinstance(block, Mapping):
        raise CheckpointError(f"checkpoint must be a mapping with source_path and validate, not {block!r}")
    block = block or {}
    values: dict[str, Any] = {
        "source_path": str(block.get("source_path") or ""),
        "validate": bool(block.get("validate", True)),
        "required": bool(block) and not block.get("allow_scratch", False),
        "store_uri": str(paths.get("store_uri") or PathsConfig().store_uri),
        "config_dir": Path(config.get("_config_dir") or "."),
    }
    return Asked(**(values | given))


def resolve_checkpoint_path(
    config: Mapping[str, Any],
    previous_cache_path: Path | str | None = None,
    backbone: str | None = None,
    run_id: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Path | None:
    """The folder of the checkpoint to continue from, or None for scratch: the continued training guide's call.

    Args:
        config: holds ``training.checkpoint`` or a top-level ``checkpoint`` block: `source_path`, `validate`, `allow_scratch`; relative paths
            are tried against the working folder, then against the parent of ``_config_dir``.
        previous_cache_path: JSON file of a former training whose `output_dir` holds ``checkpoint``.
        backbone, run_id: fill ``{backbone}`` and ``{run_id}`` of `source_path`.
        environ: where CHECKPOINT_PATH is looked up; the process's environment by default.

    Raises:
        CheckpointError: a source is set, but leads to no whole checkpoint; or none is set and scratch is not allowed.
    """
    return explain_checkpoint(config, previous_cache_path, backbone, run_id, environ=environ)[0]


def explain_checkpoint(
    config: Mapping[str, Any],
    previous_cache_path: Path | str | None = None,
    backbone: str | None = None,
    run_id: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    name: str = EXPERIMENT_FAMILY,
) -> tuple[Path | None, Place]:
    """As `resolve_checkpoint_path`, with the source that decided and why. A checkpoint of a store is fetched to ``paths.cache_dir``."""
    wanted = environment.checkpoint_path() if environ is None else environ.get(environment.CHECKPOINT_PATH, "").strip()
    cache = Path(previous_cache_path) if previous_cache_path else None
    asked = asked_of(config, environment=wanted, cache=cache, backbone=backbone, run_id=run_id)
    located = locate(asked)
    if not located.place:
        return None, located
    try:
        if "://" not in located.place and ("/" in located.place or Path(located.place).exists()):
            return _checked(Path(located.place), asked.validate, family(name)), located
        paths = config.get("paths") or {}
        cache_dir = Path(paths.get("cache_dir") or PathsConfig().cache_dir) / "checkpoints"
        if _is_web_folder(located.place):
            return _checked(fetch_model(located.place, cache_dir), asked.validate, family(name)), located
        source = resolve_source(located.place, asked.store_uri, asked="checkpoint")
        return fetch(source.uri, cache_dir)[0], located
    except MissingCheckpointError as error:
        raise MissingCheckpointError(f"{located.why}: {error}") from None
    except StoreUnavailable:
        raise
    except CurricleError as error:
        raise CheckpointError(f"{located.why}: {error}") from None


def _checked(folder: Path, validate: bool, entry: FamilyEntry) -> Path:
    if not folder.is_dir():
        what = f"is {what_else(folder) or 'a file'}, not a folder" if folder.exists() else "does not exist"
        raise MissingCheckpointError(f"Checkpoint path {folder} {what}")
    return entry.load("checkpoint")(folder).path if validate and entry.checkpoint else folder
