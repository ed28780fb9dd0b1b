"""The table of bad input: every kind that was found once, and its siblings."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.bad_input import Case, Content, agree


def plan(*arguments: str, config: str = "conf/config.yaml", stage: str = "one") -> tuple[str, ...]:
    return ("plan", "--config", config, "-c", stage, *arguments)


def codes(*arguments: str) -> tuple[str, ...]:
    return plan(*arguments, "paths.store_uri=naics", config="codes/config.yaml", stage="flat")


EXPERIMENT = ("plan", "-e", "exp/experiment/e.yaml")
PIPELINE = str(Path(__file__).parents[2] / "kfp_pipelines/compiled/chain_smoke.yaml")
COMBINE = ("combine", "--new", "people", "--strategy", "new_only", "-o", "out")
ASSIGN = ("assign", "in.csv", "--column", "text", "-o", "out.csv", "--store", "naics")
EVALUATE = ("evaluate", "--store", "store")
BEST = "store/good/one/{best}"
"""The stage's best checkpoint: its name holds a loss."""

# ---------------------------------------------------------------- what a text file may be

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{c}: &{c} [{', '.join([f'*{b}'] * 10)}]\n" for b, c in zip("abcdefghi", "bcdefghij", strict=True)
)
YAML: dict[str, str | bytes] = {
    "unknown tag": "a: !mine 1\n",
    "a key twice in a list": "a: [{x: 1,\n  x: 2}]\n",
    "tag of Python: call": "a: !!python/object/apply:os.system ['touch ran']\n",
    "tag of Python: name": "a: !!python/name:os.system\n",
    "tag that does not fit: int": "a: !!int abc\n",
    "tag that does not fit: float": "a: !!float abc\n",
    "tag that does not fit: binary": "a: !!binary '*'\n",
    "tag that does not fit: timestamp": "a: !!timestamp soon\n",
    "tag that does not fit: map": "a: !!map [1]\n",
    "set": "a: !!set {x}\n",
    "ordered map": "a: !!omap [x: 1]\n",
    "alias bomb": BOMB,
    "merge bomb": "a: &a {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [*a, *a]}}\n" for i in range(3)) + "c: {<<: 1}\n",
    "alias within itself": "a: &a {b: *a}\n",
    "list within itself": "a: &a [*a]\n",
    "alias of nothing": "a: *b\n",
    "deep brackets": "a: " + "[" * 60 + "]" * 60,
    "very deep brackets": "a: " + "[" * 5_000,
    "very deep blocks": "".join(" " * i + "a:\n" for i in range(800)),
    "huge integer": "a: " + "9" * 5000,
    "list as key": "? [a, b]\n: 1\n",
    "mapping as key": "? {a: b}\n: 1\n",
    "null as key": "~: 1\n",
    "number as key": "1: 1\n",
    "a list": "- 1\n",
    "a single value": "words\n",
    "unclosed": "a: [1\n",
    "a tab": "\ta: 1\n",
    "two documents": "a: 1\n---\na: 2\n",
    "a key twice": "a: 1\na: 2\n",
    "latin-1": "a: caf\xe9\n".encode("latin-1"),
    "utf-16": "a: 1\n".encode("utf-16"),
    "zero bytes": b"\0\0\0\0",
    "control characters": "a: \x01\n",
    "binary": bytes(range(256)),
    "unknown key": "nonsense: 1\n",
    "far too large": "a: " + "x" * 20_000_000 + "\n",
}
PLACES: dict[str, Content] = {
    "missing": None,
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "unreadable": lambda path: path.symlink_to("/proc/self/mem"),
    "a pipe": lambda path: os.mkfifo(path),
}
JSON: dict[str, str | bytes] = {
    "empty": "",
    "a key twice": '{"a": 1,\n"b": {"c": 1, "c": 2}}',
    "cut off": '{"a": [1',
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "a text": '"x"',
    "deep": "[" * 100_000,
    "deep objects": '{"a":' * 50_000,
    "huge integer": '{"format": ' + "9" * 5000 + "}",
    "latin-1": '{"a": "caf\xe9"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "zero bytes": b"\0" * 64,
    "half a surrogate": '{"a": "\\ud800"}',
    "not a number": '{"a": NaN}',
    "other keys": '{"a": 1}',
}


def change(*path: str | int, to: Any = "(gone)") -> Content:
    """A JSON file with the value at a path replaced, or deleted."""

    def edit(file: Path) -> None:
        tree = json.loads(file.with_name(file.name + ".was").read_text())
        inner = tree
        for key in path[:-1]:
            inner = inner[key]
        if to == "(gone)":
            del inner[path[-1]]
        else:
            inner[path[-1]] = to
        file.write_text(json.dumps(tree))

    return edit


# ---------------------------------------------------------------- the table


def cases() -> list[Case]:
    """The whole table."""
    return [case for make in TABLE for case in make()]


def yaml_files() -> Iterator[Case]:
    readers = {
        "conf/config.yaml": ("base file", plan()),
        "conf/text_curriculum/one.yaml": ("stage file", plan()),
        "conf/text_curriculum/chain_both.yaml": (
            "chain file",
            ("plan", "--config", "conf/config.yaml", "--chain", "chain_both"),
        ),
        "exp/experiment/e.yaml": ("experiment file", EXPERIMENT),
        "exp/model/m.yaml": ("model file", EXPERIMENT),
        "exp/data/d.yaml": ("data file", EXPERIMENT),
        "exp/train.yaml": ("training file", EXPERIMENT),
        "exp/hpo/h.yaml": ("search file", ("train", "-e", "exp/experiment/search.yaml", "--stage", "hpo")),
        "exp/bench.yaml": ("benchmark file", ("train", "-e", "exp/experiment/e.yaml", "--stage", "benchmark")),
        "recurring/nightly.yaml": (
            "recurring run",
            ("recurring", "apply", "recurring", "--dry-run", "--endpoint", "http://127.0.0.1:9"),
        ),
    }
    few = (
        "unknown tag",
        "tag of Python: call",
        "alias bomb",
        "very deep brackets",
        "huge integer",
        "list as key",
        "latin-1",
        "a list",
    )
    for file, (what, argv) in readers.items():
        for name, text in YAML.items():
            if what in ("base file", "stage file") or name in few:
                if what == "recurring run":
                    continue
                yield Case(
                    "YAML: tags, bombs, depth, numbers, keys", f"{what}, {name}", argv, (Path(file).name,), {file: text}
                )
        for name, content in PLACES.items():
            if what != "recurring run" and (
                what in ("base file", "experiment file") or name in ("a folder", "unreadable", "missing")
            ):
                yield Case(
                    "file missing, unreadable, a folder", f"{what}, {name}", argv, (Path(file).stem,), {file: content}
                )
    for name in ("tag of Python: call", "very deep brackets", "alias bomb"):
        yield Case(
            "YAML: tags, bombs, depth, numbers, keys", f"override, {name}",
            plan("experiment_name=" + str(YAML[name]).removeprefix("a: ")), ("experiment_name",),
        )  # fmt: skip
        yield Case(
            "YAML: tags, bombs, depth, numbers, keys", f"checkpoint block, {name}",
            ("resolve-checkpoint", "--config", "exp/train.yaml"), ("train.yaml",), {"exp/train.yaml": YAML[name]},
        )  # fmt: skip
    for name in (
        "unknown tag",
        "alias bomb",
        "deep brackets",
        "very deep brackets",
        "huge integer",
        "a list",
        "unknown key",
        "zero bytes",
        "list within itself",
    ):
        yield Case(
            "YAML: tags, bombs, depth, numbers, keys", f"compiled pipeline, {name}",
            ("submit", "p.yaml", "--endpoint", "http://127.0.0.1:9"), ("p.yaml",), {"p.yaml": YAML[name]},
        )  # fmt: skip
    for name, content in PLACES.items():
        yield Case(
            "file missing, unreadable, a folder", f"compiled pipeline, {name}",
            ("submit", "p.yaml", "--endpoint", "http://127.0.0.1:9"), ("p.yaml",), {"p.yaml": content},
        )  # fmt: skip


