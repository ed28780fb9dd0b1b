"""What a run leaves for people: the verdict or the headline first, few figures in one order, and nothing that anybody said is read as markup."""

from dataclasses import replace

from curricle.errors import Finding
from curricle.planning import ChainPlan, StagePlan
from curricle.registry import family
from curricle.steps.gate import Verdict
from kfp_pipelines import pages

GOOD = Finding("write", True, "an object of 1 MiB")
BAD = Finding("rights", False, "this account may not create pytorchjobs", "Grant its role.")
UNSEEN = Finding("operator version", True, "not visible", "Ask an administrator.")
METRICS = {"test/top1": 0.9525, "val/top1": 0.94, "val/mrr": 0.97, "test/mrr": 0.96, "val_loss": 0.45, "structure/pearson": 0.9,
           "test/texts": 569.0, "robust/foreign": -0.00001, "test/hit@5": 1.0}  # fmt: skip


def first_column(table: str) -> list[str]:
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]


def test_preflight_begins_with_the_verdict_and_what_failed():
    told = pages.preflight([GOOD, UNSEEN, BAD])
    assert told.startswith("**Not ready**: 1 of 3 checks failed; 1 could not be seen from here\n")
    assert first_column(told) == ["FAILED", "not seen", "ok"]
    told = pages.preflight([GOOD])
    assert told.startswith("**Ready**: 1 of 1 checks passed\n") and "what to do" not in told
    assert pages.preflight_lines([GOOD, BAD]).splitlines()[0].startswith("FAILED  rights: this account")


def stage(name: str, start: str, run: str = "r2") -> StagePlan:
    config = {"training": {"learning_rate": 1e-4, "trainer": {"max_epochs": 5}}}
    return StagePlan(
        name,
        start,
        "first stage, no --from-checkpoint",
        "ab" * 32,
        f"minio://b/p/{run}/{name}",
        "",
        "",
        "d",
        "d",
        "j",
        config,
        {},
    )


def test_a_plan_tells_epochs_rate_and_from_which_run_a_stage_is_reused():
    made = ChainPlan(
        "chain_x",
        "r2",
        "minio://b/p",
        True,
        (stage("01_stage", "reuse", "r1"), stage("02_stage", "continued")),
        "test/top1 >= 0.6",
    )
    told = pages.plan(made)
    assert told.startswith("**chain\\_x** trains 1 of 2 stages, reuses 1\n")
    assert "| 01\\_stage | reused, from run r1 |  |  |" in told
    assert "| 02\\_stage | trains further | 5 | 0.0001 | first stage, no from\\_checkpoint | abababababab |" in told


def test_a_combination_is_told_in_sentences():
    facts = {"family": "ner", "train": 800, "validation": 1, "labels": ["ORG", "JOB_TITLE"], "labels_of_source": {"old": ["ORG"]},
             "scored": {"test": ["new", "old"]}, "dropped": {"blank text": 0, "duplicate in training": 3}, "notes": ["old: a note"],
             "files": {"new train.json": "JSON array"}, "other_fact": [1, 2]}  # fmt: skip
    told = pages.combination(facts)
    assert told.startswith("**800 training records and 1 validation record**.\n")
    for sentence in (
        "- 2 labels: ORG, JOB\\_TITLE.",
        "- The old data is annotated with ORG.",
        "- The model is measured on test records of the new data and the old data.",
        "- Left out: 3 records (duplicate in training).",
        "- old: a note.",
        "- Other fact: 1 and 2.",
        "| new train.json | JSON array |",
    ):
        assert sentence in told, told
    assert not set("{}[]") & set(told) and "Nothing was left out" in pages.combination({"dropped": {"blank text": 0}})


def test_few_metrics_in_one_order_the_headline_first():
    few = pages.few(dict(reversed(METRICS.items())), family("codes"))
    assert list(few) == ["test/top1", "val_loss", "test/mrr", "structure/pearson"]


def test_counts_are_integers_and_nothing_is_minus_zero():
    assert [pages.figure(name, value) for name, value in METRICS.items()] == [
        "0.9525", "0.9400", "0.9700", "0.9600", "0.4500", "0.9000", "569", "0.0000", "1.0000",
    ]  # fmt: skip
    assert pages.figure("x", float("nan")) == "nan"


def test_markup_is_shown_as_text_on_every_page():
    evil = "<script>alert(1)</script> [x](javascript:alert(1)) _a_"
    made = ChainPlan(evil, "r", "s", True, (replace(stage("01", "scratch"), reason=evil),), evil)
    ended = pages.Summary(evil, "FAILED", [pages.StageEnd(evil, "", "", "")], "hold", evil, evil, [evil])
    told = [pages.plan(made), pages.verdict(Verdict("hold", evil)), pages.summary(ended), pages.preflight([Finding(evil, False, evil, evil)]),
            pages.combination({"labels": [evil], "dropped": {evil: 1}, "notes": [evil], "files": {evil: evil}, evil: evil, "labels_of_source": {evil: [evil]}})]  # fmt: skip
    for text in told:
        assert (
            "<script" not in text and "[x](" not in text.replace("\\[", "") and "_a_" not in text.replace("\\_", "")
        ), text


def test_a_summary_tells_state_verdict_checkpoint_and_stages():
    ended = pages.Summary(
        "r1",
        "COMPLETE",
        [pages.StageEnd("01_stage", "trains further", "done", "top-1 0.9525")],
        "promote",
        "no rule was given",
        "minio://b/x.ckpt",
        [],
    )
    told = pages.summary(ended)
    assert told.startswith("**Succeeded**: run r1\n\n- Promoted: no rule was given\n- Checkpoint: minio://b/x.ckpt\n")
    assert "| 01\\_stage | trains further | done | top-1 0.9525 |" in told
