"""Prepares the data of a run: sources → `codes.jsonl` and `texts.jsonl`, the same bytes for the same input; and reads them back.

Data out of tables (`data.classification`) also has `data.json`: which rule keeps its evaluation texts apart, and what was read. Such texts are written as they are read; nothing
here holds all of them."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from curricle.errors import DataError
from curricle.families.codes.classification import Classification, read_classification
from curricle.families.codes.config import CodesConfig, CodesData
from curricle.families.codes.labelled import Labelled, Source
from curricle.families.codes.sources import local_folder, local_tables
from curricle.families.codes.texts import (
    LabelledText,
    NearDuplicates,
    check_no_leak,
    check_word_sets,
    cold_codes,
    cold_leaves,
    labelled_texts,
)
from curricle.families.codes.tree import Tree
from curricle.families.codes.workbooks import Sources, hierarchy, read_demo, read_workbooks

CHANNELS = ("title", "description", "examples", "exclusions")
EXAMPLES = 50
"""Training texts at most that make up a code's channel of examples, where there may be thousands (data out of tables)."""
FACTS = "data.json"
KINDS_APART = ("entry", "cross_reference", "title")
"""Of training texts, those whose words no evaluation text may have."""
KEPT = ("text", "code", "kind", "split", "source_code")
"""What every text is written with."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodeTable:
    """The prepared data of one run, in memory.

    `channels[name]` holds one text or None a code; `excluded[i]` the indices of the codes that code i's cross-references name;
    `cold[i]` whether code i is hidden from training.
    """

    tree: Tree
    channels: dict[str, list[str | None]]
    excluded: tuple[tuple[int, ...], ...]
    cold: np.ndarray
    texts: list[LabelledText]
    by_words: bool = False
    """Whether evaluation texts are kept apart by word set (data out of tables) and not by likeness."""
    batches: int = 0
    """How many batches of new texts a continued training added, one after the other; 0 for data that continue none."""

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes in canonical order."""
        return self.tree.codes

    @property
    def level(self) -> np.ndarray:
        """int64 [N], the number of each code's level."""
        return self.tree.level

    @property
    def parent(self) -> np.ndarray:
        """int64 [N], -1 for roots."""
        return self.tree.parent

    @property
    def leaves(self) -> np.ndarray:
        """Indices of the codes without children, the candidates of a search."""
        return self.tree.leaves

    @cached_property
    def excluded_mask(self) -> np.ndarray:
        """bool [N, N]: row's cross-references name column."""
        mask = np.zeros((len(self.codes), len(self.codes)), dtype=bool)
        for i, named in enumerate(self.excluded):
            mask[i, list(named)] = True
        return mask

    def check_no_leak(self) -> None:
        """Make sure that no evaluation text was trained on, by the rule of this data.

        Raises:
            DataError: one was.
        """
        (check_word_sets if self.by_words else check_no_leak)(self.texts)

    def domain(self, text: LabelledText) -> str:
        """``new`` for a text of the last batch of a continued training, else ``old``."""
        return "new" if self.batches and text.batch == self.batches else "old"

    def split(self, name: str, *kinds: str) -> list[LabelledText]:
        """The texts of a split, of these kinds only when any is given."""
        return [t for t in self.texts if t.split == name and (not kinds or t.kind in kinds)]


def prepare(config: CodesConfig, out_dir: Path) -> dict[str, Any]:
    """Write `codes.jsonl` and `texts.jsonl` into `out_dir`; returns their counts.

    Raises:
        DataError: a source is missing or damaged, or a text leaks between splits.
        ConfigError: more codes are to be hidden than can be.
    """
    if config.data.old:
        from curricle.families.codes.continued import prepare_further

        return prepare_further(config, out_dir)
    if config.data.classification:
        return _prepare_tables(config, out_dir)
    if config.data.source == "demo":
        sources = read_demo()
    else:
        with local_folder(config.data.source) as folder:
            sources = read_workbooks(folder)
    texts, dropped = labelled_texts(sources, split_seed=config.data.split_seed, hidden_codes=config.data.hidden_codes)
    check_no_leak(texts)
    cold = cold_codes(sources, split_seed=config.data.split_seed, count=config.data.hidden_codes)
    codes = list(_code_rows(sources, texts, cold))
    out_dir.mkdir(parents=True, exist_ok=True)
    write_rows(out_dir / "codes.jsonl", codes)
    write_rows(out_dir / "texts.jsonl", map(row_of, texts))
    counts = Counter(f"{t.kind}_{t.split}" for t in texts)
    present = {f"with_{name}": sum(row[name] is not None for row in codes) for name in CHANNELS}
    return {
        "source": config.data.source,
        "synthetic": sources.synthetic,
        "codes": len(codes),
        **present,
        **dict(sorted(counts.items())),
        **dropped,
    }