def shapes() -> Iterator[Case]:
    """Values of another kind where a section, a list or a text is wanted."""
    kind = "values of another kind"
    values = {
        "a text": "words",
        "a number": "3",
        "a list": "[1, 2]",
        "null": "null",
        "a mapping": "{a: 1}",
        "true": "true",
    }
    for key in (
        "training",
        "training.trainer",
        "paths",
        "data",
        "model.lora",
        "tracking",
        "family",
        "paths.store_uri",
        "data.labels",
        "data.strategy",
    ):
        for name, value in values.items():
            good = {"data.labels": ("null",), "family": (), "paths.store_uri": ("words",)}.get(key, ())
            if value in good or (key, value) in {("paths.store_uri", "words")}:
                continue
            says = "family" if key == "family" else key
            yield Case(kind, f"{key} is {name}", plan(f"{key}={value}"), (says,))
    for name, value in values.items():
        yield Case(kind, f"chain's stages are {name}", ("plan", "--config", "conf/config.yaml", "--chain", "chain_both"), ("stages",), {
            "conf/text_curriculum/chain_both.yaml": f"chain_name: both\nstages: {value}\n"})  # fmt: skip
        if value != "null":
            yield Case(kind, f"an experiment's stages are {name}", EXPERIMENT, ("stages",), {
                "exp/experiment/e.yaml": lambda path, value=value: path.write_text(
                    "experiment_name: e\ndata_config: data/d.yaml\nmodel_config: model/m.yaml\ntrain_config: train.yaml\n" f"stages: {value}\n")})  # fmt: skip
        for word in ("training", "preprocessing", "paths"):
            file = {"training": "exp/train.yaml", "paths": "exp/train.yaml", "preprocessing": "exp/model/m.yaml"}[word]
            if value != "null":
                yield Case(kind, f"an experiment's {word} is {name}", EXPERIMENT, (word,), {file: f"{word}: {value}\n"})
    yield Case(kind, "no backbones", ("train", "-e", "exp/experiment/e.yaml"), ("backbones",), {"exp/experiment/e.yaml": 
        "experiment_name: e\ndata_config: data/d.yaml\nmodel_config: model/m.yaml\ntrain_config: train.yaml\n"})  # fmt: skip


SETTINGS = {
    "forgetting.distill": ("-1", ".nan", ".inf", "'nan'"),
    "training.trainer.num_nodes": ("0", "-1", "1000000"),
    "training.trainer.devices": ("0", "-2", "1000000"),
    "training.trainer.max_epochs": ("-1", "1e12", "1000000000000"),
    "training.trainer.accumulate_grad_batches": ("0", "1000000000000"),
    "training.trainer.gradient_clip_val": ("-1", ".nan", ".inf"),
    "training.trainer.save_every_n_steps": ("0",),
    "training.early_stopping.patience": ("-1", "1.5"),
    "training.early_stopping.min_delta": ("-1", ".nan", ".inf"),
    "training.learning_rate": ("0", "-1", "2", ".nan", ".inf"),
    "training.weight_decay": ("-1", "1", ".nan"),
    "training.warmup_steps": ("-1",),
    "data_loader.batch_size": ("0", "1000000000000"),
    "data_loader.token_budget": ("0", "1000000000000000"),
    "model.max_tokens": ("0", "-1", "1000000000"),
    "model.dropout": ("2", "-0.1", "1", ".nan"),
    "model.lora.r": ("0", "-1", "1000000000"),
    "model.lora.alpha": ("0", "-1"),
    "model.lora.dropout": ("2", "-1"),
    "model.layer_decay": ("0", "2", ".nan"),
    "model.head_lr_scale": ("0", "-3", ".inf", "1e30"),
    "tracking.log_every_n_steps": ("0", "-1"),
    "seed": ("-1", "99999999999999999999", "1" + "0" * 400),
    "data.random_seed": ("-1", "1" + "0" * 400),
    "data.validation_ratio": ("0", "1", ".nan"),
    "data.replay": ("0", "2", ".nan"),
}
CODED = {
    "curriculum.loss.leaf": ("-1", ".nan", ".inf"),
    "curriculum.loss.level": ("-0.1",),
    "curriculum.loss.stress": ("-1",),
    "curriculum.loss.balance": ("-1", "1e300"),
    "curriculum.loss.smoothing": ("1", "-1"),
    "data.hidden_codes": ("-5", "1000000"),
    "data.split_seed": ("-1", "1" + "0" * 400),
    "model.dim": ("1", "1000000000"),
    "model.scale": ("0", ".nan", "1e300"),
    "model.experts": ("0", "1000000"),
    "model.top_k": ("0", "5"),
    "model.max_tokens": ("0",),
    "curriculum.dropout": ("2",),
    "curriculum.word_dropout": ("1",),
    "curriculum.typos": ("2",),
    "curriculum.anchor_level": ("[-1]",),
    "curriculum.relation_margin": ("[.nan]",),
    "curriculum.n_negatives": ("0", "99999"),
}


def settings() -> Iterator[Case]:
    for table, run in ((SETTINGS, plan), (CODED, codes)):
        for key, values in table.items():
            for value in values:
                yield Case(
                    "a setting out of its range", f"{run.__name__}: {key}={value[:30]}", run(f"{key}={value}"), (key,)
                )
    two = ("training.trainer.num_nodes=2",)
    for verb in (plan(*two, stage="two"), ("train", "--config", "conf/config.yaml", "-c", "two", *two)):
        yield Case(
            "a setting out of its range", f"{verb[0]}: two nodes on one machine", verb, ("num_nodes", "pytorchjob")
        )
    combine = {
        "--replay": ("0", "2", "nan", "-1"),
        "--validation-ratio": ("0", "1", "nan", "inf", "-1"),
        "--seed": ("x", "1.5"),
    }
    for option, values in combine.items():
        for value in values:
            argv = ("combine", "--old", "people", "--new", "places", "-o", "out", option, value)
            yield Case("a setting out of its range", f"combine {option} {value}", argv, (option,))
    for value in ("nan", "inf", "-inf", "-1", "x", "1e999"):
        argv = ("submit", "x.yaml", "--timeout", value)
        yield Case("a setting out of its range", f"submit --timeout {value}", argv, ("--timeout",))
        argv = ("ner", "predict", "--model", "tagger", "--threshold", value)
        yield Case("a setting out of its range", f"ner predict --threshold {value}", argv, ("--threshold",))


def twice() -> Iterator[Case]:
    """One setting twice in one command, in one or two spellings, whole or in part."""
    for pair in (
        ("training.learning_rate=1e-3", "training.learning_rate=1e-4"), ("seed=1", "seed=1"), ("data.labels=[NAME]", "data.labels=[CITY]"),
        ("training={learning_rate: 1e-3}", "training.learning_rate=1e-4"), ("model.lora=null", "model.lora.r=4"), ("model.lora.r=4", "model.lora={r: 8}"),
    ):  # fmt: skip
        for verb in (plan(*pair), ("prepare", *plan(*pair)[1:]), (*EXPERIMENT, *pair)):
            yield Case("a setting twice", f"{verb[0]}{' -e' if '-e' in verb else ''} {' '.join(pair)}", verb, pair)
    for pair in (
        ("training.epochs=1", "training.epochs=2"), ("training.epochs=1", "training.trainer.max_epochs=2"), ("training.batch_size=2", "data_loader.batch_size=4"),
        ("seed=1", "training.random_seed=2"), ("training.dropout=0.1", "model={dropout: 0.2}"), ("continued_training.base_experiment=a", "continued_training.base_experiment=b"),
    ):  # fmt: skip
        for verb in (EXPERIMENT, ("train", *EXPERIMENT[1:])):
            yield Case("a setting twice", f"{verb[0]} -e {' '.join(pair)}", (*verb, *pair), pair)
    for pair in (("run_id=a", "run_id=b"), ("store_uri=s3://a/b", "store_uri=s3://a/c")):
        argv = ("submit", PIPELINE, *pair, "--endpoint", "http://127.0.0.1:9")
        yield Case("a setting twice", f"submit {' '.join(pair)}", argv, pair)
    argv = ("submit", PIPELINE, "overrides=seed=1 seed=2", "--endpoint", "http://127.0.0.1:9")
    yield Case("a setting twice", "submit overrides", argv, ("seed=1", "seed=2"))


