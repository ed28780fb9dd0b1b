"""What a report shows of a model of codes: the disc of its codes, and, measured on test texts, how sure it is, what it confuses, and what simpler ways reach."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from curricle.families.codes.disc import TABLE, disc, shown
from curricle.families.codes.evaluate import all_metrics, rules, texts_of
from curricle.families.codes.opinions import CHUNK, OPINIONS
from curricle.families.codes.prepare import CodeTable, load
from curricle.families.codes.scorer import CACHE, Scorer
from curricle.families.reliability import reliability
from curricle.store import layout

WAYS = {
    "distance": "distance to the codes alone (what training optimises)",
    "encoder": "nearest training text, by the encoder",
    "ngrams": "nearest training text, by n-grams (1-NN)",
    "linear": "linear model on n-grams",
}
"""Of `opinions.OPINIONS`: what the whole is compared with, and how that is called."""
POINTS = 200
"""Of the automation curve."""
PAIRS, TEXTS = 12, 3
"""Confusions that are shown, and texts of each."""
LONGEST = 160
"""Characters of a text."""


def findings(
    checkpoint_dir: Path, data_dir: Path, parent_dir: Path | None, measure: bool, cache: Path = CACHE
) -> dict[str, Any]:
    """See `registry.FamilyEntry.findings`.

    Raises:
        CheckpointError, DataError: as `evaluate`.
    """
    if not measure:
        table = load(data_dir)
        return {"disc": _disc(checkpoint_dir, parent_dir, table, {})}
    scorer = Scorer.load(checkpoint_dir, data_dir, cache)
    scorer.table.check_no_leak()
    seen = _Seen(scorer)
    content: dict[str, Any] = {"metrics": all_metrics(scorer), "levels": list(scorer.table.tree.levels)}
    content["absent"] = _absent(scorer, seen)
    content["disc"] = _disc(checkpoint_dir, parent_dir, scorer.table, seen.by_code())
    return content | (seen.content() if len(seen.target) else {})


class _Seen:
    """The test texts, and what was said of them."""

    def __init__(self, scorer: Scorer):
        self.scorer, self.tree = scorer, scorer.table.tree
        texts, self.target = texts_of(scorer.table, "test")
        self.texts = [t.text for t in texts]
        first, sure = [], []
        firsts: dict[str, list[np.ndarray]] = defaultdict(list)
        for start in range(0, len(self.texts), CHUNK):
            opinions = scorer.memory.of(self.texts[start : start + CHUNK])
            confidence = scorer.weighed(opinions).confidence()
            first.append(confidence.argmax(1))
            sure.append(confidence.max(1))
            for name in WAYS:
                firsts[name].append(opinions.values[OPINIONS.index(name)].argmax(1))
        self.first = np.concatenate(first) if first else np.zeros(0, np.int64)
        self.sure = np.concatenate(sure) if sure else np.zeros(0)
        self.ways = {name: np.concatenate(parts) for name, parts in firsts.items()}
        self.cuts = self.tree.cuts[self.tree.leaves]
        """[leaves, levels]: what each leaf counts as on each level."""

    def right(self, first: np.ndarray) -> np.ndarray:
        """bool [n, levels], the coarsest level first."""
        return self.cuts[first] == self.cuts[self.target]

    def by_code(self) -> dict[int, tuple[int, int]]:
        """Code's position → (its test texts, those that were coded right)."""
        leaves = self.tree.leaves
        hits = self.first == self.target
        counts = np.bincount(self.target, minlength=len(leaves)), np.bincount(self.target, hits, minlength=len(leaves))
        return {int(leaves[i]): (int(counts[0][i]), int(counts[1][i])) for i in np.flatnonzero(counts[0])}

    def content(self) -> dict[str, Any]:
        return {
            "texts": len(self.texts),
            "automation": self._automation(),
            "rules": [
                [error, _floor(least), round(coded, 4), round(wrong, 4)]
                for error, least, coded, wrong in rules(self.scorer, self.sure, self.first == self.target)
                if least <= 1
            ],
            "reliability": reliability(self.sure, self.first == self.target),
            "ways": [["all opinions, weighed", *self._shares(self.first)]]
            + [[WAYS[name], *self._shares(first)] for name, first in self.ways.items()],
            "confusions": self._confusions(),
            "sure_and_wrong": self._sure_and_wrong(),
            "by_top": self._by_top(),
        }

    def _shares(self, first: np.ndarray) -> list[float]:
        """Share right on each level, the coarsest first."""
        return [round(float(share), 4) for share in self.right(first).mean(0)]

    def _automation(self) -> list[list[float]]:
        """[threshold, share of texts at or above it, share wrong of those on each level ...], from few texts to all."""
        order = np.argsort(-self.sure, kind="stable")
        wrong = np.cumsum(~self.right(self.first)[order], axis=0)
        n, points = len(order), []
        for count in np.unique(np.linspace(1, n, min(POINTS, n)).round().astype(int)):
            errors = (wrong[count - 1] / count).tolist()
            points.append(
                [_floor(self.sure[order[count - 1]]), round(float(count) / n, 4), *(round(e, 4) for e in errors)]
            )
        return points

    def _named(self, leaf: int) -> list[str]:
        code = int(self.tree.leaves[leaf])
        return [self.tree.codes[code], (self.scorer.table.channels["title"][code] or "")[:LONGEST]]

    def _confusions(self) -> list[dict[str, Any]]:
        """The pairs of codes that are taken for one another most often."""
        wrong = np.flatnonzero(self.first != self.target)
        pairs = Counter(zip(self.target[wrong].tolist(), self.first[wrong].tolist(), strict=True))
        total = Counter(self.target.tolist())
        rows = []
        for (true, said), count in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:PAIRS]:
            mine = wrong[(self.target[wrong] == true) & (self.first[wrong] == said)]
            mine = mine[np.argsort(-self.sure[mine], kind="stable")][:TEXTS]
            texts = [[self.texts[i][:LONGEST], round(float(self.sure[i]), 4)] for i in mine]
            rows.append(
                {
                    "true": self._named(true),
                    "said": self._named(said),
                    "count": count,
                    "of": total[true],
                    "texts": texts,
                }
            )
        return rows

    def _sure_and_wrong(self) -> list[dict[str, Any]]:
        wrong = np.flatnonzero(self.first != self.target)
        rows = wrong[np.argsort(-self.sure[wrong], kind="stable")][:PAIRS]
        return [
            {
                "text": self.texts[i][:LONGEST],
                "true": self._named(int(self.target[i])),
                "said": self._named(int(self.first[i])),
                "sure": round(float(self.sure[i]), 4),
            }
            for i in rows
        ]

    def _by_top(self) -> list[list[Any]]:
        """[code, title, texts, share right on the finest level, and on the coarsest] of each root, the weakest first."""
        right, roots = self.right(self.first), self.cuts[self.target][:, 0]
        rows = []
        for root in np.unique(roots):
            mine = roots == root
            title = (self.scorer.table.channels["title"][root] or "")[:LONGEST]
            shares = [round(float(right[mine, k].mean()), 4) for k in (-1, 0)]
            rows.append([self.tree.codes[root], title, int(mine.sum()), *shares])
        return sorted(rows, key=lambda row: (row[3], row[0]))


