"""What the card of a NER model says: what its folder, its data and its run know of it. Pure: facts in, plain data out; how it looks stands in `cards`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curricle.cards.card import FILE, UNKNOWN, Card, Score, Table, Way, licence, settings_of
from curricle.families.embedded import stated_licence
from curricle.families.ner.checkpoint import WHOLE
from curricle.families.ner.labels import Scheme
from curricle.families.ner.metrics import ratios
from curricle.sections import Seen

_SETTINGS = (
    "data.strategy",
    "data.replay",
    "data.replay_draw",
    "training.trainer.max_epochs",
    "training.learning_rate",
    "training.weight_decay",
    "training.warmup_steps",
    "training.early_stopping.enabled",
    "data_loader.batch_size",
    "model.layer_decay",
    "model.head_lr_scale",
    "model.train_embeddings",
    "model.dropout",
    "model.lora.enabled",
    "forgetting.distill",
    "forgetting.average",
    "seed",
)
"""Of the configuration, as far as it has them."""
_RULE = "by rule (docs/continued-training.md)"
_BY_RULE = {"training.learning_rate": _RULE, "model.head_lr_scale": _RULE}
"""Of these null is a rule; of others it is nothing worth a line."""
_SPAN = {"f1": "f1", "precision": "precision", "recall": "recall"}
EXAMPLE = "Anna Miller lives in Berlin."
WAYS = (
    Way(
        title="With transformers",
        code=f"""from transformers import pipeline

find = pipeline("token-classification", model=FOLDER, aggregation_strategy="first")
print(find("{EXAMPLE}"))""",
    ),
    Way(title="From the command line, also for texts longer than a window", language="sh", code="curricle ner predict --model FOLDER < texts.txt"),
    Way(
        title="From Python",
        code=f"""from curricle.families.ner.predict import load_tagger, predict