def names() -> Iterator[Case]:
    bad = {
        "up": "../x", "absolute": "/abs", "a path": "a/b", "data": "data", "imported": "imported", "published": "published",
        "promoted": "promoted", "a dot": ".", "two dots": "..", "hidden": ".x", "an option": "-x", "a tab": "a\tb", "a newline": "a\nb",
        "escape": "a\x1b[31mb", "a backslash": "a\\b", "blank": " ", "a blank inside": "a b", "very long": "x" * 300, "a colon": "a:b",
        "a star": "a*", "markup": "[/red]", "a quote": "a'b", "a checkpoint": "x.ckpt", "a surrogate": "a\udcff", "bidi": "a\u202eb",
        "a percent": "a%2fb", "a question": "a?b", "delete": "a\x7fb", "many bytes": "\u4e00" * 100,
    }  # fmt: skip
    for name, value in bad.items():
        if name not in ("very long", "many bytes"):  # a run id may be: its folder's name is cut
            yield Case(
                "run ids and names",
                f"run id: {name}",
                plan(f"--run-id={value}"),
                ("run-id" if not value.strip() else "run id",),
            )
        if value not in ("data", "imported", "published", "promoted", "."):
            yield Case("run ids and names", f"experiment name: {name}", EXPERIMENT, ("experiment_name",), {
                "exp/experiment/e.yaml": lambda path, value=value: path.write_text(
                    f"experiment_name: {json.dumps(value)}\ndata_config: data/d.yaml\nmodel_config: model/m.yaml\ntrain_config: train.yaml\n"
                    "stages: {training: {backbones: [m]}}\n", encoding="utf-8")})  # fmt: skip
    for name in ("up", "absolute", "a path", "markup", "very long", "a tab"):
        yield Case("run ids and names", f"stage: {name}", plan(stage=bad[name]), ("stage",))
        yield Case("run ids and names", f"show {name}", ("show", bad[name], "--store", "store"), ("store",))
        yield Case(
            "run ids and names",
            f"model: {name}",
            (*EVALUATE, "--model", bad[name]),
            ("xxx" if name == "very long" else "model",),
        )
        yield Case("run ids and names", f"backbone: {name}", EXPERIMENT, ("backbone",), {"exp/experiment/e.yaml": 
            "experiment_name: e\ndata_config: data/d.yaml\nmodel_config: model/m.yaml\ntrain_config: train.yaml\n"
            f"stages: {{training: {{backbones: [{json.dumps(bad[name])}]}}}}\n"})  # fmt: skip
    for key in (
        "experiment_name",
        "paths.cache_dir",
        "paths.outputs_dir",
        "paths.store_uri",
        "model.encoder",
        "data.new_dataset_path",
        "tracking.mlflow_uri",
    ):
        yield Case("empty texts", f"{key} is empty", plan(f"{key}="), (key,))
        yield Case("control characters", f"{key} with a zero byte", plan(f'{key}="a\\0b"'), (key,))
        yield Case("control characters", f"{key} with a newline", plan(f'{key}="a\\nb"'), (key,))
        yield Case("very long texts", f"{key} of 100,000 characters", plan(f"{key}={'x' * 100_000}"), (key,))
    for option in ("--store",):
        yield Case("empty texts", f"show {option} is empty", ("show", option, ""), ("empty",))
    yield Case("empty texts", "no family", plan("family="), ("family",))
    yield Case("empty texts", "no label", plan("data.labels=['']"), ("labels",))
    yield Case(
        "very long texts",
        "a folder of 5000 characters",
        plan("data.new_dataset_path=" + "x" * 5000),
        ("data.new_dataset_path",),
    )
    yield Case("very long texts", "a store of 5000 characters", ("show", "--store", "x" * 5000), ("xxx",))
    yield Case("very long texts", "a model of 5000 characters", (*EVALUATE, "--model", "x" * 5000), ("xxx",))


RECORD = '[{{"text": {text}, "annotations": {spans}}}]'
RECORDS: dict[str, str | bytes] = {
    "empty": "",
    "blanks": "  \n ",
    "an empty list": "[]",
    "only a blank record": RECORD.format(text='"  "', spans="[]"),
    "cut off": '[{"text": "anna", "annotations": [',
    "no comma": '[{"text": "a", "annotations": []} {"text": "b", "annotations": []}]',
    "something behind": '[{"text": "a", "annotations": []}] x',
    "deep": "[" * 100_000,
    "a deep record": '[{"text": "a", "annotations": ' + "[" * 100_000 + "]" * 100_000 + "}]",
    "a huge integer": RECORD.format(text='"a"', spans="[[0, " + "9" * 5000 + ', "X"]]'),
    "a number": "7",
    "a text": '"anna"',
    "an object": '{"data": []}',
    "a list of texts": '["anna"]',
    "a list of lists": "[[1]]",
    "null": "null",
    "text missing": '[{"annotations": []}]',
    "text a number": RECORD.format(text="7", spans="[]"),
    "text null": RECORD.format(text="null", spans="[]"),
    "half a surrogate in a text": RECORD.format(text='"a\\ud800"', spans="[]"),
    "half a surrogate in a label": RECORD.format(text='"anna"', spans='[[0, 4, "A\\ud800"]]'),
    "half a surrogate in a key": '[{"text": "anna", "annotations": [], "\\ud800": 1}]',
    "half a surrogate in an id": '[{"text": "anna", "annotations": [], "id": "\\udfff"}]',
    "half a surrogate deep inside": '[{"text": "anna", "annotations": [], "more": [{"a": "\\udfff"}]}]',
    "annotations missing": '[{"text": "anna"}]',
    "annotations an object": RECORD.format(text='"anna"', spans="{}"),
    "a span too short": RECORD.format(text='"anna"', spans="[[0, 1]]"),
    "a span reversed": RECORD.format(text='"anna"', spans='[[3, 1, "X"]]'),
    "a span empty": RECORD.format(text='"anna"', spans='[[1, 1, "X"]]'),
    "a span negative": RECORD.format(text='"anna"', spans='[[-1, 2, "X"]]'),
    "a span behind the text": RECORD.format(text='"anna"', spans='[[0, 99, "X"]]'),
    "a span of fractions": RECORD.format(text='"anna"', spans='[[0.0, 2.5, "X"]]'),
    "a span of truth values": RECORD.format(text='"anna"', spans='[[false, true, "X"]]'),
    "a label empty": RECORD.format(text='"anna"', spans='[[0, 4, ""]]'),
    "a label null": RECORD.format(text='"anna"', spans="[[0, 4, null]]"),
    "a label with a control character": RECORD.format(text='"anna"', spans='[[0, 4, "A\\u0000"]]'),
    "a text twice": '[{"text": "anna", "annotations": [], "text": "berlin"}]',
    "latin-1": '[{"text": "caf\xe9", "annotations": []}]'.encode("latin-1"),
    "utf-16": '[{"text": "anna", "annotations": []}]'.encode("utf-16"),
    "zero bytes": b"\0" * 100,
    "binary": bytes(range(256)) * 4,
    "lines, one not JSON": '{"text": "a", "annotations": []}\nwords\n',
    "lines, one cut off": '{"text": "a", "annotations": []}\n{"text": "b", "annot',
}
SENTENCES: dict[str, str | bytes] = {
    "empty": "",
    "a tag missing": "anna\n",
    "an unknown tag": "anna X-NAME\n",
    "a tag without a label": "anna B-\n",
    "latin-1": b"caf\xe9 O\n",
    "zero bytes": b"\0\0\n",
    "carriage returns alone": b"anna O\rberlin O\r",
    "only comments": "# a comment\n",
    "only document marks": "-DOCSTART- O\n\n",
}