def _prepare_tables(config: CodesConfig, out_dir: Path) -> dict[str, Any]:
    """The same out of tables: a classification and labelled texts, streamed."""
    data = config.data
    with local_tables(data) as (codes_file, files):
        assert codes_file is not None  # the configuration names one
        known, tree, hidden, texts = read_tables(data, codes_file, files)
        sizes = ", ".join(f"{n:,}" for n in np.bincount(tree.depth)[1:])
        named = (
            f" (numbered {', '.join(map(str, tree.levels))})"
            if tree.levels != tuple(range(1, len(tree.levels) + 1))
            else ""
        )
        _log.warning(
            "codes: %s; levels: %d%s, of %s codes; %s without children",
            known.said,
            len(tree.levels),
            named,
            sizes,
            f"{len(tree.leaves):,}",
        )
        for said in texts.said:
            _log.warning("texts: %s", said)
        out_dir.mkdir(parents=True, exist_ok=True)
        counts: Counter[str] = Counter()
        examples: dict[str, list[str]] = defaultdict(list)

        def rows() -> Iterator[dict[str, Any]]:
            for text in texts.texts():
                code = tree.codes[text.leaf]
                counts[f"entry_{text.split}"] += 1
                if text.split == "train" and len(examples[code]) < EXAMPLES:
                    examples[code].append(text.text)
                yield row_of(LabelledText(text.text, code, "entry", text.split, None, text.weight, **text.extra))  # type: ignore[arg-type]
            for kind, wordings in (("title", known.titles), ("description", known.descriptions)):
                for code, wording in wordings.items():
                    split = "cold" if code in hidden else "train"
                    counts[f"{kind}_{split}"] += 1
                    yield row_of(LabelledText(wording, code, kind, split))  # type: ignore[arg-type]

        write_rows(out_dir / "texts.jsonl", rows())
        _log.warning("texts: %s", _divided(counts))
        if texts.left_out:
            _log.warning("texts: of %s rows are left out: %s", f"{texts.rows:,}", texts.why())
    codes = [_table_row(known, tree, i, examples, hidden) for i in range(len(tree.codes))]
    write_rows(out_dir / "codes.jsonl", codes)
    facts = {"levels": list(tree.levels), "classification_read_as": known.said, **texts.facts()}
    (out_dir / FACTS).write_text(
        json.dumps({"apart_by": "words"} | facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    present = {f"with_{name}": sum(row[name] is not None for row in codes) for name in CHANNELS}
    return {
        "source": data.classification,
        "synthetic": False,
        "codes": len(codes),
        **present,
        **dict(sorted(counts.items())),
        **facts,
    }


def read_tables(
    data: CodesData, codes_file: tuple[Path, str], files: Iterable[tuple[Path, str]]
) -> tuple[Classification, Tree, frozenset[str], Labelled]:
    """A classification, its tree, its hidden codes, and the labelled texts read once, out of files as `local_tables` gives them.

    Raises:
        DataError: a file is no table, or nothing can be made of it.
        ConfigError: a column that is named is not there, none is recognised, or more codes are to be hidden than can be.
    """
    columns, seed = asdict(data.columns), data.split_seed
    known = read_classification(codes_file[0], columns, encoding=data.encoding, shown=codes_file[1])
    tree = Tree.of(known.codes, known.parents, known.levels)
    above = [(tree.codes[i], tree.codes[tree.parent[i]] if tree.parent[i] >= 0 else "") for i in tree.leaves]
    hidden = cold_leaves(above, split_seed=seed, count=data.hidden_codes)
    cold = np.array([code in hidden for code in tree.codes])
    sources = [Source(path, shown) for path, shown in files]
    titles = list(known.titles.values())
    return known, tree, hidden, Labelled(sources, tree, columns, encoding=data.encoding, split_seed=seed, titles=titles, cold=cold)  # fmt: skip


def _divided(counts: Mapping[str, int]) -> str:
    """How the labelled texts are divided, for people."""
    ways = {"train": "to train on", "validation": "to choose the best model by", "test": "to measure by"}
    said = ", ".join(f"{counts.get(f'entry_{split}', 0):,} {way}" for split, way in ways.items())
    hidden = f", {counts['entry_cold']:,} of hidden codes" if counts.get("entry_cold") else ""
    return (
        said + hidden + ("" if counts.get("entry_train") else ": none trains, so that titles and descriptions alone do")
    )


def _table_row(
    known: Classification, tree: Tree, i: int, examples: dict[str, list[str]], hidden: frozenset[str]
) -> dict[str, Any]:
    code = tree.codes[i]
    exclusions = known.exclusions.get(code, "")
    named = [
        word
        for word in re.findall(r"\w[\w.-]*\w", exclusions)
        if word in tree.index and word != code and not word.isalpha()
    ]
    if hidden.intersection(named):
        exclusions, named = "", []
    own = [] if code in hidden else examples.get(code) or known.examples.get(code, ())
    return {
        "code": code,
        "level": int(tree.level[i]),
        "parent": tree.codes[tree.parent[i]] if tree.parent[i] >= 0 else None,
        "title": known.titles[code],
        "description": known.descriptions.get(code),
        "examples": "; ".join(own) or None,
        "exclusions": exclusions or None,
        "excluded_codes": list(dict.fromkeys(named)),
        "cold": code in hidden,
    }


def row_of(text: LabelledText) -> dict[str, Any]:
    """A text as it is written: what few texts have only where it has it."""
    row = asdict(text)
    if not row["batch"]:
        del row["batch"]
    return row if text.weight != 1 or text.date or text.source or text.batch else {name: row[name] for name in KEPT}


def load(data_dir: Path) -> CodeTable:
    """Read what `prepare` wrote.

    Raises:
        DataError: a file is missing or not what `prepare` writes.
    """
    rows = list(read_rows(data_dir / "codes.jsonl"))
    try:
        tree = Tree.of([r["code"] for r in rows], [r["parent"] for r in rows], [r["level"] for r in rows])
        channels = {name: [row[name] for row in rows] for name in CHANNELS}
        excluded = tuple(tuple(tree.index[c] for c in row["excluded_codes"]) for row in rows)
        cold = np.array([row["cold"] for row in rows], dtype=bool)
        texts = [_labelled(row) for row in read_rows(data_dir / "texts.jsonl")]
        unknown = next((t for t in texts if t.code not in tree.index), None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{data_dir} is not prepared data of this version ({error}); prepare it again") from error
    if unknown is not None:
        raise DataError(
            f"{data_dir / 'texts.jsonl'}: {unknown.text!r} belongs to {unknown.code}, which codes.jsonl lacks; prepare it again"
        )
    facts = read_facts(data_dir)
    return CodeTable(
        tree, channels, excluded, cold, texts, by_words=facts["apart_by"] == "words", batches=facts.get("batches", 0)
    )


def read_facts(data_dir: Path) -> dict[str, Any]:
    """What `data.json` says of prepared data; those of the workbooks have none.

    Raises:
        DataError: it is damaged.
    """
    try:
        facts = json.loads((data_dir / FACTS).read_text(encoding="utf-8"))
        if facts["apart_by"] not in ("words", "likeness") or not isinstance(facts.get("batches", 0), int):
            raise ValueError(f"apart_by is {facts['apart_by']!r}")
    except FileNotFoundError:
        return {"apart_by": "likeness"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{data_dir / FACTS} is damaged ({error}); prepare the data again") from error
    return facts


def _labelled(row: dict[str, Any]) -> LabelledText:
    """A text whose short values are shared with those of others: of millions, they would be half of the memory."""
    for name in ("code", "kind", "split"):
        row[name] = sys.intern(row[name])
    return LabelledText(**row)


def _code_rows(sources: Sources, texts: list[LabelledText], cold: frozenset[str]) -> Iterator[dict[str, Any]]:
    """One record a code. No channel holds an evaluation entry, and no channel of another code speaks of a hidden one."""
    tree = Tree.of(list(sources.titles), *hierarchy(sources.titles))
    entries: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        if text.kind == "entry" and text.split == "train":
            entries[text.code].append(text.text)
    held_out = NearDuplicates([t.text for t in texts if t.split != "train" and t.kind == "entry"])
    wordings: dict[str, list[str]] = defaultdict(list)
    named: dict[str, list[str]] = defaultdict(list)
    for row in sources.cross_references:
        if not cold.intersection(row.targets):
            wordings[row.source].append(row.text)
            named[row.source].extend(row.targets)
    for i, code in enumerate(sources.titles):
        examples = entries.get(code) or [e for e in sources.illustrative.get(code, ()) if held_out.find(e) is None]
        if code in cold:
            examples = []
        yield {
            "code": code,
            "level": int(tree.level[i]),
            "parent": tree.codes[tree.parent[i]] if tree.parent[i] >= 0 else None,
            "title": sources.titles[code],
            "description": sources.descriptions.get(code),
            "examples": "; ".join(examples) or None,
            "exclusions": " ".join(dict.fromkeys(wordings[code])) or None,
            "excluded_codes": [c for c in dict.fromkeys(named[code]) if c != code],
            "cold": code in cold,
        }


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line != "\n":
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise DataError(f"{path}, line {number}: not JSON ({error}); prepare it again") from error
                    yield row
    except FileNotFoundError as error:
        raise DataError(f"no prepared data of a classification: {path} is not there") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); prepare it again") from error