print(predict(load_tagger(FOLDER), ["{EXAMPLE}"]))""",
    ),
)  # fmt: skip
"""How a folder that transformers loads is used."""
NOTES = (
    "FOLDER is where the model lies. The pipeline of transformers cuts a text off after one window, and agrees with curricle only under aggregation_strategy=first.",
)


def card(seen: Seen) -> Card:
    """The card of a checkpoint (`FamilyEntry.card`)."""
    return described(seen)


def described(
    seen: Seen,
    *,
    change: tuple[Mapping[str, float], Mapping[str, float]] | None = None,
    ways: Sequence[Way] = WAYS,
    notes: Sequence[str] = NOTES,
) -> Card:
    """The card of any model.

    Args:
        seen: its `findings` hold ``domains``, ``on``, ``records`` where somebody measured it: right, predicted and annotated spans by domain and label; ``of``
            names the dataset where it is not the one of the training.
        change: F1 by domain before and after, where a run has measured both; else what the findings and the manifest tell.
    """
    model = _json(seen, f"{WHOLE}/config.json") or _json(seen, "config.json")
    encoder = str(seen.config.get("model.encoder") or model.get("_name_or_path") or "")
    labels = _labels(seen, model)
    own = licence((seen.files(FILE) or b"").decode("utf-8", "replace"))
    whence = f" (run and stage {seen.name})" if seen.name else ""
    return Card(
        title=f"Named entities: {', '.join(labels)}",
        summary=f"Finds spans of these labels in texts. Made by Curricle from the encoder below{whence}.",
        task="token-classification",
        tags=("token-classification", "ner"),
        licence=own,
        base=encoder,
        base_licence=stated_licence(encoder),
        data_name=_data_name(seen),
        data_digest="" if seen.findings.get("of") else seen.data_digest,
        facts={
            "architecture": ", ".join(model.get("architectures") or []) or UNKNOWN,
            "labels": ", ".join(labels),
            "stage digest": seen.digest or UNKNOWN,
        },
        **_data(seen),
        training=_training(seen),
        settings=settings_of(seen.config, _SETTINGS, _BY_RULE) if seen.config else {},
        **_scores(seen, change),
        ways=ways,
        notes=notes,
        intended=[
            "For texts like those that it was trained on, with the labels that were annotated there, to find spans or to propose them; have a person look where a wrong or a missed one matters."
        ],
        limits=[
            "Not examined: other kinds of text and other languages, groups of people that the data say little of, and what follows from a wrong or a missed span.",
            "A span is found whole or counts as missed. Spans do not overlap, and begin and end with words, so an annotation within a word cannot be found.",
            *(str(note) for note in seen.findings.get("notes", ())),
        ],
    )  # fmt: skip


def _json(seen: Seen, name: str) -> dict[str, Any]:
    try:
        found = json.loads(seen.files(name) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _labels(seen: Seen, model: Mapping[str, Any]) -> list[str]:
    tags = _json(seen, "labels.json").get("labels") or [
        str(tag) for _, tag in sorted((model.get("id2label") or {}).items(), key=lambda pair: int(pair[0]))
    ]
    try:
        return list(Scheme(tags).labels)
    except ValueError:
        return []


def _data_name(seen: Seen) -> str:
    if seen.findings.get("of"):
        return str(seen.findings["of"])
    names = [Path(str(seen.config.get(f"data.{domain}_dataset_path") or "")).name for domain in ("old", "new")]
    return " and ".join(filter(None, names)) or UNKNOWN


def _data(seen: Seen) -> dict[str, Any]:
    said = [f"Digest of the training data: {seen.data_digest or UNKNOWN}."]
    try:
        made = json.loads(seen.data_files("report.json") or b"{}")
    except ValueError:
        made = {}
    if not isinstance(made, dict) or not made.get("read"):
        return {"data": [*said, f"Records read and kept: {UNKNOWN} (the prepared data were not at hand)."]}
    rows = []
    for domain, splits in made["read"].items():
        name = Path(str(seen.config.get(f"data.{domain}_dataset_path") or "")).name
        read = ", ".join(f"{count:,} {split}" for split, count in splits.items())
        kept = [made.get("kept", {}).get(split, {}).get(domain, 0) for split in ("train", "validation")]
        spans = ", ".join(f"{label} {count:,}" for label, count in made.get("annotations", {}).get(domain, {}).items())
        rows.append((str(domain), name or UNKNOWN, read, f"{kept[0]:,}", f"{kept[1]:,}", spans))
    dropped = {why: count for why, count in made.get("dropped", {}).items() if count}
    if dropped:
        said.append(f"Left out: {', '.join(f'{count:,} × {why}' for why, count in dropped.items())}.")
    head = ("domain", "folder", "records read", "kept for training", "kept for validation", "annotations")
    return {"data": said, "data_tables": [Table(title="Records by domain:", head=head, rows=rows)]}


def _training(seen: Seen) -> list[str]:
    if not seen.config:
        return [f"Settings: {UNKNOWN}."]
    start = (
        f"a model with the stage digest {seen.parent_digest}"
        if seen.parent_digest
        else "the base model, with a fresh head"
    )
    return [f"Started from {start}."]


def _scores(seen: Seen, change: tuple[Mapping[str, float], Mapping[str, float]] | None) -> dict[str, Any]:
    """`measured`, `tables` and `scores` of the card."""
    found = seen.findings
    tables, scores = [], []
    if found.get("domains"):
        split = str(found["on"])
        said = f"On {found['records']:,} {split} records; exact spans, micro averages, in percent; support is the number of annotated spans."
        tables.append(_by_label(found["domains"]))
        scores = _index(found["domains"], split)
    elif any(name.startswith("val/f1") for name in seen.metrics):
        said = "On validation records, by which the checkpoint was chosen, so they flatter a little (curricle ner evaluate measures it); exact spans, in percent."
        rows = [(_shown(name), f"{100 * value:.1f}") for name, value in sorted(seen.metrics.items()) if _is_score(name)]
        tables.append(Table(title="Scores:", head=("score", "value"), rows=rows))
        scores = [
            Score(type=kind, name=f"val/{name}", value=seen.metrics[f"val/{name}"], split="validation")
            for name, kind in _SPAN.items()
            if f"val/{name}" in seen.metrics
        ]
    else:
        said = f"{UNKNOWN.capitalize()}: no records to measure on were at hand; curricle ner evaluate measures it."
    tables += _change(seen, change)
    return {"measured": [said], "tables": tables, "scores": scores}


def _is_score(name: str) -> bool:
    return name.startswith("val/") and any(part in name for part in ("f1", "precision", "recall")) and not name.endswith("_before")  # fmt: skip


def _shown(name: str) -> str:
    return name.removeprefix("val/").replace("/", " ")


def _by_label(domains: Mapping[str, Mapping[str, Sequence[int]]]) -> Table:
    several, rows = len(domains) > 1, []
    for domain, labels in sorted(domains.items()):
        for label, counts in [*sorted(labels.items()), ("all", _sum(labels))]:
            shares = [f"{100 * share:.1f}" if share is not None else "-" for share in ratios(counts).values()]
            rows.append((*([domain] if several else []), label, *shares, f"{counts[2]:,}"))
    head = (*(["domain"] if several else []), "label", "precision", "recall", "F1", "support")
    return Table(title="By label:", head=head, rows=rows)


def _sum(labels: Mapping[str, Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*labels.values(), strict=True)] or [0, 0, 0]


def _index(domains: Mapping[str, Mapping[str, Sequence[int]]], split: str) -> list[Score]:
    whole = [sum(column) for column in zip(*(_sum(labels) for labels in domains.values()), strict=True)]
    rows = [("", whole), *((f"{domain}/", _sum(labels)) for domain, labels in sorted(domains.items()) if len(domains) > 1)]  # fmt: skip
    return [
        Score(type=name, name=f"{split}/{prefix}{name}", value=value, split=split)
        for prefix, counts in rows
        for name, value in ratios(counts).items()
        if value is not None
    ]


def _change(seen: Seen, change: tuple[Mapping[str, float], Mapping[str, float]] | None) -> list[Table]:
    """Before and after by domain, where the training continued a model that could be measured."""
    before, after = change or ({}, {})
    on, found = "what the run was tested on", seen.findings
    if not before and found.get("domains") and found.get("before", {}).get("domains"):
        on = f"{found['on']} records"
        before, after = (
            {domain: value for domain, labels in side.items() if (value := ratios(_sum(labels))["f1"]) is not None}
            for side in (found["before"]["domains"], found["domains"])
        )
    if not before:
        on = "validation"
        ends = {key.removesuffix("_before"): value for key, value in seen.metrics.items() if key.endswith("/f1_before")}
        before = {key.split("/")[1]: value for key, value in ends.items()}
        after = {key.split("/")[1]: seen.metrics[key] for key in ends if key in seen.metrics}
    rows = [
        (domain, f"{100 * value:.1f}", f"{100 * after[domain]:.1f}", f"{100 * (after[domain] - value):+.1f}")
        for domain, value in sorted(before.items())
        if domain in after
    ]
    head = ("domain", "before", "after", "change")
    return [Table(title=f"What the training changed, F1 on {on}:", head=head, rows=rows)] if rows else []
