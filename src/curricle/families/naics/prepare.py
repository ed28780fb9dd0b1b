"""Prepares the NAICS data of a run: sources → `codes.jsonl` and `texts.jsonl`, the same bytes for the same input; and reads them back."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from curricle.errors import DataError
from curricle.families.naics.config import NaicsConfig
from curricle.families.naics.sources import local_folder
from curricle.families.naics.texts import LabelledText, NearDuplicates, check_no_leak, cold_codes, labelled_texts
from curricle.families.naics.tree import Tree
from curricle.families.naics.workbooks import Sources, read_demo, read_workbooks

CHANNELS = ("title", "description", "examples", "exclusions")


@dataclass(frozen=True)
class NaicsTable:
    """The prepared data of one run, in memory.

    `channels[name]` holds one text or None a code; `excluded[i]` the indices of the codes that code i's cross-references name;
    `cold[i]` whether code i is hidden from training.
    """

    tree: Tree
    channels: dict[str, list[str | None]]
    excluded: tuple[tuple[int, ...], ...]
    cold: np.ndarray
    texts: list[LabelledText]

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes in canonical order."""
        return self.tree.codes

    @property
    def level(self) -> np.ndarray:
        """int64 [N], 2 to 6."""
        return self.tree.level

    @property
    def parent(self) -> np.ndarray:
        """int64 [N], -1 for sectors."""
        return self.tree.parent

    @property
    def leaves(self) -> np.ndarray:
        """Indices of the six-digit codes, the candidates of a search."""
        return self.tree.leaves

    @cached_property
    def excluded_mask(self) -> np.ndarray:
        """bool [N, N]: row's cross-references name column."""
        mask = np.zeros((len(self.codes), len(self.codes)), dtype=bool)
        for i, named in enumerate(self.excluded):
            mask[i, list(named)] = True
        return mask

    def split(self, name: str, *kinds: str) -> list[LabelledText]:
        """The texts of a split, of these kinds only when any is given."""
        return [t for t in self.texts if t.split == name and (not kinds or t.kind in kinds)]


def prepare(config: NaicsConfig, out_dir: Path) -> dict[str, Any]:
    """Write `codes.jsonl` and `texts.jsonl` into `out_dir`; returns their counts.

    Raises:
        DataError: a source is missing or damaged, or a text leaks between splits.
        ConfigError: more codes are to be hidden than can be.
    """
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
    _write(out_dir / "codes.jsonl", codes)
    _write(out_dir / "texts.jsonl", [asdict(t) for t in texts])
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


def load(data_dir: Path) -> NaicsTable:
    """Read what `prepare` wrote.

    Raises:
        DataError: a file is missing or not what `prepare` writes.
    """
    rows = list(_read(data_dir / "codes.jsonl"))
    try:
        tree = Tree.of([row["code"] for row in rows])
        channels = {name: [row[name] for row in rows] for name in CHANNELS}
        excluded = tuple(tuple(tree.index[c] for c in row["excluded_codes"]) for row in rows)
        cold = np.array([row["cold"] for row in rows], dtype=bool)
        texts = [LabelledText(**row) for row in _read(data_dir / "texts.jsonl")]
        unknown = next((t for t in texts if t.code not in tree.index), None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{data_dir} is not prepared NAICS data of this version ({error}); prepare it again") from error
    if unknown is not None:
        raise DataError(
            f"{data_dir / 'texts.jsonl'}: {unknown.text!r} belongs to {unknown.code}, which codes.jsonl lacks; prepare it again"
        )
    return NaicsTable(tree, channels, excluded, cold, texts)


def _code_rows(sources: Sources, texts: list[LabelledText], cold: frozenset[str]) -> Iterator[dict[str, Any]]:
    """One record a code. No channel holds an evaluation entry, and no channel of another code speaks of a hidden one."""
    tree = Tree.of(list(sources.titles))
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


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"no prepared NAICS data: {path} is not there") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); prepare it again") from error
    for number, line in enumerate(lines, start=1):
        if line:
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}); prepare it again") from error
