"""The layout of a run in a store: every path and name of it, once.

<store_uri>/
  data/<family>-<digest>/             prepared data, manifest.json last
  imported/<family>-<digest>/         a checkpoint that was made elsewhere
  published/<name>/<run id>/          a promoted checkpoint; the newest is where the next continued training starts
  promoted/<family>.json              which model is taken where none is named
  assigned/<digest>/                  a table that is coded on several machines (`steps.shards`)
  sequential_01-02-03/                a run (its id)
    plan.json                         the newest plan: it says which stages the run consists of, and where each lies
    final.json                        how the run ended, and its result
    verdict.json                      what was measured of the run's result, and whether that promotes it
    matrix.json                       of a chain over several data: the score of each stage's model on each stage's domain
    report.html                       all of this as a page (`curricle report`)
    failure.json                      why a task of the pipeline failed that trains no stage
    01_stage_1a2b3c4d/                a stage's place where 01_stage holds another configuration: name and digest
    01_stage/                         a stage's place
      stage.json                      what the worker reads: digest, effective config, start, parent, data
      01_stage-epoch=05-val_loss=0.1234.ckpt/     best checkpoint so far, manifest.json last
      last.ckpt/                      newest state, for resuming
      manifest.json                   the stage is complete: digest, metrics, lineage, which checkpoint is best
      failure.json                    why the last attempt failed, if it did
      bad_batch.json                  the records of the step whose loss or gradient was not finite, if the last attempt ended so
      history.json                    the curves: metrics of each epoch, losses of some steps
      findings.json                   what was measured of the best checkpoint on test records, for the report
      report.html                     the stage's page
      model_card.md                   the card of its model (`curricle.cards`)
      log.json                        the newest log lines, where a pipeline trains the stage
      claim.json                      who trains the stage at present, rewritten every few seconds (`steps.claim`)
      heartbeat                       rewritten while a launcher waits for the stage's job on a cluster
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from curricle.errors import ConfigError
from curricle.masking import masked, variable_within
from curricle.store.strict import kind_of, read_json, read_object

MANIFEST = "manifest.json"
STAGE = "stage.json"
PLAN = "plan.json"
FAILURE = "failure.json"
BAD_BATCH = "bad_batch.json"
HEARTBEAT = "heartbeat"
CLAIM = "claim.json"
LOG = "log.json"
HISTORY = "history.json"
FINDINGS = "findings.json"
VERDICT = "verdict.json"
MATRIX = "matrix.json"
REPORT = "report.html"
CARD = "model_card.md"
LAST = "last.ckpt"
SPARE = "last.spare.ckpt"
"""The newest state stands in one of the two slots while a stage trains."""
DATA = "data"
IMPORTED = "imported"
PUBLISHED = "published"
PROMOTED = "promoted"
ASSIGNED = "assigned"
RESERVED = (DATA, IMPORTED, PUBLISHED, PROMOTED, ASSIGNED)
"""Folders at the top of a store that hold no run."""
FINAL = "final.json"
SEARCH = "hpo-"
"""What the id of a search's run begins with: its stages are trials, no finished models."""

WEIGHTS = "model.safetensors"
GRAPH = "model.onnx"
"""File of an exported graph in its folder."""
STATE = "state.pt"
TRAINED = "trained.safetensors"
"""The weights that training goes on from, where they are not those of `WEIGHTS`."""
CONFIG = "config.yaml"
STAGE_FILES = (STAGE, MANIFEST, FAILURE, BAD_BATCH, HISTORY, FINDINGS, REPORT, CARD, LOG, CLAIM, HEARTBEAT)
"""What lies directly at a stage's place, beside its checkpoints."""
CHECKPOINT_FILES = (MANIFEST, WEIGHTS, STATE, TRAINED, CONFIG)
"""What every checkpoint may hold; a family's task adds its own."""
LOADED = (
    *(
        "config.json",
        "adapter_config.json",
        "generation_config.json",
        "labels.json",
        "calibration.json",
        "windows.json",
    ),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.json", "encoder.json", "data.json", "labels_of_source.json"),
)
"""Files beside the weights that loaders of a checkpoint or of prepared data read by name."""
LOADED_ENDS = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".onnx",
    ".onnx_data",
    ".model",
    ".jsonl",
    ".py",
)
"""What the names of weights, of vocabularies, of records and of code end in."""
LOADED_FOLDERS = ("adapter", "tokenizer", "whole")
"""Folders of a checkpoint that are read as a whole."""
LONGEST = 120
"""Characters of a run's folder or a stage's name."""

