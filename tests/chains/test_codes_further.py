"""A model of codes trained further: batches of corrections one on top of the other, and other codes, judged against the model before, with a tiny encoder."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from curricle import environment
from curricle.cli.chain import train_curriculum
from curricle.cli.crosswalk import crosswalk
from curricle.errors import CheckpointError, ConfigError, DataError, JobError, OutputError
from curricle.families.codes.carrying import read_carried
from curricle.families.codes.crosswalk import crosswalk as make_crosswalk
from curricle.families.codes.prepare import load
from curricle.steps.chain import ChainRequest, judge_chain, make_plan, run_chain
from curricle.steps.crosswalk import carry, plan_further, train_further
from curricle.steps.evaluate import evaluate_model
from curricle.steps.promote import default_model, promote, promoted
from curricle.steps.source import read_plan
from curricle.steps.use import open_model
from curricle.store import open_store
from curricle.store.manifest import read_manifest
from kfp_pipelines import doors
from tests.families.conftest import tiny_encoder  # noqa: F401 (a fixture)
from tests.laws.conftest import HereLauncher

ROOT = Path(__file__).parents[2]
WORDS = ["bread", "beer", "meat", "fish", "milk", "salt", "corn", "rice"]
CODES = "code,title,parent\n1,Food,\n2,Drink,\n11,Bakeries,1\n12,Butchers,1\n21,Breweries,2\n22,Dairies,2\n"
KINDS = {"11": "bread", "12": "meat", "21": "beer", "22": "milk"}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_encoder):  # noqa: F811
    """A working folder with a finished, promoted model of four codes."""
    folder = tmp_path_factory.mktemp("further")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(ROOT / "config", folder / "config")
        (folder / "codes.csv").write_text(CODES)
        write("texts.csv", [(f"{word} {kind} {i}", code) for code, word in KINDS.items() for i in range(12) for kind in ("shop", "works")])  # fmt: skip
        small = f"model.encoder={tiny_encoder} model.dim=4 model.max_tokens=16 training.trainer.max_epochs=2 tracking.mlflow=false training.trainer.accelerator=cpu"
        (folder / "small").write_text(small)
        done = run("data.classification=codes.csv", "data.labelled=texts.csv", chain="chain_smoke")
        promote(done[-1].uri, "checkpoints", "it is the first")
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def write(name, rows):
    Path(name).write_text("text,code\n" + "".join(f"{text},{code}\n" for text, code in rows))


def request(*overrides, chain="chain_continued_codes", start="", **given):
    small = Path("small").read_text().split()
    return ChainRequest(chain=chain, overrides=(*small, *overrides), from_checkpoint=start, **given)


def run(*overrides, **given):
    return run_chain(make_plan(request(*overrides, **given)), HereLauncher(), lambda event: None)


def new(word, count=20):
    return [(f"{word} corner {i} {word}", code) for i, code in enumerate(list(KINDS) * (count // 4))]


def test_two_batches_of_corrections_are_trained_judged_and_promoted_one_on_top_of_the_other(place):
    first = promoted("checkpoints", "codes")
    for number, word in enumerate(("stall", "kiosk"), 1):
        write(f"corrections{number}.csv", new(word))
        asked = request(f"data.labelled=corrections{number}.csv", start="promoted", gate="gain >= -1 and drop <= 1")
        plan = make_plan(asked)
        before = promoted("checkpoints", "codes")
        assert plan.stages[0].start == "continued" and plan.stages[0].parent_uri == before.uri
        outcome = run_chain(plan, HereLauncher(), lambda event: None)[-1]
        judged = judge_chain(plan, outcome.uri)
        assert judged.verdict.promotes and set(judged.scores.before) == set(judged.scores.after) == {"new", "old"}
        assert "new 0." in judged.verdict.reason or "new 1." in judged.verdict.reason
        assert promoted("checkpoints", "codes").digest == outcome.manifest.digest != before.digest
        assert {"val/new/top1", "val/old/top1_before", "val/old/top1_change"} <= outcome.metrics.keys()
        again = HereLauncher()
        run_chain(make_plan(request(f"data.labelled=corrections{number}.csv", start=before.uri)), again, lambda e: None)
        assert not again.jobs, "the same command trains nothing"
    texts = open_model("promoted")._opened._scorer.table.texts
    assert sorted({t.batch for t in texts}) == [0, 1, 2]
    after = evaluate_model(promoted("checkpoints", "codes").uri, "").metrics
    old = evaluate_model(first.uri, outcome.lineage["data_uri"]).metrics
    assert old["test/new/texts"] == after["test/new/texts"] > 0 and "structure/pearson" not in old
    verdict = json.loads(Path("checkpoints/sequential_continued_codes/verdict.json").read_text())
    assert set(verdict["before"]) == {"new", "old"} and verdict["decision"] == "promote"


def test_a_pipeline_prepares_the_data_where_the_model_before_is_known_and_gates_by_the_change(place, monkeypatch):
    monkeypatch.setenv(environment.CONFIG, str(place / "config" / "config.yaml"))
    write("corrections3.csv", new("wagon"))
    overrides = f"data.labelled=corrections3.csv {Path('small').read_text()}"
    which = {"config": "config.yaml", "chain": "chain_continued_codes", "data_key": "data.source", "data_source": "demo", "overrides": overrides, "store_uri": "checkpoints"}  # fmt: skip
    assert doors.prepare_data(**which) == ""
    start = doors.resolve_start("promoted", "checkpoints", "continued_codes")
    rule = "gain >= -1 and drop <= 1"
    doors.plan_run(**which, stages="all", data_uri="", start_uri=start.uri, start_mode="auto", resume=True, run_id="kfp", launcher="pytorchjob", gate_rule=rule)  # fmt: skip
    plan = read_plan("checkpoints", "kfp")
    assert read_manifest(open_store(plan.stages[0].data_uri), "").info["batches"] >= 1
    trained = run_chain(plan, HereLauncher(), lambda event: None)[-1]
    measured = doors.evaluate_model(trained.uri, "checkpoints", "kfp")
    assert {"gain", "drop"} <= measured.metrics.keys()
    assert doors.gate_model(json.dumps(measured.metrics), rule, trained.uri, "elsewhere", "kfp").promotes


def test_a_chain_of_two_batches_is_planned_as_one(place):
    stage = Path("config/text_curriculum/continued_codes.yaml").read_text()
    for number, word in ((1, "booth"), (2, "tent")):
        write(f"batch{number}.csv", new(word))
        text = stage.replace("name: continued_codes", f"name: batch{number}")
        text = text.replace("  old: parent", f"  labelled: ../batch{number}.csv\n  old: parent")
        Path(f"config/text_curriculum/batch{number}.yaml").write_text(text)
    Path("config/text_curriculum/chain_two.yaml").write_text(
        "chain_name: two\nstages: [{name: batch1}, {name: batch2}]\n"
    )
    plan = make_plan(request(chain="chain_two", start="sequential_01-02"))
    assert plan.stages[1].config["data"]["old"] == plan.stages[0].data_uri
    outcomes = run_chain(plan, HereLauncher(), lambda event: None)
    table = open_model(outcomes[-1].uri)._opened._scorer.table
    assert {t.text.split()[0] for t in table.texts if table.domain(t) == "new"} == {"tent"}


def test_without_a_model_before_or_for_other_codes_it_is_refused(place):
    write("some.csv", new("barrow"))
    with pytest.raises(ConfigError, match="there is no model before: name one with --from-checkpoint"):
        make_plan(request("data.labelled=some.csv"))
    with pytest.raises(CheckpointError, match="holds no promoted model of codes"):
        make_plan(request("data.labelled=some.csv", "paths.store_uri=nowhere", start="promoted"))
    Path("others.csv").write_text(CODES + "23,Wineries,2\n")
    with pytest.raises(DataError, match="curricle crosswalk"):
        make_plan(request("data.labelled=some.csv", "data.classification=others.csv", start="promoted"))
    Path("same.csv").write_text(CODES.replace("22,Dairies,2", "13,Dairies,1"))
    write(
        "same_texts.csv", [(f"{w} {i}", c) for c, w in {**KINDS, "13": "milk"}.items() if c != "22" for i in range(12)]
    )
    with pytest.raises(JobError):  # as many codes, but others: the weights would fit
        run(
            "data.classification=same.csv",
            "data.labelled=same_texts.csv",
            chain="chain_smoke",
            start="promoted",
            run_id="others",
        )


def test_a_gate_that_cannot_be_judged_is_refused_before_training(place):
    known = open_model("sequential_01-02")._opened._scorer.table.split("train", "entry")
    write("relabelled.csv", [(t.text, "11" if t.code != "11" else "12") for t in known[:4]])
    plan = make_plan(request("data.labelled=relabelled.csv", start="sequential_01-02"))
    launcher = HereLauncher()
    with pytest.raises(
        ConfigError,
        match="names 'gain', which is measured on the new test records, and the data of stage continued_codes have none",
    ):
        run_chain(plan, launcher, lambda event: None)
    assert not launcher.jobs


def test_a_model_that_is_held_says_with_which_rule_it_would_pass(place):
    write("corrections1.csv", new("stall"))
    small = Path("small").read_text().split()
    asked = [
        "--chain",
        "chain_continued_codes",
        "--from-checkpoint",
        "sequential_01-02",
        "data.labelled=corrections1.csv",
        *small,
    ]
    done = CliRunner().invoke(train_curriculum, [*asked, "--gate", "gain >= 1.5 and drop <= 1"], catch_exceptions=False)
    assert "scores by domain" in done.output and "hold: new" in done.output, done.output
    rule = done.output.partition("this command again with --gate '")[2].partition("'")[0]
    assert rule.endswith("drop <= 1") and default_model("checkpoints").uri
    again = CliRunner().invoke(train_curriculum, [*asked, "--gate", rule], catch_exceptions=False)
    assert "promote: new" in again.output, again.output


CONCORDANCE = (
    "old code,new code,new title\n11,11,Bakeries\n12,13,Butchers\n21,21,Breweries\n21,23,Bars\n22,21,Breweries\n"
)
NEW_CODES = "code,title,parent\n1,Food,\n2,Drink,\n3,Other,\n11,Bakeries,1\n13,Butchers,1\n21,Breweries,2\n23,Bars,2\n31,Toys,3\n"


@pytest.fixture(scope="module")
def carried(place):
    """The folder of a crosswalk of the first model, and what was printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        Path("concordance.csv").write_text(CONCORDANCE)
        Path("new_codes.csv").write_text(NEW_CODES)
        small = [item for item in Path("small").read_text().split() if not item.startswith("model.")]
        given = [
            "concordance.csv",
            "--model",
            "sequential_01-02",
            "--classification",
            "new_codes.csv",
            "--run-id",
            "carried",
            *small,
        ]
        done = CliRunner().invoke(crosswalk, [*given, "-o", "crossed"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    return place / "crossed", done.output, given


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_texts_follow_their_codes_and_those_of_split_ones_are_placed_by_the_model_and_marked(carried):
    folder, output, _ = carried
    by = {(row["old_code"], row["code"], row["crosswalked_by"]) for row in rows(folder / "texts.csv")}
    assert {("11", "11", "concordance"), ("12", "13", "concordance"), ("22", "21", "concordance")} <= by
    assert {(old, who) for old, _, who in by if old == "21"} == {("21", "model")}
    assert all(row["split"] == "train" for row in rows(folder / "texts.csv") if row["crosswalked_by"] == "model")
    codes = {(row["old_code"], row["new_code"]): row["status"] for row in rows(folder / "codes.csv")}
    assert codes == {("11", "11"): "unchanged", ("12", "13"): "renamed", ("21", "21"): "split", ("21", "23"): "split", ("22", "21"): "merged", ("", "31"): "new"}  # fmt: skip
    assert "by_model" in json.loads((folder / "report.json").read_text())["crosswalk"]["texts"]
    assert "promote: old" in output or "hold: old" in output, output
    page = max(
        folder.parent.glob("checkpoints/carried/*/report.html"), key=lambda path: path.stat().st_mtime
    ).read_text()
    assert "What became of the codes" in page and re.search(r"split</span></td><td>21, 23<", page)


def test_the_model_answers_by_the_new_codes_and_the_old_one_stays_promoted(carried, place):
    model = open_model("carried")
    assert {hit.code for hit in model.search("bread shop", 4)} <= {"11", "13", "21", "23", "31", ""}
    assert promoted("checkpoints", "codes").uri != model.uri
    report = json.loads((carried[0] / "report.json").read_text())
    assert set(report["before"]) == set(report["after"]) == {"old"}
    texts = model._opened._scorer.table
    before = open_model("sequential_01-02")._opened._scorer.table
    tested = {t.text for t in before.texts if t.split in ("test", "validation") and t.kind == "entry"}
    assert not tested & {t.text for t in texts.texts if t.split == "train"}


def test_a_held_out_text_with_the_words_of_a_new_title_is_measured_no_more(carried, place):
    before = open_model("sequential_01-02")
    table = before._opened._scorer.table
    tested = next(t for t in table.split("test", "entry") if t.code == "11")
    Path("titled.csv").write_text(NEW_CODES.replace("Toys", tested.text.upper()))
    data = place / "checkpoints" / "data" / Path(before.manifest.lineage["data_uri"]).name
    facts = make_crosswalk(
        before.folder, data, place / "concordance.csv", place / "p", place / "t", classification="titled.csv"
    )
    assert facts["crosswalk"]["left_out"]["for evaluation, and with the words of a new title"] == 1
    made = load(place / "p")
    made.check_no_leak()
    assert tested.text not in {t.text for t in made.texts}


def test_the_table_starts_at_the_old_points(carried, place):
    data = open_model("carried")._opened._scorer
    folder = open_model("sequential_01-02").folder
    record, old = read_carried(data.data_dir), load_file(folder / "model.safetensors")
    before = open_model("sequential_01-02")._opened._scorer.table
    tree = data.table.tree
    made = record.table(old["head.table"], tree, old["head.radius"], 0)
    at = tree.index
    assert torch.equal(made[at["13"]], old["head.table"][before.tree.index["12"]])
    near = torch.nn.functional.cosine_similarity
    assert near(made[at["23"]], old["head.table"][before.tree.index["21"]], dim=0) > 0.99
    assert near(made[at["31"]], made[at["3"]], dim=0) > 0.99 and made[at["31"]].norm() > made[at["3"]].norm() > 0.1
    assert len({tuple(row.tolist()) for row in made}) == len(tree.codes), "no two codes stand at one point"


def test_a_carried_model_goes_on_with_corrections_of_the_new_codes(carried, place):
    write("toys.csv", [(f"toy corner {i} toys", "31") for i in range(8)])
    small = [item for item in Path("small").read_text().split()]
    asked = ChainRequest(
        chain="chain_continued_codes", overrides=(*small, "data.labelled=toys.csv"), from_checkpoint="carried", gate=""
    )
    outcome = run_chain(make_plan(asked), HereLauncher(), lambda event: None)[-1]
    assert {t.text for t in open_model(outcome.uri)._opened._scorer.table.texts if t.code == "31" and t.kind == "entry"}


def test_nothing_is_overwritten_and_what_cannot_be_carried_is_refused(carried, place):
    folder, _, given = carried
    again = CliRunner().invoke(crosswalk, [*given, "-o", "crossed"])
    assert isinstance(again.exception, OutputError) and "is there already" in str(again.exception)
    Path("wrong.csv").write_text("a,b\nx1,y1\nx2,y2\n")
    done = CliRunner().invoke(crosswalk, ["wrong.csv", *given[1:], "-o", "other"])
    assert isinstance(done.exception, ConfigError) and not Path("other").exists()
    done = CliRunner().invoke(crosswalk, [*given, "-o", "other", "data.old=checkpoints"])
    assert isinstance(done.exception, ConfigError) and not Path("other").exists()


def test_texts_of_the_new_classification_are_a_batch_on_top(carried, place):
    write("bars.csv", [(f"bar number {i} x", "23") for i in range(10)])
    model = open_model("sequential_01-02")
    made = carry(model, Path("concordance.csv"), "checkpoints", place / "tables", classification="new_codes.csv")
    small = tuple(item for item in Path("small").read_text().split() if not item.startswith("model."))
    asked = ChainRequest(overrides=(*small, "data.labelled=bars.csv"), run_id="with_new")
    plan = plan_further(model, made, asked)
    assert plan.gate == "gain >= 0 and drop <= 0.01" and plan.stages[0].config["data"]["old"] == made.data_uri
    _, judged = train_further(plan, HereLauncher(), lambda event: None)
    assert set(judged.scores.before) == {"new", "old"}
    table = open_model("with_new")._opened._scorer.table
    assert {t.code for t in table.texts if table.domain(t) == "new"} == {"23"}