def _floor(value: float) -> float:
    """Four places, rounded down: a threshold that keeps the text it was read from."""
    return int(value * 10_000) / 10_000


def _absent(scorer: Scorer, seen: _Seen) -> dict[str, Any]:
    """Codes that nothing is known of but their titles, and codes without a test text."""
    bare = np.flatnonzero(scorer.memory.bare)
    untested = len(scorer.leaves) - len(np.unique(seen.target))
    return {
        "codes": len(scorer.leaves),
        "untrained": int(len(bare)),
        "first": [scorer.codes[i] for i in bare[:12]],
        "untested": int(untested),
    }


def _disc(
    checkpoint_dir: Path, parent_dir: Path | None, table: CodeTable, tested: dict[int, tuple[int, int]]
) -> dict[str, Any]:
    """The codes' points, now and in the model before, as whole ten-thousandths; their names, and how their texts fared."""
    tree, rows = table.tree, shown(table.tree)
    now = disc(load_file(checkpoint_dir / layout.WEIGHTS)[TABLE], tree, rows)
    position = {int(code): place for place, code in enumerate(rows)}
    longest = 80 if len(rows) < 3000 else 40
    content: dict[str, Any] = {
        "fit": round(now.fit, 3),
        "codes": [tree.codes[i] for i in rows],
        "titles": [(table.channels["title"][i] or "")[:longest] for i in rows],
        "parents": [position.get(int(tree.parent[i]), -1) for i in rows],
        "depths": tree.depth[rows].tolist(),
        "points": _whole(now.points),
        "left_out": len(tree.codes) - len(rows),
    }
    before = _table_of(parent_dir, len(tree.codes))
    if before is not None:
        was = disc(before, tree, rows, np.arctan2(now.points[:, 1], now.points[:, 0]))
        content |= {"before": _whole(was.points), "fit_before": round(was.fit, 3)}
    if tested:
        content["tested"] = [list(tested.get(int(i), (0, 0))) for i in rows]
    return content


def _whole(points: np.ndarray) -> list[int]:
    return (points * 10_000).round().astype(int).ravel().tolist()


def _table_of(folder: Path | None, count: int) -> np.ndarray | None:
    """The code table of another checkpoint; None where it has none of this size."""
    if folder is None:
        return None
    try:
        table = load_file(folder / layout.WEIGHTS).get(TABLE)
    except (OSError, SafetensorError):
        return None
    return table if table is not None and len(table) == count else None