_CHECKPOINT = re.compile(
    r"^(?P<stage>.+)-epoch=(?P<epoch>\d{1,18})-val_loss=(?P<loss>-?[0-9.]+(?:e[+-]?\d+)?|nan|-?inf)\.ckpt$", re.I
)


_APART = re.compile(r"(?P<stage>.+)_[0-9a-f]{8}")


class CheckpointName(NamedTuple):
    """What a checkpoint's name says."""

    stage: str
    epoch: int
    val_loss: float


def run_id(stages: list[str]) -> str:
    """The run id of a chain: ``sequential_01-02-03`` for 01_stage, 02_stage, 03_stage.

    Only the suffix ``_stage`` is cut, so that ``01_text`` and ``01_graph`` do not share a run.
    """
    return "sequential_" + "-".join(s.removesuffix("_stage") for s in stages)


def place_apart(stage: str, digest: str) -> str:
    """What a stage's place is called where the one of its name holds another configuration."""
    return f"{stage}_{digest[:8]}"


def stages_at(place: str) -> tuple[str, ...]:
    """The stages that a place's name may stand for: the one of that name, and where it ends as `place_apart` does, the one before that."""
    apart = _APART.fullmatch(place)
    return (place, apart["stage"]) if apart else (place,)


def store_of(place: str) -> str:
    """The store that a stage's place or a checkpoint lies in, by the layout alone: two segments up from a stage, three from a checkpoint."""
    if "://" not in place:
        place = os.path.abspath(place)
    parts = place.rstrip("/").split("/")
    depth = 3 if parts[-1].endswith(".ckpt") or PUBLISHED in parts[-3:-2] else 2
    return "/".join(parts[:-depth])


def checkpoint_name(stage: str, epoch: int, val_loss: float) -> str:
    """``01_stage-epoch=05-val_loss=0.1234.ckpt``."""
    return f"{stage}-epoch={epoch:02d}-val_loss={val_loss:.4f}.ckpt"


def parse_checkpoint_name(name: str) -> CheckpointName | None:
    """The parts of a checkpoint's name, or None when it is not one (``last.ckpt`` is not)."""
    parts = _CHECKPOINT.match(name)
    return CheckpointName(parts["stage"], int(parts["epoch"]), float(parts["loss"])) if parts else None


def is_checkpoint(name: str) -> bool:
    """Whether a folder at a stage's place is called as its checkpoints are."""
    return name in (LAST, SPARE) or parse_checkpoint_name(name) is not None


def is_loaded(name: str) -> bool:
    """Whether a file of an artifact, or a link there, is one that loaders read: by its name in the artifact, whatever a manifest says of it."""
    first, _, rest = name.partition("/")
    if rest:
        return first in LOADED_FOLDERS
    return name in (*CHECKPOINT_FILES, *LOADED, *LOADED_FOLDERS) or name.endswith(LOADED_ENDS)


def run_folder(run_id: str) -> str:
    """What a run's folder is called: as its id, or, where that is longer than a folder's name may be, as its beginning with a digest."""
    if _fits(run_id):
        return run_id
    mark = hashlib.sha256(run_id.encode()).hexdigest()[:12]
    end = min(len(run_id), LONGEST - len(mark) - 1)
    while not _fits(folder := f"{run_id[:end]}-{mark}"):
        end -= 1
    return folder


def _fits(name: str) -> bool:
    return len(name) <= LONGEST and len(name.encode(errors="surrogatepass")) <= 2 * LONGEST


