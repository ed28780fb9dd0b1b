"""Whatever stands in a file, a loader gives a value or one of our errors: by hypothesis, over every loader.

Two kinds of input: anything at all, and something good with a few bytes, or one value of its tree, changed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curricle.config.chain import load_chain, load_stage
from curricle.config.experiment import compose_backbone, load_experiment
from curricle.config.load import Layer, build, parse_yaml, read_overrides, read_yaml
from curricle.config.search import Search
from curricle.errors import CurricleError
from curricle.families.codes.carrying import read_carried
from curricle.families.codes.concordance import read_concordance
from curricle.families.codes.prepare import read_facts
from curricle.families.codes.tree import Tree
from curricle.families.codes.workbooks import CODES, _rows
from curricle.families.ner.annotated import read_annotated
from curricle.families.ner.calibration import read_calibration
from curricle.families.ner.combine import combine_datasets
from curricle.families.ner.formats import iter_pieces
from curricle.families.ner.kinds import KINDS
from curricle.families.ner.predict import _windows, decoded, records_of
from curricle.launch.kubernetes.options import ClusterSettings
from curricle.launch.kubernetes.settings import from_task_config
from curricle.planning import ChainPlan
from curricle.registry import FAMILIES, family
from curricle.steps.assign import Opened, assign_table
from curricle.steps.assigned import Order
from curricle.steps.final import read_cache
from curricle.steps.gate import parse_rule
from curricle.steps.promote import default_model
from curricle.steps.show import describe_run
from curricle.steps.start import Asked, locate
from curricle.steps.train import job_of
from curricle.store import layout, open_store
from curricle.store.failure import Failure
from curricle.store.manifest import Manifest, read_manifest
from curricle.training.events import read_line
from curricle.training.spec import StageSpec
from kfp_pipelines.parameters import read_parameters
from kfp_pipelines.recurring import Definition
from tests.faults.bad_cases import write_book
from tests.faults.world import FILES

FEW, MANY = 12, 2000
"""Examples of each loader, in `make test` and in `make test-faults`."""

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), -0.0, "", "\0", "a\nb", "../x", "\ud800", "x" * 5000]
    ),
    st.floats(),
    st.text(max_size=20),
)
trees = st.recursive(
    scalars,
    lambda t: st.one_of(st.lists(t, max_size=4), st.dictionaries(st.text(max_size=8), t, max_size=4)),
    max_leaves=12,
)
MARKS = st.sampled_from([b"[", b"{", b"*a", b"&a ", b"!!int ", b"!!python/name:os.system ", b"? ", b"<<: ", b"\0", b"\xff", b'"', b"\\ud800", b"9" * 5000, b"[" * 3000, b"\n", b": "])  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Good bytes with some of them cut, changed or put in."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["cut", "flip", "insert", "drop"]))
        if how == "cut":
            del data[place:]
        elif how == "flip" and data:
            data[place] ^= draw(st.integers(1, 255))
        elif how == "drop":
            del data[place : place + draw(st.integers(1, 40))]
        else:
            data[place:place] = draw(st.one_of(MARKS, st.binary(max_size=6)))
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn, good: Any) -> Any:
    """A good tree with one value of it replaced, dropped or added."""
    tree = json.loads(json.dumps(good))
    inner = tree
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            return tree
        key = draw(st.sampled_from(keys))
        if isinstance(inner[key], dict | list) and inner[key] and draw(st.booleans()):
            inner = inner[key]
            continue
        how = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
        if how == "drop":
            del inner[key]
        elif how == "add" and isinstance(inner, dict):
            inner[draw(st.text(max_size=5))] = draw(trees)
        else:
            inner[key] = draw(trees)
        return tree


def written(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def bytes_like(good: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(damaged(good), st.binary(max_size=60), trees.map(written))


def json_like(good: Any) -> st.SearchStrategy[bytes]:
    return st.one_of(changed(good).map(written), bytes_like(written(good)))


@dataclass(frozen=True)
class Loader:
    """What is read, and by what; the path is that of a folder of the loader's own."""

    inputs: st.SearchStrategy[Any]
    load: Callable[[Any, Path], object]