def records() -> Iterator[Case]:
    for name, text in RECORDS.items():
        yield Case("records of a dataset", name, COMBINE, ("train.json",), {"people/train.json": text})
    for name, text in SENTENCES.items():
        yield Case(
            "records of a dataset",
            f"CoNLL: {name}",
            COMBINE,
            ("train",),
            {"people/train.json": None, "people/train.conll": text},
        )
    for name in (
        "only a blank record",
        "half a surrogate in a label",
        "an empty list",
        "a span behind the text",
        "binary",
    ):
        yield Case("records of a dataset", f"prepare: {name}", ("prepare", "--config", "conf/config.yaml", "-c", "one"), ("train",), {"people/train.json": RECORDS[name]})  # fmt: skip
        yield Case("records of a dataset", f"train: {name}", ("train", "--config", "conf/config.yaml", "-c", "one"), ("train",), {"people/train.json": RECORDS[name]})  # fmt: skip
        yield Case("records of a dataset", f"evaluate: {name}", ("ner", "evaluate", "--model", "tagger", "--data", "people"), ("test",), {"people/test.json": RECORDS[name]})  # fmt: skip
    for name, content in PLACES.items():
        if name != "a pipe":
            yield Case(
                "file missing, unreadable, a folder",
                f"dataset file {name}",
                COMBINE,
                ("people",),
                {"people/train.json": content},
            )
        yield Case("file missing, unreadable, a folder", f"dataset {name}", COMBINE, ("people",), {"people": content})
    yield Case("records of a dataset", "two training files", COMBINE, ("train.jsonl",), {"people/train.jsonl": "{}"})
    lines = {
        "not JSON": b"{words\n", "no text": b'{"a": 1}\n', "text a number": b'{"text": 1}\n', "a surrogate": b'{"text": "\\ud800"}\n',
        "latin-1": b"caf\xe9\n", "deep": b'{"text": ' + b"[" * 100_000 + b"\n", "a huge integer": b'{"text": "a", "n": ' + b"9" * 5000 + b"}\n",
        "a list": b'{"text": ["a"]}\n', "utf-16": "anna\n".encode("utf-16"),
    }  # fmt: skip
    for name, text in lines.items():
        yield Case(
            "records on standard input", name, ("ner", "predict", "--model", "tagger"), ("input line 1",), stdin=text
        )


LAYOUTS: dict[str, tuple[str, str | bytes]] = {
    "Label Studio, annotations a number": ("in.json", '[{"data": {"text": "a"}, "annotations": 7}]'),
    "Label Studio, a span behind the text": (
        "in.json",
        '[{"data": {"text": "a"}, "annotations": [{"result": [{"value": {"start": 0, "end": 9, "labels": ["X"]}}]}]}]',
    ),
    "Label Studio, no text": ("in.json", '[{"data": 7, "annotations": []}]'),
    "Prodigy, a span without an end": ("in.jsonl", '{"text": "a", "spans": [{"start": 0}]}'),
    "Prodigy, spans a text": ("in.jsonl", '{"text": "a", "spans": "x"}'),
    "doccano, a label of one part": ("in.jsonl", '{"text": "a", "label": [[0]]}'),
    "doccano, entities of numbers": ("in.jsonl", '{"text": "a", "entities": [1], "relations": []}'),
    "spaCy, entities a number": ("in.json", '[["a", {"entities": 7}]]'),
    "spaCy, three parts": ("in.json", '[["a", {"entities": []}, 1]]'),
    "Hugging Face, tags without names": ("in.jsonl", '{"tokens": ["a"], "ner_tags": [1]}'),
    "Hugging Face, a tag too many": ("in.jsonl", '{"tokens": ["a"], "ner_tags": ["O", "O"]}'),
    "Hugging Face, tokens of numbers": ("in.jsonl", '{"tokens": [1], "ner_tags": ["O"]}'),
    "two kinds in one file": ("in.jsonl", '{"text": "a", "spans": []}\n{"tokens": ["a"], "ner_tags": ["O"]}'),
    "BRAT, huge places": ("in/a.ann", "T1\tX 0 " + "9" * 5000 + "\ta\n"),
    "BRAT, a place behind the text": ("in/a.ann", "T1\tX 0 99\ta\n"),
    "BRAT, no text beside it": ("in/b.ann", "T1\tX 0 1\ta\n"),
    "BRAT, latin-1": ("in/a.ann", b"T1\tX 0 1\t\xe9\n"),
    "no Parquet": ("in.parquet", b"PAR1" + b"\0" * 50),
    "no Arrow": ("in.arrow", b"ARROW1\0\0" + b"\xff" * 50),
}
"""What other tools' files may be, each in the file that is named."""


def layouts() -> Iterator[Case]:
    def convert(source: str) -> tuple[str, ...]:
        return "convert", source, "--to", "conll", "-o", "new/out.conll"

    for name, (file, content) in LAYOUTS.items():
        source, text = file.partition("/")[0], {"in/a.txt": "a"} if "/" in file else {}
        yield Case("layouts of annotation tools", name, convert(source), (source,), text | {file: content})
    for name, content in RECORDS.items():
        if name != "only a blank record":
            yield Case("layouts of annotation tools", f"records: {name}", convert("in.json"), ("in.json",), {"in.json": content})  # fmt: skip
    for name, place in PLACES.items():
        yield Case("pipes, devices, places of an input", f"convert, a link: {name}", convert("in.json"), ("in.json",), {"in.json": place})  # fmt: skip
    for name, place in {"a pipe": "fifo", "a device": "/dev/zero"}.items():
        pipe = {"fifo": PLACES["a pipe"]} if name == "a pipe" else {}
        readers = {
            "convert": convert(place), "assign": ("assign", place, *ASSIGN[2:]), "base file": plan(config=place),
            "experiment": ("plan", "-e", place), "pipeline": ("submit", place, "--endpoint", "http://127.0.0.1:9"),
            "recurring": ("recurring", "apply", place, "--dry-run", "--endpoint", "http://127.0.0.1:9"), "cache": ("resolve-checkpoint", "--config", "exp/train.yaml", "--cache", place),
            "combine": (*COMBINE[:2], place, *COMBINE[3:]), "compare --data": ("compare", "good/one", "--store", "store", "--data", place),
            "ner evaluate": ("ner", "evaluate", "--model", "tagger", "--data", place), "a model": ("ner", "select", "--uncertain", "1", "--model", place),
            "a store": ("show", "--store", place), "evaluate --data": (*EVALUATE, "--data", place), "prepare": ("prepare", *plan()[1:], f"data.new_dataset_path={place}"),
        }  # fmt: skip
        for what, argv in readers.items():
            yield Case("pipes, devices, places of an input", f"{what}: {name}", argv, (place,), pipe)
    for uncertain in ("0", "-1", "x", "1.5", ""):
        yield Case("layouts of annotation tools", f"select {uncertain!r}", ("ner", "select", "--model", "tagger", "--uncertain", uncertain), ("--uncertain",))  # fmt: skip
    for name, text in {
        "a text twice": b'{"text": "a", "text": "b"}\n',
        "latin-1": b"caf\xe9\n",
        "no text": b"{}\n",
    }.items():
        for verb in (("predict",), ("select", "--uncertain", "2")):
            yield Case("records on standard input", f"{verb[0]}, {name}", ("ner", *verb, "--model", "tagger"), ("input line 1",), stdin=text)  # fmt: skip
    for name, data in {"nowhere": "nowhere", "a file": "thesis.txt", "no dataset": "conf"}.items():
        yield Case("layouts of annotation tools", f"compare --data {name}", ("compare", "good/one", "--store", "store", "--data", data), (data,))  # fmt: skip
    for what, argv in {
        "experiment_name": plan("experiment_name=of hunter2hunter2"), "run id": plan("--run-id", "hunter2hunter2"), "label": plan("data.labels=[hunter2hunter2]"),
        "a folder": plan("paths.cache_dir=/tmp/hunter2hunter2"), "stage": plan(stage="hunter2hunter2"),
        "parameter": ("submit", "kfp_pipelines/compiled/chain_smoke.yaml", "run_id=hunter2hunter2", "--endpoint", "http://127.0.0.1:9"),
    }.items():  # fmt: skip
        says = ("***",) if what == "stage" else ("MY_API_TOKEN",) if what != "parameter" else ("password or token",)
        yield Case("secrets of the environment", what, argv, says, env={"MY_API_TOKEN": "hunter2hunter2"})


