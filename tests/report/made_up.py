"""A store with a run of two stages and all that a report may show, without any training. Its texts are as hostile as texts can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from curricle.planning import ChainPlan, StagePlan
from curricle.steps.findings import FORMAT
from curricle.store import layout
from curricle.store.folder import FolderStore
from curricle.store.manifest import publish

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">{{7*7}}&amp;"
"""What nobody may be taken for markup or a template."""
RUN = "made-up"


def _config(family: str, stage: str) -> dict[str, Any]:
    return {
        "family": family,
        "seed": 3,
        "note": EVIL,
        "paths": {"cache_dir": ".curricle"},
        "training": {"learning_rate": 0.001, "trainer": {"devices": 1, "max_epochs": 3, "num_nodes": 1}},
        "curriculum": {"name": stage},
    }


def write(
    folder: Path, family: str, findings: dict[str, Any] | None, data: dict[str, Any], metrics: dict[str, float]
) -> str:
    """The store's URI; its run is `RUN`, with the stages one and two."""
    store = FolderStore(str(folder))
    publish(store, "data/made", None, kind="dataset", digest="d0", info=data)
    stages = []
    for number, stage in enumerate(("one", "two")):
        place = f"{RUN}/{stage}"
        best = layout.checkpoint_name(stage, 2, 0.4 - number / 10)
        parent = f"../one/{layout.checkpoint_name('one', 2, 0.4)}" if number else None
        start, digest = ("continued", "scratch")[not number], f"digest{number}"
        spec = {
            "digest": digest,
            "family": family,
            "start": start,
            "config": _config(family, stage),
            "data_uri": "../../data/made",
            "data_digest": "d0",
            "parent_uri": parent,
        }
        store.write(f"{place}/{layout.STAGE}", json.dumps(spec).encode())
        epochs = [
            {
                "epoch": e,
                "step": 10 * e,
                "val_loss": 0.6 - 0.1 * min(e, 2) + 0.05 * (e > 2) - number / 10,
                "train/loss_epoch": 0.9 / e,
            }
            | {name: value * (0.8 + 0.1 * min(e, 2)) for name, value in metrics.items()}
            for e in (1, 2, 3)
        ]
        losses = [[s, 2.0 / s] for s in range(1, 31)]
        store.write(f"{place}/{layout.HISTORY}", layout.write_record({"epochs": epochs, "losses": losses}))
        info = {
            "family": family,
            "best": best,
            "epochs": 3,
            "steps": 30,
            "seconds_per_step": 0.5,
            "peak_memory_mb": 900,
            "world_size": 1,
            "precision": "32-true",
            "versions": {"python": "3.11", "torch": "2"},
        }
        publish(
            store,
            place,
            None,
            kind="stage",
            digest=digest,
            metrics={"val_loss": 0.4 - number / 10, **metrics},
            lineage={"parent_uri": parent, "data_uri": "../../data/made", "data_digest": "d0"},
            info=info,
        )
        if findings is not None and number:
            record = {
                "format": FORMAT,
                "digest": digest,
                "checkpoint": best,
                "measured": "metrics" in findings,
                "content": findings,
            }
            store.write(f"{place}/{layout.FINDINGS}", layout.write_record(record))
        origins = {"seed": "command line", "training.learning_rate": f"config/{stage}.yaml:4", "note": EVIL}
        stages.append(
            StagePlan(
                stage,
                start,
                "best checkpoint of one" if number else "first stage",
                digest,
                f"{folder}/{place}",
                f"{folder}/{RUN}/one" if number else "",
                "digest0" if number else "",
                f"{folder}/data/made",
                "d0",
                stage,
                _config(family, stage),
                origins,
            )
        )
    plan = ChainPlan("made", RUN, str(folder), True, tuple(stages), "test/top1 >= 0.7")
    store.write(f"{RUN}/{layout.PLAN}", plan.to_stored().encode())
    verdict = {"digest": "digest1", "decision": "hold", "reason": f"test/top1 0.6000 is not >= 0.7 {EVIL}"}
    store.write(f"{RUN}/{layout.VERDICT}", layout.write_record(verdict))
    return str(folder)