def into(name: str, load: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Write the input to a file of that name, and load."""

    def run(data: bytes, folder: Path) -> object:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return load(folder)

    return run


def with_files(name: str, load: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """As `into`, beside the small configurations of the world."""

    def run(data: bytes, folder: Path) -> object:
        for file, text in FILES.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        return into(name, load)(data, folder)

    return run


class Coder:
    def assign(self, texts, top):
        return [[SimpleNamespace(code="11", title="eleven", confidence=0.5)] for _ in texts]


def assign(folder: Path) -> object:
    order = Order(column="text")
    return assign_table(folder / "in.csv", folder / "out.csv", order, lambda: Opened(Coder(), "v", "d"))


MANIFEST = {
    "version": 1, "kind": "stage", "digest": "d" * 64, "files": {"a/b": {"size": 3, "sha256": "0" * 64}}, "metrics": {"val_loss": 0.5},
    "lineage": {"data_uri": "../../data/x", "parent_uri": None}, "info": {"family": "ner", "best": "one-epoch=00-val_loss=0.5000.ckpt"}, "created": "2026-01-01T00:00:00Z",
}  # fmt: skip
STAGE = {
    "run_id": "r", "stage": "one", "digest": "d" * 64, "family": "ner", "config": {"family": "ner", "data": {"new_dataset_path": "x"}}, "start": "continued",
    "data_uri": "../../data/x", "data_digest": "e" * 64, "parent_uri": "../zero", "parent_digest": "f" * 64, "tracking": {"tags": {}}, "format": 1,
}  # fmt: skip
PLAN = {
    "format": 2, "chain_name": "c", "run_id": "r", "resume": True, "gate": "test/f1 >= 0.5",
    "stages": [{
        "name": "one", "start": "scratch", "reason": "first", "digest": "d" * 64, "uri": "./one", "parent_uri": "", "parent_digest": "", "data_uri": "../data/x",
        "data_digest": "e" * 64, "job_name": "j", "origins": {"family": "default"}, "tracking": {},
        "config": {"family": "ner", "paths": {"cache_dir": "c"}, "training": {"trainer": {"devices": 1, "max_epochs": 1, "num_nodes": 1}}},
    }],
}  # fmt: skip
RECORDS = [{"text": "anna knows", "annotations": [[0, 4, "NAME"]], "id": 1}, {"text": "caf\u00e9", "annotations": []}]
FINAL = {"output_dir": "x", "experiment": "e", "metrics": {"val/f1": 0.5}}
POINTER = {"family": "ner", "uri": "../r/one", "digest": "d" * 64, "time": "2026-01-01T00:00:00Z", "reason": "by hand"}


def spec_of(folder: Path) -> object:
    return StageSpec.read(f"{folder}/r/one").configuration(f"{folder}/r/one")


def used(plan: ChainPlan) -> object:
    """What the steps read of a stored plan."""
    return [(job_of(plan, stage), stage.family) for stage in plan.stages]


def everything_of(folder: Path) -> object:
    """What looks at all of a store."""
    store = str(folder)
    for look in (
        lambda: describe_run(store, "r"),
        lambda: default_model(store),
        lambda: Failure.read(open_store(store), "r/one"),
    ):
        with suppress(CurricleError):
            look()
    return layout.read_stage_digest(open_store(store).read("r/one/stage.json"))


def workbook(folder: Path) -> object:
    return list(_rows(folder, CODES))


def good_book() -> bytes:
    book = io.BytesIO()
    write_book(book)
    return book.getvalue()


def stage(folder: Path) -> object:
    return load_stage(folder / "conf/config.yaml", "one", [])


def composed(folder: Path) -> object:
    file = folder / "exp/experiment/e.yaml"
    return compose_backbone(load_experiment(file), file, "m", [])


def pieces(folder: Path) -> object:
    return list(iter_pieces(folder / "in.json"))


def brat(data: bytes, folder: Path) -> object:
    """Standoff annotations of a text."""
    (folder / "a.txt").write_text("anna knows")
    (folder / "a.ann").write_bytes(data)
    return list(iter_pieces(folder))


def combine(folder: Path) -> object:
    return combine_datasets(None, folder, "new_only")


TREE = Tree.of(["1", "11", "12"], [None, "1", "1"])


def loaders() -> dict[str, Loader]:
    """Every loader."""
    yaml_text = FILES["conf/config.yaml"].encode()
    schemas = {name: family(name).load("config") for name in FAMILIES} | {
        s.__name__: s for s in (Search, Definition, ClusterSettings)
    }
    goods = {
        "codes": {
            "family": "codes",
            "curriculum": {"name": "x", "loss": {"leaf": 1}, "anchor_level": [2], "n_negatives": 3},
            "model": {"dim": 3},
        },
        "ner": {
            "family": "ner",
            "data": {"new_dataset_path": "x", "labels": ["A"], "replay": 0.5},
            "forgetting": {"average": [0.5]},
        },
        "Search": {
            "search_space": {"learning_rate": {"type": "uniform", "min": 0.1, "max": 0.2}},
            "sampling": {"max_trials": 3},
        },
        "Definition": {"name": "n", "pipeline": "p", "schedule": {"cron": "* * * * *"}, "parameters": {"a": 1}},
        "ClusterSettings": {
            "image": "i",
            "env_from_secrets": {"A": ["s", "k"]},
            "elastic": {"min_nodes": 1, "max_nodes": 2},
            "gpus": 1,
        },
    }
    pipeline = {
        "root": {"inputDefinitions": {"parameters": {"a": {"parameterType": "STRING", "isOptional": True}}}},
        "pipelineInfo": {"name": "p"},
    }
    task = {
        "env": [{"name": "A", "value": "b"}],
        "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}},
        "tolerations": [{}],
    }
    return {
        "YAML": Loader(bytes_like(yaml_text), lambda data, _: parse_yaml(data.decode("utf-8", "replace"), "here")),
        "YAML file": Loader(bytes_like(yaml_text), into("a.yaml", lambda folder: read_yaml(folder / "a.yaml"))),
        "overrides": Loader(st.text(max_size=40).map(lambda t: "seed=" + t), lambda text, _: read_overrides([text])),
        "base file": Loader(bytes_like(yaml_text), with_files("conf/config.yaml", stage)),
        "stage file": Loader(bytes_like(FILES["conf/text_curriculum/one.yaml"].encode()), with_files("conf/text_curriculum/one.yaml", stage)),
        "chain file": Loader(json_like({"chain_name": "c", "stages": [{"name": "a", "max_epochs": 1}], "gate": ""}), into("text_curriculum/c.yaml", lambda folder: load_chain("c", folder))),
        **{
            f"experiment's {name}": Loader(bytes_like(FILES[name].encode()), with_files(name, composed))
            for name in ("exp/experiment/e.yaml", "exp/train.yaml", "exp/model/m.yaml", "exp/data/d.yaml")
        },
        **{f"configuration {name}": Loader(st.one_of(changed(goods[name]), st.dictionaries(st.text(max_size=8), trees)), lambda tree, _, s=s: build(s, Layer(tree))) for name, s in schemas.items()},
        "plan.json": Loader(json_like(PLAN), lambda data, folder: used(ChainPlan.from_stored(data, f"{folder}/r"))),
        "stage.json": Loader(json_like(STAGE), into("r/one/stage.json", spec_of)),
        "manifest.json": Loader(json_like(MANIFEST), lambda data, _: Manifest.from_json(data)),
        "manifest of a store": Loader(json_like(MANIFEST), into("r/one/manifest.json", lambda folder: read_manifest(open_store(f"{folder}/r/one"), ""))),
        **{
            f"a store's {name}": Loader(json_like(good), into(name, everything_of))
            for name, good in {
                "r/one/stage.json": STAGE, "r/one/manifest.json": MANIFEST, "r/plan.json": PLAN, "r/final.json": {"result": "./one"}, "r/one/failure.json": {"message": "m", "exit_code": 1},
                "promoted/ner.json": POINTER,
            }.items()
        },  # fmt: skip
        "cache of a final training": Loader(json_like(FINAL), into("c.json", lambda folder: locate(Asked(cache=folder / "c.json")))),
        "run.json": Loader(json_like(FINAL), into("run.json", lambda folder: read_cache(folder / "run.json"))),
        "records, JSON": Loader(json_like(RECORDS), into("train.json", combine)),
        "records, lines": Loader(bytes_like(b"\n".join(map(written, RECORDS))), into("train.jsonl", combine)),
        "records, CoNLL": Loader(bytes_like(b"anna B-NAME\nknows O\n\nberlin U-CITY\n"), into("train.conll", combine)),
        "records, BRAT": Loader(bytes_like(b"T1\tNAME 0 4\tanna\nT2\tCITY 5 7;8 10\tkn ws\n"), brat),
        **{f"records, {kind.name}": Loader(json_like([kind.write(record) for record in RECORDS]), into("in.json", pieces)) for kind in KINDS if kind.write},
        "records on standard input": Loader(bytes_like(b"anna\n" + written(RECORDS[0]) + b"\n"), lambda data, _: list(records_of(decoded(data.splitlines(True))))),
        "windows.json": Loader(json_like({"max_tokens": 16, "stride": 4}), into("windows.json", lambda folder: _windows(folder / "windows.json", None))),
        "calibration.json": Loader(json_like({"spans": {"scale": 0.7, "offset": -0.2, "count": 9}, "outside": {"scale": 1.0, "offset": 0.0, "count": 99}}), into("calibration.json", read_calibration)),
        "labels_of_source.json": Loader(json_like({"old": ["A"], "new": ["B"]}), into("labels_of_source.json", read_annotated)),
        "CSV of assign": Loader(bytes_like(b'id,text\n1,"anna, knows"\n2,berlin\n'), into("in.csv", assign)),
        "concordance": Loader(bytes_like(b"old,new,title\n11,11,Bread\n12,13,Beer\n"), into("c.csv", lambda folder: read_concordance(folder / "c.csv", TREE, None))),
        "carried.json": Loader(json_like({"from": "d", "codes": 2, "points": [[0], []], "targets": {"11": ["11"]}}), into("carried.json", read_carried)),
        "data.json": Loader(json_like({"apart_by": "words", "batches": 1}), into("data.json", read_facts)),
        "workbook": Loader(damaged(good_book()), into(CODES.file, workbook)),
        "gate": Loader(st.one_of(st.text(max_size=20), damaged(b"test/f1 >= 0.5 and a < 1").map(lambda d: d.decode("latin-1"))), lambda text, _: parse_rule(text)),
        "run id": Loader(st.text(max_size=130), lambda text, _: layout.check_run_id(text)),
        "checkpoint's name": Loader(damaged(b"one-epoch=01-val_loss=0.5000.ckpt").map(lambda d: d.decode("latin-1")), lambda text, _: layout.parse_checkpoint_name(text)),
        "line of a job's log": Loader(bytes_like(b'{"event": "step", "step": 1}').map(lambda d: d.decode("latin-1")), lambda text, _: read_line(text)),
        "compiled pipeline": Loader(json_like(pipeline), into("p.yaml", lambda folder: read_parameters(folder / "p.yaml"))),
        "settings of a KFP task": Loader(json_like(task).map(lambda d: d.decode("latin-1")), lambda text, _: from_task_config(text)),
    }  # fmt: skip


def hold(loader: Loader, examples: int, folder: Path) -> None:
    """Only our errors come out."""

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(loader.inputs)
    def law(value: Any) -> None:
        with suppress(CurricleError):
            loader.load(value, folder)

    law()


LOADERS = loaders()


@pytest.mark.parametrize("name", LOADERS)
def test_only_our_errors_come_out(name, tmp_path):
    hold(LOADERS[name], FEW, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("name", LOADERS)
def test_only_our_errors_come_out_of_thousands(name, tmp_path):
    hold(LOADERS[name], MANY, tmp_path)


def test_another_error_is_seen(tmp_path):
    with pytest.raises(ZeroDivisionError):
        hold(Loader(st.integers(), lambda number, _: 1 / number), FEW, tmp_path)