def tables() -> Iterator[Case]:
    refused = {
        "empty": "", "no such column": "a,b\n1,2\n", "a cell too few": "id,text\n1\n", "a cell too many": "id,text\n1,a,b\n", "zero bytes": b"id,text\n1,\0\n",
        "an open quote": 'id,text\n1,"anna\n', "the text twice": "text,text\na,b\n", "the added names": "text,code,assigned_code\na,1,1\n",
    }  # fmt: skip
    for name, text in refused.items():
        yield Case("CSV of assign", name, ASSIGN, ("in.csv",), {"in.csv": text})
    done = {
        "latin-1": b"id,text\n1,caf\xe9\n", "utf-16": "id,text\n1,a\n".encode("utf-16"), "a huge cell": "id,text\n1," + "x" * 200_000 + "\n",
        "a column of ours": "text,code\na,1\n", "a column twice": "id,text,id\n1,a,2\n", "no rows": "id,text\n",
    }  # fmt: skip
    for name, text in done.items():
        rows = "0 rows" if name == "no rows" else "1 rows"
        yield Case("CSV of assign", name, ASSIGN, (rows,), {"in.csv": text}, code=0, writes=True)
    for name, text in {"a carriage return": b"id,text\n1,a\rb\n2,c\n", "a bad row": "id,text\n1,a\n1,a,b\n"}.items():
        yield Case("CSV of assign", name, ASSIGN, ("in.csv, line 3 has",), {"in.csv": text}, code=3, writes=True)
    for name, argv in {"two rules": ("--max-error", "0.1", "--review-below", "0.5"), "no encoding": ("--encoding", "nope"), "no kind": ("-o", "out.xls"), "a report in place of the output": ("--report", "out.csv"), "a report in place of the rejects": ("--report", "out.rejects.csv"), "an encoding of no texts": ("--output-encoding", "base64")}.items():  # fmt: skip
        yield Case("CSV of assign", name, (*ASSIGN, *argv), ("",), {"in.csv": "id,text\n1,a\n"})
    for name, content in PLACES.items():
        if name != "a pipe":
            yield Case("file missing, unreadable, a folder", f"CSV {name}", ASSIGN, ("in.csv",), {"in.csv": content})


def inputs() -> Iterator[Case]:
    """What stands where a folder or a file is read; what cannot be read is blamed, not the output."""
    kind = "pipes, devices, places of an input"
    plain: dict[str, tuple[str, dict[str, Content]]] = {
        "a device": ("/dev/null", {}), "a pipe": ("fifo", {"fifo": PLACES["a pipe"]}), "a file": ("thesis.txt", {}),
    }  # fmt: skip
    for name, (place, files) in plain.items():
        for key in (
            "model.encoder",
            "checkpoint.source_path",
            "data.new_dataset_path",
            "data.old_dataset_path",
            "forgetting.teacher",
        ):
            given = (f"{key}={place}", *(["forgetting.distill=0.5"] if key == "forgetting.teacher" else []))
            for argv in (plan(*given), (*EXPERIMENT, *given)):
                yield Case(kind, f"{key}, {argv[1]}: {name}", argv, (key, place), files)
        for key in ("model.encoder", "data.source"):
            yield Case(kind, f"codes {key}: {name}", codes(f"{key}={place}"), (place,), files)
        yield Case(kind, f"--from-checkpoint: {name}", plan("--from-checkpoint", place), (place, name), files)
        if name != "a file":
            yield Case(
                kind,
                f"classification: {name}",
                codes(f"data.classification={place}", "data.labelled=[in.csv]"),
                (place, name),
                files,
            )
            yield Case(
                kind,
                f"labelled: {name}",
                codes("data.classification=in.csv", f"data.labelled=[{place}]"),
                (place, name),
                files,
            )
    mem: Content = lambda path: path.symlink_to("/proc/self/mem")  # noqa: E731  # opens, and cannot be read
    unread: dict[str, dict[str, Content]] = {
        "brat/a.txt": {"brat/a.ann": "", "brat/a.txt": mem}, "brat/a.ann": {"brat/a.txt": "a", "brat/a.ann": mem},
        "u.parquet": {"u.parquet": mem}, "u.arrow": {"u.arrow": mem}, "hf/dataset_info.json": {"hf/x.arrow": mem, "hf/dataset_info.json": "{}"},
    }  # fmt: skip
    for name, files in unread.items():
        for target in ("jsonl", "conll", "brat"):
            source = name.partition("/")[0]
            yield Case(
                kind,
                f"{name} cannot be read, to {target}",
                ("convert", source, "--to", target, "-o", "new/out"),
                (source,),
                files,
            )
    for verb in (("combine", "--new", "people"), ("combine", "--new", "people", "--strategy", "append")):
        yield Case(
            "file missing, unreadable, a folder",
            f"combine without --old{' append' if verb[3:] else ''}",
            (*verb, "-o", "out"),
            ("--old",),
        )


def outputs() -> Iterator[Case]:
    owned: dict[str, bytes] = {
        "mlflow.db": b"SQLite format 3\0" + bytes(84), ".other.db": b"SQLite format 3\0" + bytes(84), "events.out.tfevents.1.a.1.0": b"\x18" + bytes(30),
        "table.csv": b"id,text\n1,mine\n", "thesis.txt": b"mine\n", "other.csv": b"naics_code,naics_title,naics_confidence,mine\n",
    }  # fmt: skip
    for name, content in owned.items():
        argv = (*ASSIGN[: ASSIGN.index("-o")], "-o", name, *ASSIGN[ASSIGN.index("-o") + 2 :])
        yield Case(
            "places that cannot be written", f"assign over {name}", argv, (name, "did not write"), {name: content}
        )
    empty: dict[str, Content] = {"empty": lambda path: path.mkdir()}
    for target in ("seed", "jsonl", "conll", "label-studio", "doccano", "prodigy", "hf", "spacy"):
        argv = ("convert", "people/train.json", "--to", target, "-o", "empty")
        yield Case(
            "places that cannot be written", f"convert {target} to a folder", argv, ("empty is a folder",), empty
        )
        argv = (*argv[:-1], "thesis.txt/out")
        yield Case(
            "places that cannot be written", f"convert {target} below a file", argv, ("thesis.txt is no folder",)
        )
    for form in ("npz", "parquet"):
        argv = ("export", "--format", form, "--store", "naics", "-o", "empty")
        yield Case("places that cannot be written", f"export {form} to a folder", argv, ("empty is a folder",), empty)
    places = {
        "below a file": "thesis.txt/out",
        "a device": "/dev/full",
        "below a device": "/dev/null/out",
        "in /proc": "/proc/out",
        "below /proc": "/proc/self/out",
        "very long": "x" * 300,
        "the input": None,
    }
    verbs = {
        "combine": (("combine", "--new", "people", "--strategy", "new_only", "-o"), "people"),
        "assign": (("assign", "in.csv", "--column", "text", "--store", "naics", "-o"), "in.csv"),
        "export": (("export", "--store", "naics", "-o"), "thesis.txt"),
        "init": (("init",), "thesis.txt"),
    }
    for verb, (argv, own) in verbs.items():
        for name, place in places.items():
            yield Case("places that cannot be written", f"{verb}: {name}", (*argv, place or own), ((place or own)[:6],))
        yield Case(
            "places that cannot be written",
            f"{verb}: a link",
            (*argv, "link"),
            ("link",),
            {"link": lambda path: path.symlink_to("thesis.txt")},
        )
    for key in ("paths.store_uri", "paths.outputs_dir", "paths.cache_dir"):
        argv = ("train", "--config", "conf/config.yaml", "-c", "two", "tracking.tensorboard=true")
        yield Case(
            "places that cannot be written", f"{key} below a file", (*argv, f"{key}=thesis.txt/x"), ("thesis.txt",)
        )
        yield Case("places that cannot be written", f"{key} is a file", (*argv, f"{key}=thesis.txt"), ("thesis.txt",))
    yield Case("places that cannot be written", "a store in /proc", (*argv, "paths.store_uri=/proc/x"), ("/proc/x",))
    yield Case(
        "places that cannot be written", "a store that is no URI", plan("paths.store_uri=minio://"), ("minio://",)
    )
    yield Case("places that cannot be written", "a store of another scheme", plan("paths.store_uri=ftp://x"), ("ftp",))
    yield Case(
        "places that cannot be written",
        "a store's URI with a host",
        plan("paths.store_uri=file://host/x"),
        ("file://host/x",),
    )