def check_run_id(name: str) -> str:
    """The name of the run's folder (`run_folder`), when it may be one: see `_check_name`; and none of `RESERVED`.

    Raises:
        ConfigError: says what is wrong with it.
    """
    if name in RESERVED:
        raise ConfigError(f"run id {name!r} is the name of a store's own folder; take another one")
    _check_name("run id", name)
    return run_folder(name)


def check_stage_name(name: str) -> str:
    """The stage's name itself, when it may be one: see `_check_name`.

    Raises:
        ConfigError: says what is wrong with it.
    """
    _check_name("stage name", name)
    if not _fits(name):
        raise ConfigError(
            f"stage name {name[:LONGEST]!r} is too long: {len(name)} characters, {LONGEST} are allowed (of some scripts fewer)"
        )
    return name


def _check_name(what: str, name: str) -> None:
    """A plain name: letters of any script, digits and ``. _ - +``, not beginning with ``.`` or ``-``.

    It becomes a folder and a part of keys and labels, so nothing in it may lead elsewhere, be hidden or be read as an option.
    """
    strange = sorted({c for c in name if not (c in "._-+" or unicodedata.category(c)[0] in "LMN")})
    if not name:
        problem = "is empty"
    elif strange:
        problem = f"holds {' '.join(repr(c) for c in strange[:5])}; letters, digits and . _ - + are allowed"
    elif name[0] in ".-" or ".." in name:
        problem = "begins with . or - or holds .."
    elif name.endswith(".ckpt"):
        problem = "ends in .ckpt, which is what checkpoints do"
    elif variable := variable_within(name):
        raise ConfigError(
            f"{what} {masked(name)!r} holds the secret of the environment variable {variable}; a name is shown everywhere: take another one"
        )
    else:
        return
    raise ConfigError(f"{what} {name[:LONGEST]!r} {problem}")


def now() -> str:
    """The time that records name: UTC, to the second, ``2026-01-31T12:00:00Z``."""
    return time_of(datetime.now(UTC).timestamp())


def time_of(seconds: float) -> str:
    """The same of a moment in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_record(record: Mapping[str, Any]) -> bytes:
    """One of the layout's JSON files, as `read_record` reads it."""
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def inspect_record(data: bytes | None, key: str) -> tuple[dict[str, Any], str]:
    """The object in one of the layout's JSON files without what is of a wrong type, and what is wrong with the file, with its name; empty where it is well, or not
    there.
    """
    if data is None:
        return {}, ""
    try:
        record = read_object(data)
    except ValueError as error:
        return {}, f"{key} is damaged: {error}"
    kinds = {name: kind for name, kind in FIELDS[key.rpartition("/")[2]].items() if name in record}
    wrong = [name for name, kind in kinds.items() if not isinstance(record[name], kind)]
    said = [f"{name} is {kind_of(record[name])}, and should be {_SHOULD[kinds[name]]}" for name in wrong]
    for name, whole in (("epochs", _is_epoch), ("losses", _is_loss)):
        if isinstance(rows := record.get(name), list) and (strange := [row for row in rows if not whole(row)]):
            record[name] = [row for row in rows if whole(row)]
            said.append(f"{len(strange)} of {len(rows)} {name} cannot be read")
    kept = {name: value for name, value in record.items() if name not in wrong}
    return kept, f"{key} is damaged: {'; '.join(said)}" if said else ""


FIELDS: dict[str, dict[str, type]] = {
    STAGE: {"digest": str, "family": str, "start": str, "config": dict, "data_uri": str, "data_digest": str},
    HISTORY: {"epochs": list, "losses": list},
}
"""What is read of such a file without its family's schema, and its type."""
_SHOULD: dict[type, str] = {str: "a text", dict: "an object", list: "a list"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_epoch(row: Any) -> bool:
    return isinstance(row, dict) and _is_number(row.get("step"))


def _is_loss(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and all(map(_is_number, row))


def read_record(data: bytes | None) -> dict[str, Any]:
    """The object in one of the layout's JSON files; empty when there is no file, or a damaged one."""
    try:
        record = read_json(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def read_stage_digest(data: bytes | None) -> str:
    """The digest that a `stage.json` names; empty when the file is damaged."""
    return str(read_record(data).get("digest", ""))
