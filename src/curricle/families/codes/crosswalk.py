"""Carries the data of a model over to another classification: prepared data of the new codes, and from which old points the new ones start.

A text follows its code where that has one target. Where it has several the model is asked: the target one of whose known texts is nearest by the model's encoder. Such a text is marked,
trains, and is never measured by. What the model was tested on stays out of training.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from curricle.errors import DataError
from curricle.families.codes.classification import Classification, read_classification
from curricle.families.codes.concordance import (
    MEANINGS,
    STATUSES,
    Reconciliation,
    derived,
    read_concordance,
    reconcile,
)
from curricle.families.codes.continued import CARRIED, classification_digest
from curricle.families.codes.labelled import word_set
from curricle.families.codes.prepare import EXAMPLES, FACTS, CodeTable, load, read_facts, row_of, write_rows
from curricle.families.codes.texts import Apart, LabelledText
from curricle.families.codes.tree import Tree

BY_MODEL, BY_CONCORDANCE = "model", "concordance"
HEAT = 0.05
"""Difference of cosines that makes one target e times as likely as another."""


@dataclass(frozen=True)
class Order:
    """What is carried where."""

    concordance: Path
    classification: str = ""
    """Table of the new codes; empty makes them of the concordance and the old codes above."""
    old_column: str = ""
    new_column: str = ""
    encoding: str = ""


@dataclass(frozen=True)
class Carried:
    """A text of the new classification, and how it got its code."""

    text: LabelledText
    old_code: str
    by: str
    """`BY_CONCORDANCE` or `BY_MODEL`."""
    confidence: float = 1.0
    others: tuple[str, ...] = ()
    """The other targets, the likelier first."""


def crosswalk(
    checkpoint_dir: Path, data_dir: Path, concordance: Path, prepared: Path, tables: Path, **options: str
) -> dict[str, Any]:
    """Write the prepared data of the new classification into `prepared`, and tables for people into `tables`; facts for the manifest.

    Args:
        options: further fields of `Order`.

    Tables: ``classification.csv``, ``codes.csv`` (what became of each code), ``texts.csv`` (every text with its new code and who said so).

    Raises:
        DataError, ConfigError: a table is missing, damaged or of other codes.
    """
    order, table = Order(concordance, **options), load(data_dir)
    named = _classification(order)
    new = Tree.of(named.codes, named.parents, named.levels) if named else None
    columns = {"old": order.old_column, "new": order.new_column}
    found = read_concordance(order.concordance, table.tree, new, columns=columns, encoding=order.encoding)
    tree = new or derived(table.tree, found)
    old_titles = dict(zip(table.codes, table.channels["title"], strict=True))
    titles = {c: (named.titles if named else found.titles).get(c) or old_titles.get(c) or c for c in tree.codes}
    made = reconcile(table.tree, tree, found, old_titles, titles)
    followed, left_out = _follow(table, made)
    texts = _apart_from(followed, titles, table.by_words)
    if len(followed) > len(texts):
        left_out["for evaluation, and with the words of a new title"] = len(followed) - len(texts)
    texts += _asked(checkpoint_dir, data_dir, table, made, texts, titles)
    if not any(c.text.split == "validation" and c.text.kind == "entry" for c in texts):
        raise DataError(
            f"{order.concordance}: no validation text of the model follows to a new code, so nothing could be trained by"
        )
    batch = table.batches + 1
    prepared.mkdir(parents=True, exist_ok=True)
    tables.mkdir(parents=True, exist_ok=True)
    codes = _codes(table, made, titles, named, texts)
    counts = _write_prepared(prepared, data_dir, table, made, codes, texts, batch)
    _write_tables(tables, made, old_titles, titles, codes, texts)
    report = _report(made, found.said, texts, left_out)
    (prepared / FACTS).write_text(
        json.dumps({**_facts(data_dir, tree, batch), "crosswalk": report}, ensure_ascii=False, indent=1) + "\n",
        encoding="utf-8",
    )
    return {
        "source": f"{order.concordance.name}, and what the model before was trained with",
        "synthetic": False,
        "codes": len(tree.codes),
        "classification": classification_digest(tree),
        **counts,
        **_facts(data_dir, tree, batch),
        "scored": {split: ["old"] for split in ("test", "validation") if counts.get(f"entry_{split}")},
        "crosswalk": report,
    }


def _classification(order: Order) -> Classification | None:
    if not order.classification:
        return None
    return read_classification(Path(order.classification), {}, shown=order.classification)


def _facts(data_dir: Path, tree: Tree, batch: int) -> dict[str, Any]:
    return {"apart_by": read_facts(data_dir)["apart_by"], "batches": batch, "levels": list(tree.levels)}


# Texts


def _follow(table: CodeTable, made: Reconciliation) -> tuple[list[Carried], Counter[str]]:
    """The entries and cross-references whose code has one target, and why others are left out."""
    left_out: Counter[str] = Counter()
    kept = []
    for text in table.texts:
        if text.kind in ("title", "description"):
            continue  # those of the new codes are written
        targets = _targets(made, text.code)
        if len(targets) > 1:
            continue
        if not targets:
            left_out["its code is dead" if text.code in made.targets else "its code is above leaves, and not in the new classification"] += 1  # fmt: skip
            continue
        source = None if text.source_code is None else next(iter(_targets(made, text.source_code)), None)
        if text.kind == "cross_reference" and (source is None or text.split != "train"):
            left_out["a cross-reference whose own code has no new one"] += 1
            continue
        if text.split == "cold":
            left_out["its code was hidden from training"] += 1
            continue
        moved = replace(text, code=targets[0], source_code=source, batch=0)
        kept.append(Carried(moved, text.code, BY_CONCORDANCE))
    return kept, left_out


def _apart_from(texts: Sequence[Carried], titles: Mapping[str, str], by_words: bool) -> list[Carried]:
    """The texts without those held out that have the words of a title, or nearly do, as the data's rule is: titles train."""
    sets = {word_set(title) for title in titles.values()} if by_words else set()
    like = Apart([] if by_words else [LabelledText(title, code, "title", "train") for code, title in titles.items()])

    def gives_away(text: str) -> bool:
        return word_set(text) in sets if by_words else like.gives_away(text)

    return [c for c in texts if c.text.split == "train" or not gives_away(c.text.text)]


