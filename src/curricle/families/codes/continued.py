"""Prepared data of a continued training: what a model was trained with, and new texts of the same classification behind it, as a further batch.

Old texts keep their split, and a new text with the words of an old one has that one's. A new text that an old one equals takes its place where it says another
code. Old texts are read as they lie, a row at a time; new ones are held.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from curricle.errors import DataError
from curricle.families.codes.classification import read_classification
from curricle.families.codes.config import CodesConfig, CodesData
from curricle.families.codes.labelled import (
    DROPPED,
    TEST,
    TRAIN,
    VALIDATION,
    Labelled,
    Source,
    Text,
    text_number,
    word_set,
)
from curricle.families.codes.prepare import EXAMPLES, FACTS, KINDS_APART, read_facts, read_rows, row_of, write_rows
from curricle.families.codes.sources import local_folder, local_tables
from curricle.families.codes.texts import Apart, LabelledText
from curricle.families.codes.tree import Tree
from curricle.families.codes.workbooks import hierarchy, read_workbooks
from curricle.store.manifest import fetch

_log = logging.getLogger(__name__)
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "cold": DROPPED}
CARRIED = "carried.json"
"""File in prepared data that a crosswalk made: ``from`` (digest of the old classification), ``codes`` (how many it has), ``points`` (for each new code the
positions of the old ones whose mean it starts from), ``targets`` (old leaf → new leaves)."""
OTHER_CODES = "carry the model over to them first: curricle crosswalk CONCORDANCE --model MODEL -o FOLDER"
"""What to do where a continued training names another classification than the model's."""


