"""Prepared NER data: the combination, and the validation and test sets of both domains, as JSON Lines with their origin.

train.jsonl                      the combination's training records
validation.jsonl                 its validation records
watch_old.jsonl                  the old domain's validation file, where the combination does not read it (`new_only`)
test.jsonl                       both domains' test records
labels.json                      labels of the head
labels_of_source.json            labels that each source annotates (`annotated`)
report.json                      what was read, dropped and why
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curricle.errors import DataError
from curricle.families.ner import annotated as sources_of_labels
from curricle.families.ner.annotated import domain_of, origin_of, source_of
from curricle.families.ner.combine import CombinedDataset, Records, combine_datasets, text_key
from curricle.families.ner.config import NerConfig, NerData
from curricle.families.ner.formats import dataset_files, iter_pieces, said_left_out
from curricle.families.ner.kinds import SEED
from curricle.families.ner.labels import check_labels, tags_of
from curricle.families.ner.sources import local_datasets

_log = logging.getLogger(__name__)


def fingerprint(config: NerConfig) -> str:
    """SHA-256 over the data section (without the folders' names) and the bytes of all source files.

    Raises:
        DataError: a source is missing.
        ConfigError: `data.labels_of_source` names a source or a label that the records do not have. They are read for it where it names any.
    """
    with local_datasets(config.data) as section:
        data = asdict(section)
        folders = {source: data.pop(f"{source}_dataset_path") for source in ("old", "new")}
        for name, default in (("labels_of_source", {}), ("replay_choice", "random")):
            if data[name] == default:  # data that were prepared before there was such a setting are found
                del data[name]
        digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
        sources = {s: dataset_files(f, f"data.{s}_dataset_path") for s, f in folders.items() if f}
        if section.labels_of_source and section.labels_of_source != "all":
            found = _labels_of(sources)
            labels = section.labels if section.labels is not None else set().union(*found.values())
            sources_of_labels.resolve(found, section.labels_of_source, labels)
        for source, files in sources.items():
            for split, path in files.items():
                for part in sorted(path.iterdir()) if path.is_dir() else [path]:
                    with part.open("rb") as file:
                        content = hashlib.file_digest(file, "sha256").hexdigest()
                    place = split if part is path else f"{split}/{part.name}"
                    digest.update(f"{source} {place} {part.suffix} {content}\n".encode())
        return digest.hexdigest()


def prepare(config: NerConfig, out_dir: Path) -> dict[str, Any]:
    """Write the prepared data into `out_dir`; facts for the manifest.

    Raises:
        DataError, ConfigError: a source is missing, damaged or contradicts the configuration.
    """
    with local_datasets(config.data) as data:
        return _prepare(data, out_dir)


def _prepare(data: NerData, out_dir: Path) -> dict[str, Any]:
    made = combine_datasets(
        data.old_dataset_path or None,
        data.new_dataset_path,
        data.strategy,
        data.validation_ratio,
        data.random_seed,
        create_new_validation=data.create_new_validation,
        replay=data.replay if data.strategy != "new_only" and data.replay_draw == "once" else None,
    )
    for name, what in made.report["files"].items():
        if SEED.shape not in what:
            _log.warning("data: %s is read as %s", name, what)
    for why in made.report["left_out"]:
        _log.warning("data: %d × %s: left out", made.report["dropped"][why], why)
    for note in made.report["notes"]:
        _log.warning("data: %s", note)
    if not len(made.validation):
        why = said_left_out({why: made.report["dropped"][why] for why in made.report["left_out"]})
        raise DataError(
            f"there is no validation record{why}: give a validation file, or set data.create_new_validation to true"
        )
    _check_annotated(made, data.new_dataset_path)
    out_dir.mkdir(parents=True, exist_ok=True)
    annotated: set[str] = set()
    for name, part in made.items():
        with (out_dir / f"{name}.jsonl").open("wb") as out:
            out.writelines(part.lines())
        annotated.update(label for record in part for _, _, label in record["annotations"])
    sources = {s: dataset_files(f) for s, f in (("old", data.old_dataset_path), ("new", data.new_dataset_path)) if f}
    found = {source: set(own) for source, own in made.report["labels_of_source"].items()}
    if data.strategy == "new_only" and "old" in sources:
        for source, own in _labels_of({"old": sources["old"]}).items():
            found.setdefault(source, set()).update(own)
        annotated = annotated.union(*_labels(sources["old"]["train"], "old").values())
    labels = list(data.labels) if data.labels is not None else sorted(annotated)
    if unknown := annotated - set(labels):
        check_labels(unknown, labels, _first_with(unknown, sources))
    tags_of(labels)
    of_source = sources_of_labels.resolve(found, data.labels_of_source, labels)
    trained = {text_key(r["text"]) for r in made.train} if data.strategy == "new_only" and "old" in sources else set()
    if data.strategy == "new_only" and "validation" in sources.get("old", {}):
        _copy({"old": sources["old"]["validation"]}, out_dir / "watch_old.jsonl", trained)
    tests = {source: files["test"] for source, files in sources.items() if "test" in files}
    scored = {"test": _copy(tests, out_dir / "test.jsonl", trained)} if tests else {"val": _origins(made.validation)}
    (out_dir / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    (out_dir / sources_of_labels.FILE).write_text(
        json.dumps(of_source, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (out_dir / "report.json").write_text(
        json.dumps(made.report, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return {
        "labels": labels,
        "labels_of_source": of_source,
        "train": len(made.train),
        "validation": len(made.validation),
        "scored": scored,
        "dropped": made.report["dropped"],
        "notes": made.report["notes"],
        "files": made.report["files"],
    }


def _first_with(labels: set[str], sources: dict[str, dict[str, Path]]) -> str:
    """The first record that has one of the labels, for a message."""
    pieces = ((path, piece) for files in sources.values() for path in files.values() for piece in iter_pieces(path))
    path, piece = next(
        (path, piece) for path, piece in pieces if any(label in labels for _, _, label in piece.record["annotations"])
    )
    return f"the data (first: {path}, record {piece.number})"


def _check_annotated(made: CombinedDataset, folder: str) -> None:
    """Refuse new data in which nothing is annotated.

    Raises:
        DataError: it is so.
    """
    new = 0
    for part in made.values():
        for place in range(len(part)):
            if part.origin(place) == "new":
                if part[place]["annotations"]:
                    return
                new += 1
    if new:
        raise DataError(
            f"none of the {new} records of {folder} for training and validation has an annotation: there is nothing to learn. "
            "Is it another file that holds the annotated ones?"
        )


def _origins(records: Records) -> list[str]:
    """The domains of combined records."""
    return sorted({str(domain_of(origin_of(record, records.origin(place)))) for place, record in enumerate(records)})


def _labels(path: Path, role: str) -> dict[str, set[str]]:
    """Source → labels in a dataset's file."""
    found: dict[str, set[str]] = {}
    for piece in iter_pieces(path):
        source = source_of({"origin": origin_of(piece.record, role)})
        found.setdefault(source, set()).update(label for _, _, label in piece.record["annotations"])
    return found


def _labels_of(sources: dict[str, dict[str, Path]]) -> dict[str, set[str]]:
    """Source → labels in the training and validation files of datasets."""
    found: dict[str, set[str]] = {}
    for role, files in sources.items():
        for split in files.keys() & {"train", "validation"}:
            for source, own in _labels(files[split], role).items():
                found.setdefault(source, set()).update(own)
    return found


def _copy(paths: dict[str, Path], target: Path, without: set[bytes]) -> list[str]:
    """Copy the records whose text is not among `without`; their domains."""
    origins = set()
    with target.open("w", encoding="utf-8") as out:
        for source, path in paths.items():
            for piece in iter_pieces(path):
                if text_key(piece.record["text"]) not in without:
                    record = {"origin": source} | piece.record | {"origin": origin_of(piece.record, source)}
                    origins.add(str(domain_of(record["origin"])))
                    out.write(json.dumps(record, ensure_ascii=False) + "\n")
    return sorted(origins)