def _targets(made: Reconciliation, code: str) -> tuple[str, ...]:
    if code in made.targets:
        return made.targets[code]
    return (code,) if code in made.new.index else ()


def _asked(
    checkpoint_dir: Path,
    data_dir: Path,
    table: CodeTable,
    made: Reconciliation,
    followed: Sequence[Carried],
    titles: Mapping[str, str],
) -> list[Carried]:
    """The training entries of split codes, each with the target that the model says; those held out cannot be measured by, and stay out."""
    texts = [t for t in table.texts if t.kind == "entry" and t.split == "train" and made.old_status.get(t.code) == "split"]  # fmt: skip
    if not texts:
        return []
    from curricle.families.codes.model_torch import TorchModel
    from curricle.families.codes.scorer import CACHE
    from curricle.families.codes.use import open_checkpoint

    wanted = sorted({target for t in texts for target in made.targets[t.code]})
    known = {code: [titles[code]] for code in wanted}
    for carried in followed:
        if carried.text.split == "train" and carried.text.code in known:
            known[carried.text.code].append(carried.text.text)
    model = TorchModel(*open_checkpoint(checkpoint_dir, data_dir), CACHE)
    features = {code: _unit(model.features(said)) for code, said in known.items()}
    asked = _unit(model.features([t.text for t in texts]))
    out = []
    for text, feature in zip(texts, asked, strict=True):
        targets = made.targets[text.code]
        nearest = np.array([(features[code] @ feature).max() for code in targets])
        share = np.exp((nearest - nearest.max()) / HEAT)
        share /= share.sum()
        by_share = [targets[i] for i in np.argsort(-share, kind="stable")]
        moved = replace(text, code=by_share[0], batch=0)
        out.append(Carried(moved, text.code, BY_MODEL, float(share.max()), tuple(by_share[1:4])))
    return out


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


# Codes


def _codes(
    table: CodeTable,
    made: Reconciliation,
    titles: Mapping[str, str],
    named: Classification | None,
    texts: Sequence[Carried],
) -> list[dict[str, Any]]:
    """The rows of `codes.jsonl`: what an unchanged code was told by stays, a new one has what the new classification says of it."""
    examples: dict[str, list[str]] = defaultdict(list)
    for carried in texts:
        if (
            carried.text.kind == "entry"
            and carried.text.split == "train"
            and len(examples[carried.text.code]) < EXAMPLES
        ):
            examples[carried.text.code].append(carried.text.text)
    rows, tree, old = [], made.new, made.old.index
    sources = made.sources
    for i, code in enumerate(tree.codes):
        same = old[code] if code in old and made.new_status.get(code, "unchanged") in ("unchanged", "renamed") and sources.get(code, (code,)) == (code,) else None  # fmt: skip
        own = (named.descriptions.get(code) if named else None) or (table.channels["description"][same] if same is not None else None)  # fmt: skip
        excluded = [made.old.codes[j] for j in table.excluded[same]] if same is not None else []
        followed = [t for e in excluded if len(targets := _targets(made, e)) == 1 for t in targets]
        rows.append(
            {
                "code": code,
                "level": int(tree.level[i]),
                "parent": tree.codes[tree.parent[i]] if tree.parent[i] >= 0 else None,
                "title": titles[code],
                "description": own,
                "examples": "; ".join(examples.get(code, ())) or None,
                "exclusions": table.channels["exclusions"][same] if same is not None and followed == excluded else None,
                "excluded_codes": list(dict.fromkeys(followed)) if followed == excluded else [],
                "cold": False,
            }
        )
    return rows