def prepare_further(config: CodesConfig, out_dir: Path) -> dict[str, Any]:
    """Write the combined data into `out_dir`; facts for the manifest.

    Raises:
        DataError: a source is missing or damaged, nothing is new, or the configuration names another classification than that of the old data.
    """
    old_dir, manifest = fetch(config.data.old, Path(config.paths.cache_dir))
    codes = list(read_rows(old_dir / "codes.jsonl"))
    tree = tree_of(codes)
    before = read_facts(old_dir)
    batch = before.get("batches", 0) + 1
    if config.data.source != "demo":
        with local_folder(config.data.source) as folder:
            titles = read_workbooks(folder).titles
        require_same(tree, Tree.of(list(titles), *hierarchy(titles)), f"data.source {config.data.source}")
    with local_tables(config.data) as (named, files):
        if named is not None:
            check_same(config.data, tree, named)
        new, read = _new_texts(config.data, tree, codes, files, _split_of(old_dir))
    if before["apart_by"] == "likeness":
        old = [LabelledText(**row) for row in read_rows(old_dir / "texts.jsonl")]
        new, near = _apart_by_likeness(new, old, tree)
        if near:
            read["left_out"]["for evaluation, and nearly a training text"] = near
    counts: Counter[str] = Counter(dict.fromkeys(("added", "replaced", "known", "kept"), 0))
    domains: dict[str, set[str]] = defaultdict(set)
    examples: dict[str, list[str]] = defaultdict(list)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_rows(out_dir / "texts.jsonl", _combined(old_dir, new, tree, batch, counts, domains, examples))
    if not counts["added"]:
        raise DataError(
            f"{', '.join(config.data.files)}: nothing is new. {counts['known']:,} texts are among the old ones with the same code"
            + "".join(f"; {count:,} × {why}" for why, count in read["left_out"].items())
        )
    for row in codes:
        if row["examples"] is None and not row["cold"]:
            row["examples"] = "; ".join(examples.get(row["code"], ())) or None
    write_rows(out_dir / "codes.jsonl", codes)
    _log.warning(
        "texts: %s new ones (%s of them in place of an old one), %s known with the same code; %s old ones kept",
        *(f"{counts[name]:,}" for name in ("added", "replaced", "known", "kept")),
    )
    if (old_dir / CARRIED).is_file():
        shutil.copyfile(old_dir / CARRIED, out_dir / CARRIED)
    facts = {"apart_by": before["apart_by"], "batches": batch, "levels": list(tree.levels)}
    (out_dir / FACTS).write_text(json.dumps(facts | read, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return {
        "source": f"{', '.join(config.data.files)}, and what the model before was trained with",
        "synthetic": manifest.info.get("synthetic") is True,
        "codes": len(codes),
        "classification": classification_digest(tree),
        **{f"with_{name}": sum(row[name] is not None for row in codes) for name in ("title", "description", "examples", "exclusions")},
        **dict(sorted(counts.items())),
        "scored": {split: sorted(found) for split, found in sorted(domains.items())},
        **facts,
        **read,
    }  # fmt: skip


def tree_of(codes: Sequence[dict[str, Any]]) -> Tree:
    """The tree of the rows of `codes.jsonl`.

    Raises:
        DataError: they are none.
    """
    try:
        return Tree.of([r["code"] for r in codes], [r["parent"] for r in codes], [r["level"] for r in codes])
    except (KeyError, TypeError) as error:
        raise DataError(f"codes.jsonl is not prepared data of this version ({error}); prepare it again") from error


def classification_digest(tree: Tree) -> str:
    """SHA-256 of the codes and what each lies under: equal for equal classifications, whatever their titles."""
    above = ["" if p < 0 else tree.codes[p] for p in tree.parent]
    return hashlib.sha256(json.dumps(sorted(zip(tree.codes, above, strict=True))).encode()).hexdigest()


def check_same(data: CodesData, tree: Tree, named: tuple[Path, str]) -> None:
    """Refuse a table of codes that holds others than the old data.

    Raises:
        DataError: it does; names some, and the way out.
    """
    found = read_classification(named[0], asdict(data.columns), encoding=data.encoding, shown=named[1])
    require_same(tree, Tree.of(found.codes, found.parents, found.levels), f"data.classification {named[1]}")


def require_same(tree: Tree, other: Tree, what: str) -> None:
    """Refuse other codes than those of `tree`, or the same ones under others.

    Raises:
        DataError: `what` names the place of the others.
    """
    if classification_digest(other) == classification_digest(tree):
        return
    gone = [code for code in tree.codes if code not in other.index]
    added = [code for code in other.codes if code not in tree.index]
    differ = [f"{len(codes):,} {name} ({', '.join(codes[:5])})" for codes, name in ((added, "more"), (gone, "fewer")) if codes]  # fmt: skip
    raise DataError(
        f"{what} is not the classification of the model that is continued: it has "
        f"{' and '.join(differ) or 'the same codes lie under others'}. Leave it out to keep the model's; for new codes {OTHER_CODES}"
    )


def _split_of(old_dir: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Finds the split of the old text with the same words, by `text_number` [n] → int8 [n]; of several training goes first, -1 for none."""
    words, splits = array("Q"), array("b")
    for row in read_rows(old_dir / "texts.jsonl"):
        if row["kind"] in KINDS_APART:
            words.append(text_number("\n".join(word_set(row["text"]))))
            splits.append(SPLITS[row["split"]])
    key, split = np.frombuffer(words, dtype=np.uint64), np.frombuffer(splits, dtype=np.int8)
    order = np.lexsort((split, key))
    key, split = key[order], split[order]

    def find(wanted: np.ndarray) -> np.ndarray:
        if not len(key):
            return np.full(len(wanted), -1, dtype=np.int8)
        place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        return np.where(key[place] == wanted, split[place], -1).astype(np.int8)

    return find


def _new_texts(
    data: CodesData,
    tree: Tree,
    codes: Sequence[dict[str, Any]],
    files: Sequence[tuple[Path, str]],
    known: Callable[[np.ndarray], np.ndarray],
) -> tuple[list[Text], dict[str, Any]]:
    """The new texts with their split, and what was read and left out."""
    found = Labelled(
        [Source(path, shown) for path, shown in files],
        tree,
        asdict(data.columns),
        encoding=data.encoding,
        split_seed=data.split_seed,
        titles=[row["title"] for row in codes],
        cold=np.array([row["cold"] for row in codes], dtype=bool),
        known=known,
    )
    for said in found.said:
        _log.warning("texts: %s", said)
    texts = list(found.texts())
    if found.left_out:
        _log.warning("texts: of %s rows are left out: %s", f"{found.rows:,}", found.why())
    return texts, found.facts()


def _apart_by_likeness(new: Sequence[Text], old: Sequence[LabelledText], tree: Tree) -> tuple[list[Text], int]:
    """The new texts of data whose evaluation texts are kept apart by likeness: one that is nearly an old evaluation text is of its split.

    Returns:
        Those that are kept, and how many for evaluation are left out, since they are nearly a training text.
    """
    held_out = [t for t in old if t.kind == "entry" and t.split != "train"]
    like = Apart(held_out)
    moved = [_with_split(text, twin.split) if (twin := like.twin(text.text)) else text for text in new]
    training = [t for t in old if t.split == "train" or t.kind == "title"]
    training += [LabelledText(t.text, tree.codes[t.leaf], "entry", "train") for t in moved if t.split == "train"]
    seen = Apart(training)
    kept = [text for text in moved if text.split == "train" or not seen.gives_away(text.text)]
    return kept, len(moved) - len(kept)


def _with_split(text: Text, split: str) -> Text:
    return Text(text.text, text.leaf, split, text.weight, text.extra)


def _combined(
    old_dir: Path,
    new: Sequence[Text],
    tree: Tree,
    batch: int,
    counts: Counter[str],
    domains: dict[str, set[str]],
    examples: dict[str, list[str]],
) -> Iterator[dict[str, Any]]:
    """The rows of `texts.jsonl`: the old ones but for those that a new text replaces, then the new ones.

    Filled by the way: `counts`, the domains of each split's entries, and new training texts by code.
    """
    said = {_same(text.text): tree.codes[text.leaf] for text in new}
    known = set()
    for row in read_rows(old_dir / "texts.jsonl"):
        if row["kind"] == "entry" and (key := _same(row["text"])) in said:
            if said[key] == row["code"]:
                known.add(key)
            else:
                counts["replaced"] += 1
                continue
        counts["kept"] += 1
        counts[f"{row['kind']}_{row['split']}"] += 1
        if row["kind"] == "entry":
            domains[row["split"]].add("old")
        yield row
    for text in new:
        code = tree.codes[text.leaf]
        if _same(text.text) in known:
            counts["known"] += 1
            continue
        counts["added"] += 1
        counts[f"entry_{text.split}"] += 1
        domains[text.split].add("new")
        if text.split == "train" and len(examples[code]) < EXAMPLES:
            examples[code].append(text.text)
        yield row_of(LabelledText(text.text, code, "entry", text.split, None, text.weight, **text.extra, batch=batch))  # type: ignore[arg-type]


def _same(text: str) -> int:
    return text_number(unicodedata.normalize("NFKC", " ".join(text.split())).casefold())
