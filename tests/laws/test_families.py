"""One contract, run over every family: what the general code relies on, and what a user may expect of each of them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from curricle.config.load import leaves
from curricle.config.schema import StageConfig
from curricle.errors import CheckpointError, ConfigError, JobError
from curricle.registry import FAMILIES, family, names
from curricle.report.build import write_reports
from curricle.steps.chain import judge_chain, make_plan, run_chain
from curricle.steps.estimate import estimates
from curricle.steps.evaluate import evaluate_model
from curricle.steps.findings import find, read_findings
from curricle.steps.promote import default_model, promote
from curricle.steps.show import describe_run, list_runs
from curricle.steps.use import open_model
from curricle.store import open_store
from curricle.store.manifest import read_manifest
from tests.laws.conftest import HereLauncher

HEAVY = "{'torch','transformers','kfp','kubernetes','torchx','minio','mlflow'}"


def test_every_part_that_an_entry_names_is_there(sample):
    for part in (
        "config",
        "fingerprint",
        "prepare",
        "build",
        "evaluate",
        "use",
        "words",
        "checkpoint",
        "latency",
        "measured",
        "findings",
        "sections",
        "card",
    ):
        if getattr(sample.entry, part):
            assert callable(sample.entry.load(part)) or part == "words"
    assert issubclass(sample.entry.load("config"), StageConfig)
    assert set(sample.entry.verbs) <= {"search", "assign", "predict", "export", "points"} and sample.entry.headlines


def test_planning_needs_no_heavy_library_and_writes_nothing(sample, tmp_path):
    code = (
        "import sys; from curricle.steps.chain import *\n"
        f"make_plan(ChainRequest(config=Path({str(sample.base)!r}), curricula={sample.stages!r}, overrides=('paths.store_uri={tmp_path}/s',)))\n"
        f"print('LOADED', sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "LOADED []" in done.stdout, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_is_a_digest_that_is_the_same_twice(sample):
    fingerprint = sample.entry.load("fingerprint")
    one, two = fingerprint(sample.stage()), fingerprint(sample.stage("seed=7"))
    assert one == two and len(one) == 64 and set(one) <= set("0123456789abcdef")


def test_prepared_data_are_the_same_bytes_twice(sample, tmp_path):
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        facts = sample.entry.load("prepare")(sample.stage(), tmp_path / name)
        assert json.dumps(facts)
        digests.append(
            {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        )
    assert digests[0] == digests[1] and digests[0]


def test_an_unknown_key_is_refused_with_its_place(sample):
    with pytest.raises(ConfigError, match="unknown key"):
        make_plan(sample.request("model.no_such_setting=1"))


def test_a_chain_trains_each_stage_from_the_one_before(trained):
    sample, outcomes = trained
    assert [outcome.manifest.info["start"] for outcome in outcomes] == ["scratch", "continued"]
    assert outcomes[1].lineage["parent_checkpoint_uri"] == outcomes[0].lineage["checkpoint_uri"]
    assert all(outcome.manifest.info["family"] == sample.name for outcome in outcomes)
    assert any(key in outcomes[-1].metrics for key in sample.entry.headlines), outcomes[-1].metrics


def test_the_same_chain_again_trains_nothing(trained):
    sample, outcomes = trained
    plan, launcher = make_plan(sample.request()), HereLauncher()
    assert [stage.start for stage in plan.stages] == ["reuse", "reuse"]
    assert [stage.digest for stage in plan.stages] == [outcome.manifest.digest for outcome in outcomes]
    run_chain(plan, launcher, lambda event: None)
    assert launcher.jobs == []


def test_a_step_that_is_not_finite_names_the_records_of_its_batch(trained, monkeypatch):
    sample, _ = trained
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda gradients: torch.tensor(float("nan")))
    plan = make_plan(sample.request("seed=3", run_id="spoilt"))
    with pytest.raises(JobError):
        run_chain(plan, HereLauncher(), lambda event: None)
    (file,) = Path(sample.store, "spoilt").glob("*/bad_batch.json")
    records = json.loads(file.read_text())["ranks"][0][0]["records"]
    assert records and all(isinstance(record, dict) and record for record in records)


def test_its_test_metrics_hold_the_headline_that_judges_and_are_those_that_were_announced(trained):
    sample, outcomes = trained
    metrics = evaluate_model(outcomes[-1].uri, "").metrics
    assert sample.entry.headlines[0] in metrics
    facts = read_manifest(open_store(make_plan(sample.request()).stages[-1].data_uri), "").info
    announced = sample.entry.load("measured")(facts)
    assert set(metrics) <= announced
    assert all("/f1/" in name for name in announced - set(metrics)), (
        "only labels that nobody marked or found may be missing"
    )
    found = find(outcomes[-1].uri)
    assert found["metrics"] == metrics, "a report shows what evaluate says"
    if sample.entry.findings:
        store, (run, stage) = open_store(sample.store), outcomes[-1].uri.split("/")[-2:]
        assert read_findings(store, f"{run}/{stage}", outcomes[-1].manifest) == json.loads(json.dumps(found))
    page = Path(write_reports(sample.store, run_of(outcomes))).read_text()
    measured = (
        "test" if sample.entry.findings else "validation"
    )  # a family without findings shows what training measured
    assert f"{metrics[sample.entry.headlines[0]]:.4f} on {measured} records" in page and "are not shown" not in page
    keys = re.findall(r'<section id="([\w-]+)"', page)
    assert set(SECTIONS.get(sample.name, ())) <= set(keys), keys


SECTIONS = {
    "codes": ("disc", "automation", "sure", "ways", "confusions"),
    "ner": ("scores", "spans", "coverage", "labels"),
}


def run_of(outcomes) -> str:
    return outcomes[-1].uri.split("/")[-2]


def test_a_gate_over_what_nobody_measures_is_refused_before_anything_trains(sample, trained, tmp_path):
    rule, launcher = "test/no_such >= 0.5", HereLauncher()
    with pytest.raises(ConfigError, match="'test/no_such'.*There will be: .*test/"):
        make_plan(sample.request(gate=rule))
    fresh = make_plan(sample.request(f"paths.store_uri={tmp_path}/fresh", gate=rule))
    with pytest.raises(ConfigError, match="test/no_such"):
        run_chain(fresh, launcher, lambda event: None)
    assert launcher.jobs == [] and not list((tmp_path / "fresh").glob("*/plan.json"))


def test_a_checkpoint_whose_weights_cannot_fit_is_refused_in_the_plan(trained):
    sample, outcomes = trained
    for key in sample.entry.kept:
        there = leaves(sample.stage())[key]
        here = {bool: not there, int: 3, str: "mean" if key.endswith("fusion") else "another"}[type(there)]
        with pytest.raises(ConfigError, match=f"{key} = .*was trained with {there}.*or start from scratch"):
            make_plan(sample.request(f"{key}={json.dumps(here)}", from_checkpoint=outcomes[0].uri))


def test_a_second_configuration_lies_beside_the_first_in_the_same_run(trained):
    """One run id, one folder: what the newest plan consists of is said, and everything that is listed can be named."""
    sample, outcomes = trained
    run = Path(outcomes[0].uri).parent.name
    before = Path(sample.store, run, "plan.json").read_bytes()
    final = Path(sample.store, run, "final.json").read_bytes()
    try:
        again = run_chain(make_plan(sample.request("seed=11")), HereLauncher(), lambda event: None)
        assert [Path(o.uri).parent.name for o in again] == [run, run] and again[-1].uri != outcomes[-1].uri
        rows = describe_run(sample.store, run)
        assert [row["digest"] for row in rows[:2]] == [o.manifest.digest[:12] for o in again]
        assert [row["stage"] for row in rows[2:]] == ["one", "two"] and [row["earlier"] for row in rows] == [
            False,
            False,
            True,
            True,
        ]
        for row, outcome in zip(rows, [*again, *outcomes], strict=True):
            assert open_model(f"{run}/{row['stage']}", sample.store).manifest.digest == outcome.manifest.digest
        assert open_model(run, sample.store).manifest.digest == again[-1].manifest.digest
        assert [s.start for s in make_plan(sample.request("seed=11")).stages] == ["reuse", "reuse"]
        assert [s.start for s in make_plan(sample.request()).stages] == ["reuse", "reuse"]
    finally:
        for outcome in again:
            shutil.rmtree(outcome.uri)
        Path(sample.store, run, "plan.json").write_bytes(before)
        Path(sample.store, run, "final.json").write_bytes(final)


def test_a_stage_is_expected_to_take_what_a_like_one_took(trained):
    sample, outcomes = trained
    expected = estimates(make_plan(sample.request(resume=False)))
    for name, outcome in zip(sample.stages, outcomes, strict=True):
        facts = outcome.manifest.info
        if facts["steps"]:
            assert expected[name].steps == facts["steps"] and expected[name].place.endswith(name)
            assert expected[name].seconds == facts["steps"] * facts["seconds_per_step"]
    assert estimates(make_plan(sample.request())) == {}, "what is reused takes nothing"
    other = estimates(make_plan(sample.request("data_loader.batch_size=3"))).values()
    assert other and not any(made.seconds for made in other), "another batch costs something else"


def test_a_run_that_reuses_everything_is_shown(trained):
    sample, outcomes = trained
    run_chain(make_plan(sample.request(run_id="again")), HereLauncher(), lambda event: None)
    try:
        rows = describe_run(sample.store, "again")
        assert [(row["stage"], row["state"], row["start"], row["reused"]) for row in rows] == [
            (name, "complete", start, True) for name, start in zip(sample.stages, ("scratch", "continued"), strict=True)
        ]
        assert all("in sequential_one-two/" in row["detail"] for row in rows)
        assert {row["run"] for row in list_runs(sample.store)} >= {"again", Path(outcomes[0].uri).parent.name}
    finally:
        shutil.rmtree(Path(sample.store, "again"))


def test_the_finished_chain_is_what_is_meant_where_nothing_is_named_and_a_promotion_goes_before_it(trained):
    sample, outcomes = trained
    found = default_model(sample.store, "evaluate")
    assert found.uri == outcomes[-1].lineage["checkpoint_uri"] and "newest finished chain" in found.reason
    try:
        promote(f"{Path(outcomes[0].uri).parent.name}/one", sample.store, "because")
        pinned = default_model(sample.store, "evaluate")
        assert pinned.uri == outcomes[0].lineage["checkpoint_uri"] and "because" in pinned.reason
    finally:
        open_store(sample.store).delete("promoted")


def test_a_gate_pins_what_it_promotes_and_nothing_that_it_holds(trained):
    sample, outcomes = trained
    headline = sample.entry.headlines[0]
    held = judge_chain(make_plan(sample.request(gate=f"{headline} > 1.5")), outcomes[-1].uri).verdict
    assert held.decision == "hold" and not Path(sample.store, "promoted").exists()
    try:
        done = judge_chain(make_plan(sample.request(gate=f"{headline} >= 0")), outcomes[-1].uri).verdict
        assert done.promotes and Path(sample.store, "promoted", f"{sample.name}.json").is_file()
    finally:
        open_store(sample.store).delete("promoted")
    with pytest.raises(ConfigError, match="not of the form"):
        make_plan(sample.request(gate="better than before"))


def test_a_model_can_do_what_its_family_says_and_says_what_it_cannot(trained):
    sample, outcomes = trained
    model = open_model(outcomes[-1].uri, sample.store)
    assert model.verbs == (*sample.entry.verbs, "evaluate")
    for verb in {"search", "predict"}:
        if verb in model.verbs:
            assert len(getattr(model, verb)(["1", "2"])) == 2
            getattr(model, verb)("1")
        else:
            with pytest.raises(CheckpointError, match=f"has no {verb}; it can"):
                getattr(model, verb)("1")


def test_a_store_that_was_copied_is_used_from_anywhere(trained, tmp_path, monkeypatch):
    sample, outcomes = trained
    shutil.copytree(sample.store, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    away = Path(sample.store).rename(Path(sample.store).with_name("away"))
    try:
        for store in ("moved", str(tmp_path / "moved")):
            model = open_model("", store, tmp_path / "cache", verb="evaluate")
            assert Path(model.uri).is_relative_to(tmp_path / "moved") or model.uri.startswith("moved")
            assert sample.entry.headlines[0] in model.evaluate()
        plan = make_plan(sample.request("paths.store_uri=moved"))
        assert [stage.start for stage in plan.stages] == ["reuse", "reuse"]
    finally:
        away.rename(sample.store)


def test_no_reference_inside_a_store_names_a_place_outside_of_it(trained):
    sample, _ = trained
    store = open_store(sample.store)
    for entry in store.list(""):
        if entry.key.endswith("manifest.json"):
            manifest = read_manifest(store, entry.key.rpartition("/")[0])
            references = [value for key, value in manifest.lineage.items() if key.endswith("_uri") and value]
            assert all(reference.startswith(("./", "../")) for reference in references), entry.key
        elif entry.key.endswith(("stage.json", "plan.json")):
            tree = json.loads(store.read(entry.key))
            values = {
                k: v for k, v in leaves(tree).items() if k.endswith("_uri") and "config" not in k and "origins" not in k
            }
            assert all(v in (None, "") or v.startswith(("./", "../")) for v in values.values()), (entry.key, values)


def test_a_family_of_another_distribution_is_one_of_them(line_family):
    assert names() == [*FAMILIES, "line"] and family("line").title == "a line through points"
    with pytest.raises(ConfigError, match="did you mean 'line'"):
        family("lines")