def stores() -> Iterator[Case]:
    promote, compare = ("promote", "good", "--store", "store"), ("compare", "good", "good/one", "--store", "store")
    readers = {
        "store/good/plan.json": (("promote good", promote), ("evaluate --model good", (*EVALUATE, "--model", "good"))),
        "store/good/one/manifest.json": (
            ("promote good/one", ("promote", "good/one", "--store", "store")),
            ("plan", plan()),
            ("show good", ("show", "good", "--store", "store")),
        ),
        f"{BEST}/manifest.json": (
            ("evaluate --model good/one", (*EVALUATE, "--model", "good/one")),
            ("--from-checkpoint", plan("--from-checkpoint", "one")),
        ),
        "store/promoted/ner.json": (("evaluate", EVALUATE),),
        "store/good/one/stage.json": (("the worker", ("worker", "store/good/one")),),
        "store/data/{data}/manifest.json": (("evaluate --model good", (*EVALUATE, "--model", "good")),),
    }
    for file, commands in readers.items():
        for name, text in JSON.items():
            for what, argv in commands:
                says = {"--from-checkpoint": "unreadable", "show good": "damaged"}.get(what, Path(file).name)
                code = 0 if what == "show good" else 2  # a stage that cannot be read costs that stage alone
                yield Case("JSON files of a store", f"{file.rpartition('/')[2]} {name}, {what}", argv, (says,), {file: text}, code=code)  # fmt: skip
    values = {
        "null": None,
        "a number": 7,
        "a list": [],
        "an object": {},
        "empty": "",
        "a control character": "a\nb",
        "true": True,
    }
    for field_ in ("chain_name", "run_id", "stages", "resume", "gate", "format"):
        for name in ("null", "an object", "true") if field_ != "resume" else ("null", "an object"):
            yield Case("JSON files of a store", f"plan.json: {field_} is {name}", promote, ("plan.json",), {"store/good/plan.json": change(field_, to=values[name])})  # fmt: skip
        if field_ != "gate":
            yield Case(
                "JSON files of a store",
                f"plan.json: {field_} is gone",
                promote,
                ("plan.json",),
                {"store/good/plan.json": change(field_)},
            )
    for field_ in ("name", "start", "digest", "uri", "parent_uri", "data_uri", "config", "origins", "job_name"):
        for name in ("null", "a number", "a list"):
            yield Case("JSON files of a store", f"plan.json: a stage's {field_} is {name}", promote, ("plan.json",), {"store/good/plan.json": change("stages", 0, field_, to=values[name])})  # fmt: skip
    yield Case(
        "JSON files of a store",
        "plan.json: a place with a control character",
        promote,
        ("plan.json",),
        {"store/good/plan.json": change("stages", 0, "uri", to="../\n")},
    )
    for field_ in ("digest", "family", "config", "start", "data_uri", "format", "stage"):
        for name in ("null", "a list", "gone"):
            content = (
                change(field_) if name == "gone" and field_ != "format" else change(field_, to=values.get(name, 99))
            )
            yield Case(
                "JSON files of a store",
                f"stage.json: {field_} is {name}",
                ("worker", "store/good/one"),
                ("stage.json",),
                {"store/good/one/stage.json": content},
            )
    for what, edit in {
        "continued from nothing": change("start", to="continued"),
        "an unknown family": change("family", to="x"),
        "data with a control character": change("data_uri", to="../a\nb"),
    }.items():
        yield Case(
            "JSON files of a store",
            f"stage.json: {what}",
            ("worker", "store/good/one"),
            ("stage.json",),
            {"store/good/one/stage.json": edit},
        )
    manifest = "store/good/one/manifest.json"
    for name, content in {
        "a huge metric": change("metrics", "val_loss", to=10**400), "a metric that is a text": change("metrics", "val_loss", to="low"), "a metric that is true": change("metrics", "val_loss", to=True),
        "a metric that is null": change("metrics", "val_loss", to=None), "a file with a path up": change("files", to={"../x": {"size": 1, "sha256": "0" * 64}}),
        "a file with a negative size": change("files", to={"x": {"size": -1, "sha256": "0" * 64}}), "a file without a digest": change("files", to={"x": {"size": 1}}),
        "no kind": change("kind"), "another kind": change("kind", to="thing"), "a newer version": change("version", to=99), "version true": change("version", to=True),
        "a lineage that is a number": change("lineage", to={"data_uri": 7}), "an unknown field": change("more", to=1),
        "no best checkpoint": change("info", "best", to=None), "a best checkpoint elsewhere": change("info", "best", to="../../x"),
    }.items():  # fmt: skip
        yield Case(
            "JSON files of a store",
            f"manifest.json: {name}",
            ("promote", "good/one", "--store", "store"),
            ("manifest.json",),
            {manifest: content},
        )
    yield Case(
        "JSON files of a store",
        "manifest.json: a lineage with a control character",
        (*EVALUATE, "--model", "good/one"),
        ("one-epoch", "control character"),
        {f"{BEST}/manifest.json": change("lineage", "data_uri", to="../\0x")},
    )
    yield Case(
        "JSON files of a store",
        "manifest.json: no family",
        (*EVALUATE, "--model", "good/one"),
        ("family",),
        {f"{BEST}/manifest.json": change("info", to={})},
    )
    yield Case(
        "JSON files of a store",
        "manifest.json: an unknown family",
        (*EVALUATE, "--model", "good/one"),
        ("family",),
        {f"{BEST}/manifest.json": change("info", "family", to="x[/red]")},
    )
    for name in ("empty", "cut off", "a list", "deep", "latin-1"):
        yield Case("JSON files of a store", f"failure.json {name}, show", ("show", "good", "--store", "store"), ("damaged",), {"store/good/one/manifest.json": None, "store/good/one/failure.json": JSON[name]}, code=0)  # fmt: skip
        yield Case("JSON files of a store", f"stage.json {name}, show", ("show", "good", "--store", "store"), ("complete",), {"store/good/one/stage.json": JSON[name]}, code=0)  # fmt: skip
        yield Case("JSON files of a store", f"cache of a final training {name}", ("resolve-checkpoint", "--config", "conf/config.yaml", "--cache", "cache.json"), ("cache.json",), {"cache.json": JSON[name]})  # fmt: skip
    for name, content in PLACES.items():
        yield Case(
            "file missing, unreadable, a folder",
            f"cache of a final training {name}",
            ("resolve-checkpoint", "--config", "conf/config.yaml", "--cache", "cache.json"),
            ("cache.json",),
            {"cache.json": content},
        )
        if name in ("a folder", "a link to itself", "unreadable"):
            yield Case(
                "file missing, unreadable, a folder",
                f"plan.json {name}",
                promote,
                ("plan.json",) if name != "a folder" else ("good",),
                {"store/good/plan.json": content},
            )
            yield Case(
                "file missing, unreadable, a folder",
                f"stage.json {name}",
                ("worker", "store/good/one"),
                ("stage.json",),
                {"store/good/one/stage.json": content},
            )
    yield Case(
        "JSON files of a store",
        "compare: a plan that is damaged",
        compare,
        ("plan.json",),
        {"store/good/plan.json": "{"},
    )