def codes_findings(tops: int = 6, leaves: int = 300) -> dict[str, Any]:
    """Of a tree of two levels."""
    draw = np.random.default_rng(1)
    n = tops + leaves
    angle = np.concatenate([np.arange(tops) / tops, np.sort(draw.random(leaves))]) * 2 * np.pi
    radius = np.concatenate([np.full(tops, 0.35), draw.uniform(0.75, 0.85, leaves)])
    points = (np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] * 10_000).astype(int).ravel()
    titles = [f"Title {i} {EVIL if i % 50 == 7 else ''}" for i in range(n)]
    sure = np.sort(draw.random(200))[::-1]
    wrong = np.cumsum(draw.random(200) > sure) / np.arange(1, 201)
    return {
        "metrics": {
            "test/top1": 0.6,
            "test/hit@5": 0.8,
            "test/hit@10": 0.9,
            "test/mrr": 0.7,
            "test/ece": 0.08,
            "robust/upper_top1": 0.55,
            "robust/typos_top1": 0.4,
            "robust/foreign_auroc": 0.97,
            "robust/foreign_found": 0.8,
            "robust/real_kept": 0.99,
            "structure/pearson": 0.8,
        },
        "levels": [2, 6],
        "texts": 200,
        "absent": {"codes": leaves, "untrained": 14, "first": ["c7", EVIL], "untested": 100},
        "automation": [
            [round(float(s), 4), (i + 1) / 200, round(float(w) / 2, 4), round(float(w), 4)]
            for i, (s, w) in enumerate(zip(sure, wrong, strict=True))
        ],
        "rules": [[0.02, 0.9912, 0.31, 0.015], [0.05, 0.8, 0.5, 0.06]],
        "reliability": [[0.1, 0.12, 30], [0.5, 0.4, 60], [0.95, 0.9, 110]],
        "ways": [["all opinions, weighed", 0.8, 0.6], ["linear model on n-grams", 0.7, 0.5]],
        "confusions": [
            {
                "true": ["c7", EVIL],
                "said": ["c8", "Title 8"],
                "count": 4,
                "of": 9,
                "texts": [[EVIL, 0.93], ["a bakery", 0.4]],
            }
        ],
        "sure_and_wrong": [{"text": EVIL, "true": ["c7", "Title 7"], "said": ["c8", "Title 8"], "sure": 0.99}],
        "by_top": [["c1", EVIL, 40, 0.4, 0.7], ["c2", "Title 2", 160, 0.7, 0.9]],
        "disc": {
            "fit": 0.66,
            "fit_before": 0.5,
            "codes": [f"c{i}" for i in range(n)],
            "titles": titles,
            "parents": [-1] * tops + [int(a / (2 * np.pi) * tops) for a in angle[tops:]],
            "depths": [1] * tops + [2] * leaves,
            "points": points.tolist(),
            "before": (points * 0.9).astype(int).tolist(),
            "left_out": 0,
            "tested": [[i % 4, i % 3 if i % 3 <= i % 4 else 0] for i in range(n)],
        },
    }


def ner_findings() -> dict[str, Any]:
    """Two domains, three labels."""
    curve = [
        {
            "threshold": t / 10,
            "kept": 100 - 9 * t,
            "precision": 0.8 + 0.02 * t,
            "recall": 0.8 - 0.07 * t,
            "f1": 0.8,
            "coverage": 1 - 0.09 * t,
        }
        for t in reversed(range(11))
    ]
    kinds = {"right": 80, "boundary": 4, "label": 2, "missed": 10, "spurious": 5}
    example = {
        "gold": [f"… {EVIL} at ", "Norvik <b>Foods</b>", " in Oslo …"],
        "said": ["… at ", "Norvik", " Foods in Oslo …"],
        "true": "ORG",
        "label": "ORG",
        "score": 0.97,
    }
    return {
        "metrics": {"test/f1": 0.83, "test/old/f1": 0.92, "test/new/f1": 0.8, "test/unreachable": 3.0},
        "on": "test", "records": 240, "calibrated": True,
        "domains": {"old": {"ORG": [80, 90, 95], "PERSON": [10, 12, 12]}, "new": {"ORG": [40, 50, 60], EVIL: [5, 9, 10]}},
        "before": {"metrics": {"test/f1": 0.5}, "domains": {"old": {"ORG": [82, 90, 95], "PERSON": [10, 12, 12]}, "new": {"ORG": [10, 50, 60]}}},
        "thresholds": {"all": curve, "labels": {"ORG": curve[4:], EVIL: curve}},
        "kinds": {"ORG": kinds, EVIL: kinds}, "taken_for": {"ORG": {EVIL: 2}}, "unknown": [], "notes": [f"a note {EVIL}"],
        "reliability": [[0.4, 0.5, 12], [0.97, 0.95, 130]],
        "examples": {"boundary": [example], "missed": [example | {"said": ["… nothing found …"], "label": "", "score": None}], "spurious": [example | {"gold": ["… nothing annotated …"], "true": ""}]},
        "reconciliation": {"labels": {"ORG": "kept", "PERSON": "dropped", EVIL: "added"}, "counts": {"kept": 3, "dropped": 2}},
    }  # fmt: skip


def codes(folder: Path) -> str:
    """A run of codes."""
    return write(
        folder,
        "codes",
        codes_findings(),
        {"codes": 306, "synthetic": True, "dropped_entries": 4},
        {"val/top1": 0.55, "val/mrr": 0.6},
    )


def ner(folder: Path) -> str:
    """A run of NER."""
    data = {
        "labels": ["ORG"],
        "labels_of_source": {"old": ["ORG", "PERSON"], "new": ["ORG", EVIL]},
        "dropped": {f"too long {EVIL}": 7},
        "notes": ["few records"],
    }
    return write(folder, "ner", ner_findings(), data, {"val/f1": 0.8, "val/old/f1": 0.9, "val/new/f1": 0.7})


def checkpoints(folder: Path, family: str) -> None:
    """Give the stages of the made-up run their best checkpoints, as far as a card reads them: manifest, configuration, labels."""
    store = FolderStore(str(folder))
    for number, stage in enumerate(("one", "two")):
        best = layout.checkpoint_name(stage, 2, 0.4 - number / 10)
        made = folder / f"made-{stage}"
        made.mkdir()
        (made / layout.CONFIG).write_text(yaml.safe_dump(_config(family, stage) | {"data": {"new_dataset_path": EVIL}}))
        (made / "labels.json").write_text(json.dumps({"labels": ["O", "B-ORG", "I-ORG"]}))
        lineage = {
            "data_uri": "../../../data/made",
            "data_digest": "d0",
            "parent_digest": "digest0" if number else None,
        }
        publish(
            store,
            f"{RUN}/{stage}/{best}",
            made,
            kind="checkpoint",
            digest=f"digest{number}",
            lineage=lineage,
            info={"family": family, "run_id": RUN, "stage": stage},
        )