# What is written


def _write_prepared(
    folder: Path,
    data_dir: Path,
    table: CodeTable,
    made: Reconciliation,
    codes: Sequence[dict[str, Any]],
    texts: Sequence[Carried],
    batch: int,
) -> dict[str, int]:
    """`codes.jsonl`, `texts.jsonl` and `carried.json`; how many texts of each kind and split there are."""
    known = [replace(c.text, batch=batch) if c.by == BY_MODEL else c.text for c in texts]
    for row in codes:
        known += [LabelledText(row[kind], row["code"], kind, "train") for kind in ("title", "description") if row[kind]]
    write_rows(folder / "codes.jsonl", codes)
    write_rows(folder / "texts.jsonl", map(row_of, known))
    points = [[made.old.index[code] for code in each] for each in made.points()]
    through = {o: list(each) for o, each in made.targets.items()}
    record = {
        "from": classification_digest(made.old),
        "codes": len(made.old.codes),
        "points": points,
        "targets": through,
    }
    (folder / CARRIED).write_text(json.dumps(record) + "\n", encoding="utf-8")
    return dict(sorted(Counter(f"{t.kind}_{t.split}" for t in known).items()))


def _write_tables(
    folder: Path,
    made: Reconciliation,
    old_titles: Mapping[str, str | None],
    titles: Mapping[str, str],
    codes: Sequence[dict[str, Any]],
    texts: Sequence[Carried],
) -> None:
    """Tables for people, in UTF-8 with a byte order mark, as spreadsheets open them."""
    names = ("code", "title", "parent", "level", "description")
    _table(folder / "classification.csv", names, [[row[name] for name in names] for row in codes])
    told = Counter((c.old_code, c.text.code, c.by) for c in texts if c.text.kind == "entry")
    rows: list[list[Any]] = []
    for old, targets in made.targets.items():
        for new in targets or ("",):
            counts = [told[old, new, by] for by in (BY_CONCORDANCE, BY_MODEL)]
            rows.append([old, old_titles.get(old), new, titles.get(new), made.old_status[old], *counts])
    rows += [["", "", code, titles[code], "new", 0, 0] for code, status in made.new_status.items() if status == "new"]
    _table(folder / "codes.csv", ("old_code", "old_title", "new_code", "new_title", "status", "texts_followed", "texts_by_model"), rows)  # fmt: skip
    entries = [c for c in texts if c.text.kind == "entry"]
    _table(
        folder / "texts.csv",
        ("text", "code", "split", "old_code", "crosswalked_by", "confidence", "alternatives"),
        [[c.text.text, c.text.code, c.text.split, c.old_code, c.by, f"{c.confidence:.3f}", " ".join(c.others)] for c in entries],
    )  # fmt: skip


def _table(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(head)
        writer.writerows(["" if cell is None else cell for cell in row] for row in rows)


def _report(made: Reconciliation, said: str, texts: Sequence[Carried], left_out: Mapping[str, int]) -> dict[str, Any]:
    """Counts, and the codes that changed."""
    entries = [c for c in texts if c.text.kind == "entry"]
    asked = [c for c in entries if c.by == BY_MODEL]
    changed = [o for o, status in made.old_status.items() if status != "unchanged"]
    return {
        "read_as": said,
        "meanings": MEANINGS,
        "became": made.counts(),
        "statuses": list(STATUSES),
        "unlisted": made.unlisted,
        "changed": {o: [made.old_status[o], *made.targets[o]] for o in changed},
        "new": [c for c, status in made.new_status.items() if status == "new"],
        "texts": {
            "followed": len(entries) - len(asked),
            "followed_to_another_code": sum(c.text.code != c.old_code for c in entries if c.by == BY_CONCORDANCE),
            "by_model": len(asked),
            "by_model_unsure": sum(c.confidence < 0.5 for c in asked),
            "held_out": sum(c.text.split != "train" for c in entries),
        },
        "left_out": dict(left_out),
    }