def models() -> Iterator[Case]:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    def spoil(value: float) -> Content:
        def edit(path: Path) -> None:
            weights = load_file(path.with_name(path.name + ".was"))
            name = max(weights, key=lambda n: weights[n].size)
            weights[name] = np.array(weights[name])
            weights[name].flat[3] = value
            save_file(weights, path)
            agree(path)

        return edit

    def cut(size: int) -> Content:
        def edit(path: Path) -> None:
            path.write_bytes(path.with_name(path.name + ".was").read_bytes()[:size])
            agree(path)

        return edit

    def bytes_(data: bytes) -> Content:
        def edit(path: Path) -> None:
            path.write_bytes(data)
            agree(path)

        return edit

    damages: dict[str, Content] = {
        "cut off in its tensors": cut(5000), "cut off in its header": cut(100), "empty": cut(0), "eight bytes": cut(8),
        "a header of 2^63 bytes": bytes_(struct.pack("<Q", 2**63) + b"{}"), "a header that is no JSON": bytes_(struct.pack("<Q", 4) + b"{{{{"),
        "zero bytes": bytes_(b"\0" * 4000), "a deep header": bytes_(struct.pack("<Q", 90_000) + b"[" * 90_000), "a pickle": bytes_(b"\x80\x04cos\nsystem\n(S'touch ran'\ntR."),
        "NaN": spoil(float("nan")), "infinity": spoil(float("inf")),
    }  # fmt: skip
    for name, content in damages.items():
        file = f"{BEST}/model.safetensors"
        yield Case("weights that are damaged, the manifest agrees", f"evaluate, {name}", (*EVALUATE, "--model", "good/one"), ("model.safetensors",) if name not in ("NaN", "infinity") else ("tensor",), {file: content})  # fmt: skip
        yield Case("weights that are damaged, the manifest agrees", f"ner predict, {name}", ("ner", "predict", "--model", "tagger"), ("tagger",), {"tagger/model.safetensors": content}, stdin=b"anna\n")  # fmt: skip
        file = "naics/coded/flat/{best}/model.safetensors"
        yield Case("weights that are damaged, the manifest agrees", f"search, {name}", ("search", "beer", "--store", "naics"), ("model.safetensors",), {file: content})  # fmt: skip
    yield Case(
        "weights that are damaged",
        "cut off, the manifest disagrees",
        (*EVALUATE, "--model", "good/one"),
        ("model.safetensors",),
        {f"{BEST}/model.safetensors": b"x"},
    )
    yield Case(
        "weights that are damaged",
        "gone",
        (*EVALUATE, "--model", "good/one"),
        ("model.safetensors",),
        {f"{BEST}/model.safetensors": None},
    )
    for file in ("config.json", "tokenizer.json", "windows.json", "labels.json", "tokenizer_config.json"):
        for name in ("empty", "cut off", "a list", "deep", "null", "a number", "latin-1", "other keys", "huge integer"):
            if (
                (file, name) == ("tokenizer_config.json", "other keys")
                or file == "labels.json"
                or (file == "windows.json" and name == "")
            ):
                continue
            yield Case("files of a model", f"{file} {name}", ("ner", "predict", "--model", "tagger"), ("tagger",), {f"tagger/{file}": JSON[name]}, stdin=b"anna\n")  # fmt: skip
    for key, value in {
        "hidden_size": -1,
        "num_hidden_layers": 10**9,
        "vocab_size": 3,
        "num_attention_heads": 3,
        "id2label": {"0": "O"},
        "architectures": None,
    }.items():
        yield Case(
            "files of a model",
            f"config.json: {key} {value}",
            ("ner", "predict", "--model", "tagger"),
            ("tagger",),
            {"tagger/config.json": change(key, to=value)},
            stdin=b"anna\n",
        )
    for key, value in {"max_tokens": 0, "stride": 99}.items():
        yield Case("files of a model", f"windows.json: {key} {value}", ("ner", "predict", "--model", "tagger"), ("windows.json",), {"tagger/windows.json": json.dumps({"max_tokens": 16, "stride": 4} | {key: value})}, stdin=b"anna\n")  # fmt: skip
    for name in ("cut off", "a list", "other keys", "huge integer"):
        yield Case("files of a model", f"calibration.json {name}", ("ner", "predict", "--model", "tagger"), ("calibration.json",), {"tagger/calibration.json": JSON[name]}, stdin=b"anna\n")  # fmt: skip
    for name, content in PLACES.items():
        yield Case(
            "file missing, unreadable, a folder",
            f"model {name}",
            ("ner", "predict", "--model", "tagger"),
            ("tagger",),
            {"tagger": content},
            stdin=b"anna\n",
        )
        if name in ("a folder", "unreadable", "missing"):
            yield Case(
                "file missing, unreadable, a folder",
                f"a model's config.json {name}",
                ("ner", "predict", "--model", "tagger"),
                ("tagger",),
                {"tagger/config.json": content},
                stdin=b"anna\n",
            )
    data = "naics/data/{data}"
    for file in ("codes.jsonl", "texts.jsonl"):
        for name, damage in {
            "empty": b"",
            "cut off": b'{"code": "1',
            "a list": b"[]\n",
            "deep": b"[" * 100_000,
            "latin-1": b'{"a": "\xe9"}',
            "a huge integer": b'{"code": ' + b"9" * 5000 + b"}",
            "other keys": b'{"a": 1}\n',
        }.items():
            if (file, name) == ("texts.jsonl", "empty"):
                continue
            yield Case("prepared data", f"{file} {name}, the manifest agrees", ("evaluate", "--store", "naics"), (file,) if name not in ("empty", "other keys", "a list") else ("codes-",), {f"{data}/{file}": bytes_(damage)})  # fmt: skip
    for encoder in ("nowhere/x", "../x", "thesis.txt", "people", "a b", "[/red]", "https://example.invalid/x"):
        argv = ("train", "--config", "conf/config.yaml", "-c", "two", f"model.encoder={encoder}")
        if encoder in ("people", "thesis.txt"):
            yield Case("files of a model", f"encoder {encoder}", argv, (encoder,), writes=True)


def workbooks() -> Iterator[Case]:
    kind = "workbooks"
    name = "2-6 digit_2022_Codes.xlsx"
    argv = ("prepare", "--config", "codes/config.yaml", "-c", "flat", "paths.store_uri=new", "data.source=books")

    def books(damage: Content) -> dict[str, Content]:
        def make(path: Path) -> None:
            path.mkdir()
            for file in (
                name,
                "2022_NAICS_Descriptions.xlsx",
                "2022_NAICS_Index_File.xlsx",
                "2022_NAICS_Cross_References.xlsx",
            ):
                write_book(path / file)
            path = path / name
            if damage is None:
                path.unlink()
            elif callable(damage):
                path.rename(path.with_name(path.name + ".was"))
                damage(path)
                path.with_name(path.name + ".was").unlink()
            else:
                path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())

        return {"books": make}

    def cut(share: float) -> Content:
        def edit(path: Path) -> None:
            data = path.with_name(path.name + ".was").read_bytes()
            path.write_bytes(data[: int(len(data) * share)])

        return edit

    def part(inner: str, text: bytes | Callable[[], bytes] | None) -> Content:
        """One file of the archive replaced or left out; what is large is made when it is written."""

        def edit(path: Path) -> None:
            with (
                zipfile.ZipFile(path.with_name(path.name + ".was")) as old,
                zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
            ):
                for item in old.namelist():
                    if item != inner:
                        new.writestr(item, old.read(item))
                    elif text is not None:
                        new.writestr(item, text() if callable(text) else text)

        return edit

    def flip(path: Path) -> None:
        data = bytearray(path.with_name(path.name + ".was").read_bytes())
        for place in range(200, len(data) - 400, 97):
            data[place] ^= 255
        path.write_bytes(bytes(data))

    sheet = "xl/worksheets/sheet1.xml"
    head = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    lol = (
        b'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "x">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
        + b"]><worksheet>&j;</worksheet>"
    )
    damages: dict[str, Content] = {
        "missing": None, "empty": b"", "a text": b"code,title\n", "zero bytes": b"\0" * 1000, "an archive of nothing": b"PK\x05\x06" + b"\0" * 18,
        "a tenth of it": cut(0.1), "half of it": cut(0.5), "nine tenths of it": cut(0.9), "bytes flipped": flip,
        "a zip bomb": part(sheet, lambda: head + b" " * 400_000_000), "a bomb of rows": part(sheet, lambda: head + b'<row><c><v>1</v></c></row>' * 3_000_000 + b"</sheetData></worksheet>"),
        "a row far down": part(sheet, head + b'<row r="1"><c r="A1"><v>1</v></c></row><row r="900000000"><c r="A900000000"><v>1</v></c></row></sheetData></worksheet>'),
        "a column far right": part(sheet, head + b'<row r="1"><c r="ZZZ1"><v>1</v></c></row></sheetData></worksheet>'),
        "entities that grow": part(sheet, lol), "a sheet that is no XML": part(sheet, b"words"), "a sheet cut off": part(sheet, head + b"<row>"), "no sheet": part(sheet, None),
        "no workbook": part("xl/workbook.xml", None), "no types": part("[Content_Types].xml", None), "types that are no XML": part("[Content_Types].xml", b"<"),
        "no relations": part("xl/_rels/workbook.xml.rels", None), "styles that are no XML": part("xl/styles.xml", b"<x>"), "strings that are no XML": part("xl/sharedStrings.xml", b"<x"),
        "a number that is none": part(sheet, head + b'<row r="1"><c r="A1" t="n"><v>abc</v></c></row></sheetData></worksheet>'),
        "a string that is not there": part(sheet, head + b'<row r="1"><c r="A1" t="s"><v>99</v></c></row></sheetData></worksheet>'),
        "a date that is none": part(sheet, head + b'<row r="1"><c r="A1" t="d"><v>soon</v></c></row></sheetData></worksheet>'),
        "a cell of no place": part(sheet, head + b'<row r="x"><c r="11"><v>1</v></c></row></sheetData></worksheet>'),
        "another sheet": lambda path: write_book(path, sheet="other"), "other columns": lambda path: write_book(path, header=("a", "b")), "no rows": lambda path: write_book(path, rows=()),
        "a code that is none": lambda path: write_book(path, rows=((1, "xx", "Farms"),)), "a code without a title": lambda path: write_book(path, rows=((1, "11", None),)),
        "one code only": lambda path: write_book(path, rows=((1, "11", "Farms"),)), "a code twice": lambda path: write_book(path, rows=((1, "11", "A"), (2, "11", "B"))),
    }  # fmt: skip
    for what, damage in damages.items():
        yield Case(kind, what, argv, (name,) if what != "missing" else ("lacks",), books(damage))
    for what, content in PLACES.items():
        if what != "missing":
            yield Case("file missing, unreadable, a folder", f"workbook {what}", argv, ("2-6 digit",), books(content))
        yield Case(
            "file missing, unreadable, a folder", f"folder of workbooks {what}", argv, ("books",), {"books": content}
        )


def write_book(path: Path | io.BytesIO, sheet: str = "tbl_2022_title_description_coun", header: tuple[str, ...] = ("2022 NAICS US Code", "2022 NAICS US Title"), rows: Any = ((1, "11", "Farms"),)) -> None:  # fmt: skip
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    page = book.create_sheet(sheet)
    page.append(["Seq. No.", *header])
    for row in rows:
        page.append(list(row))
    book.save(path)


def addresses() -> Iterator[Case]:
    run = "0123456789abcdef0123456789abcdef"
    for uri in (
        "nonsense", "ftp://x", "http://127.0.0.1:9", "http://", "http://[", "http://127.0.0.1:99999", "sqlite:///nowhere/x.db", "sqlite:///thesis.txt", "sqlite://",
        "postgresql://x", "databricks", "file:///proc/x", "mysql://u:secret@127.0.0.1:9/x", "sqlite:///people", "http://exa mple/",
    ):  # fmt: skip
        yield Case(
            "addresses of MLflow and stores",
            f"MLflow run at {uri}",
            plan("--from-checkpoint", run),
            (uri[:8],),
            env={"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        )
    for uri in ("s3://", "minio://a b/x", "s3://UPPER/x", "file://", "http://x", "://", "s3:///x"):
        yield Case(
            "addresses of MLflow and stores",
            f"store {uri}",
            plan(f"paths.store_uri={uri}"),
            ("127.0.0.1:9" if "UPPER" in uri else uri,),
            env={
                "S3_ENDPOINT": "http://127.0.0.1:9",
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "y",
                "CURRICLE_STORE_PATIENCE": "0",
            },
            code=75 if "UPPER" in uri else 2,  # a good address, behind which nobody answers
        )
    for end in ("nonsense://x", "http://", "http://127.0.0.1:99999", "http://[", "http://a b", "http://x/y?z"):
        yield Case(
            "addresses of MLflow and stores",
            f"endpoint {end}",
            plan("paths.store_uri=minio://bucket/x"),
            (end.partition("://")[2][:3],),
            env={"S3_ENDPOINT": end, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
        )
    for end in ("nonsense", "ftp://x", "http://", "http://["):
        yield Case("addresses of MLflow and stores", f"Kubeflow at {end}", ("submit", "p.yaml", "--endpoint", end), (end,), {"p.yaml": lambda path: shutil.copy(Path(__file__).parents[2] / "kfp_pipelines/compiled/chain_smoke.yaml", path)})  # fmt: skip


MARKUP = ("[/red]", "[bold]x", "[/]", "[link=x]y[/link]", "[red", "\\[x]", ":smile:")


def markup() -> Iterator[Case]:
    kind = "markup in paths and values"
    for text in MARKUP:
        yield Case(
            kind,
            f"value {text}",
            plan(f"experiment_name={json.dumps(text)}", "--values"),
            (text,) if text != "[red" else (text,),
            code=0,
        )
        yield Case(kind, f"folder {text}", plan(f"data.new_dataset_path={json.dumps(text)}"), (text,))
        yield Case(kind, f"stage {text}", plan(stage=text), (text,))
        yield Case(kind, f"run {text}", ("show", text, "--store", "store"), (text,))
        yield Case(kind, f"store {text}", ("show", "--store", text.replace("/", "")), ("no runs",), code=0)
        yield Case(kind, f"failure {text}", ("show", "good", "--store", "store"), (text,), {"store/good/one/manifest.json": None, "store/good/one/failure.json": json.dumps({"message": text, "time": ""})}, code=0)  # fmt: skip
        yield Case(kind, f"chain {text}", ("plan", "--config", "conf/config.yaml", "--chain", "chain_both"), (text,), {"conf/text_curriculum/chain_both.yaml": f"chain_name: {json.dumps(text)}\nstages: [{{name: one}}]\n"}, code=0)  # fmt: skip
        yield Case(
            kind,
            f"preflight {text}",
            ("preflight", "--store", f"s/{text.replace('/', '')}"),
            (text.replace("/", "").replace("\\", "")[:4],),
            code=0,
            writes=True,
        )
        yield Case(
            kind,
            f"compare {text}",
            ("compare", "good", "other", "--store", "store"),
            (text,),
            {"store/other": lambda path, text=text: other_run(path, text)},
            code=0,
        )


def other_run(path: Path, text: str) -> None:
    """A copy of the good run in which the stage's encoder is called as markup."""
    shutil.copytree(path.parent / "good", path)
    for file in path.rglob("*"):
        if file.name in ("plan.json", "stage.json"):
            file.write_text(
                file.read_text()
                .replace('"encoder": "encoder"', f'"encoder": {json.dumps(text)}')
                .replace('"run_id": "good"', '"run_id": "other"')
            )


def terminals() -> Iterator[Case]:
    kind = "terminals and full outputs"
    french = {
        "people/train.json": '[{"text": "caf\xe9 \u2192", "annotations": [[0, 4, "TH\xc9"]]}, {"text": "anna", "annotations": []}]'
    }
    for encoding in ("ascii", "latin-1", "cp1252"):
        yield Case(kind, f"{encoding}: plan", plan(), ("one",), code=0, encoding=encoding)
        yield Case(
            kind,
            f"{encoding}: plan of a chain",
            ("plan", "--config", "conf/config.yaml", "--chain", "chain_both"),
            ("two",),
            code=0,
            encoding=encoding,
        )
        yield Case(
            kind,
            f"{encoding}: stages",
            ("train", "--config", "conf/config.yaml", "--list-curricula"),
            ("chain_both",),
            code=0,
            encoding=encoding,
        )
        yield Case(kind, f"{encoding}: show", ("show", "--store", "store"), ("good",), code=0, encoding=encoding)
        yield Case(
            kind,
            f"{encoding}: an error",
            plan("experiment_name=[caf\xe9 \u2192]"),
            ("experiment_name",),
            encoding=encoding,
        )
        yield Case(
            kind,
            f"{encoding}: combine",
            COMBINE,
            ('"strategy": "new_only"',),
            french,
            code=0,
            encoding=encoding,
            writes=True,
        )
        yield Case(
            kind,
            f"{encoding}: ner predict",
            ("ner", "predict", "--model", "tagger"),
            ('"annotations"',),
            code=0,
            encoding=encoding,
            stdin="caf\xe9 \u2192\n".encode(),
        )
        yield Case(kind, f"{encoding}: help", ("train", "--help"), ("Train one stage",), code=0, encoding=encoding)
    for name, argv in {
        "plan": plan(), "plan --json": (*plan(), "--json"), "show": ("show", "--store", "store"), "help": ("--help",), "version": ("--version",), "stages": ("train", "--config", "conf/config.yaml", "--list-curricula"),
        "combine": COMBINE, "evaluate": (*EVALUATE, "--model", "good/one"), "predict": ("ner", "predict", "--model", "tagger"),
    }.items():  # fmt: skip
        yield Case(
            kind,
            f"/dev/full: {name}",
            argv,
            ("No space left on device",),
            encoding="/dev/full",
            stdin=b"anna\n",
            writes=name == "combine",
        )
    for name, value in {"a surrogate": "a\udcff", "escape codes": "\x1b[31m"}.items():
        yield Case("control characters", f"{name} as a store", ("show", "--store", value), ("no runs",), code=0)
        yield Case("control characters", f"{name} as a stage", plan(stage=value), ("stage",))
        yield Case("control characters", f"{name} as a value", plan(f"experiment_name={value}"), ("experiment_name",))
        yield Case("control characters", f"{name} as a model", (*EVALUATE, "--model", value), ("--model",))


TABLE = (
    yaml_files,
    shapes,
    settings,
    twice,
    names,
    records,
    layouts,
    tables,
    inputs,
    outputs,
    stores,
    models,
    workbooks,
    addresses,
    markup,
    terminals,
)
