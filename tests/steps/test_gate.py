"""The gate's rules."""

import pytest

from curricle.errors import ConfigError, DataError
from curricle.steps.gate import Scores, change, judge, judge_rule, judge_scores, matrix


def test_all_conditions_must_hold_and_each_is_reported():
    metrics = {"test/top1": 0.8, "test/mrr": 0.5}
    assert judge_rule(metrics, "test/top1 >= 0.75 and test/mrr > 4e-1").decision == "promote"
    held = judge_rule(metrics, "test/top1 >= 0.75, test/mrr >= 0.6")
    assert (
        held.decision == "hold"
        and "test/mrr 0.5000 is not >= 0.6" in held.reason
        and "test/top1 0.8000 is >=" in held.reason
    )


def test_no_rule_promotes_and_says_so():
    assert judge_rule({}, " ").reason == "no rule was given"


@pytest.mark.parametrize(
    ("rule", "message"),
    [("top1 >= 0.5", "was not measured; measured: a"), ("a is big", "not of the form"), ("a >= x", "not of the form")],
)
def test_a_rule_that_cannot_be_decided_is_an_error(rule, message):
    with pytest.raises(ConfigError, match=message):
        judge_rule({"a": 1.0}, rule)


BEFORE, AFTER = {"old": 0.5, "new": 0.0}, {"old": 0.46, "new": 0.4}


def test_what_else_is_found_is_said_and_is_no_drop():
    kept = {"old": 0.495, "new": 0.4}
    full = {"old": 0.46, "new": 0.4}
    verdict = judge_scores(Scores(BEFORE, kept, {}, full, full_before={"old": 0.49}), 0.0, 0.01)
    assert verdict.promotes and verdict.reason.endswith(
        "within the drop of 0.0100 allowed); with spans of labels that nobody looked for there counted as wrong, old scores 0.4900 → 0.4600"
    )


def test_a_sentence_on_two_domains_is_said_once():
    said = judge_scores(Scores(BEFORE, AFTER, {}, {"old": 0.44, "new": 0.3}), 0.0, 0.05).reason
    assert (
        said.endswith("counted as wrong, old scores 0.4400 and new scores 0.3000")
        and said.count("counted as wrong") == 1
    )


@pytest.mark.parametrize("full", [{}, {"old": 0.46, "new": 0.4}])
def test_nothing_is_said_where_no_other_label_is_found(full):
    assert judge_scores(Scores(BEFORE, AFTER, {}, full), 0.0, 0.01).reason.endswith("allowed)")


def test_annotations_that_no_prediction_can_equal_are_in_the_verdict():
    verdict = judge_scores(Scores(BEFORE, AFTER, {}, {}, {"old": 0.0, "new": 12.0}), 0.0, 0.05)
    assert verdict.promotes and verdict.reason.endswith("no prediction can equal them: 12 of new annotations")
    assert "predict" not in judge_scores(Scores(BEFORE, AFTER, {}, {}, {"old": 0.0}), 0.0, 0.05).reason


def test_without_a_model_before_or_an_old_domain_the_gain_decides():
    assert judge_scores(Scores({}, AFTER, {}), 0.9, 0.0).decision == "promote"
    alone = judge_scores(Scores({"new": 0.1}, {"new": 0.4}, {}), 0.2, 0.0)
    assert alone.decision == "promote" and "the old domain was not measured" in alone.reason


def test_both_domains_are_bounded_and_a_bound_that_is_met_exactly_holds():
    before = {"old": 0.62, "new": 0.6}
    assert judge_scores(Scores(before, {"old": 0.61, "new": 0.65}, {}), 0.05, 0.01).promotes
    assert not judge_scores(Scores(before, {"old": 0.5, "new": 0.7}, {}), 0.0, 0.01).promotes
    assert "less than" in judge_scores(Scores(before, {"old": 0.62, "new": 0.6}, {}), 0.1, 0.01).reason
    with pytest.raises(DataError, match="needs the score of the domain new"):
        judge_scores(Scores({"old": 0.5}, {"old": 0.5}, {}), 0.0, 0.01)


def test_the_matrix_has_a_row_a_model_and_a_dash_where_nothing_was_measured():
    lines = matrix(["first", "second"], [{"a": 0.5}, {"a": 0.25, "a long name": 1.0}]).splitlines()
    assert lines[0].split() == ["after", "a", "a", "long", "name"] and lines[1].split() == ["first", "0.5000", "-"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(("min_gain", "max_drop"), [(0.5, 0.0), (0.0, 0.03), (0.5, 0.03)])
def test_a_model_that_is_held_is_promoted_with_the_bounds_that_are_said(min_gain, max_drop):
    held = judge_scores(Scores(BEFORE, AFTER, {}), min_gain, max_drop)
    assert not held.promotes and held.bounds
    assert judge_scores(
        Scores(BEFORE, AFTER, {}), **({"min_gain": min_gain, "max_drop": max_drop} | held.bounds)
    ).promotes


CHANGED = Scores({"old": 0.62, "new": 0.5}, {"old": 0.6, "new": 0.7}, {"test/top1": 0.64})


def test_a_rule_over_gain_and_drop_judges_as_the_bounds_of_an_experiment_do():
    held = judge(CHANGED, "gain >= 0.1 and drop <= 0.01")
    assert held == judge_scores(CHANGED, 0.1, 0.01) and held.bounds["max_drop"] == pytest.approx(0.02, abs=2e-4)
    assert judge(CHANGED, "gain >= 0.1 and drop <= 0.0201").promotes
    assert judge(CHANGED, "gain >= 0.1").reason.endswith("old 0.6200 → 0.6000 (-0.0200)")
    assert change(CHANGED) == pytest.approx({"gain": 0.2, "drop": 0.02}) and change(Scores({}, {"new": 1.0}, {})) == {}


def test_a_rule_may_bound_a_change_and_a_metric():
    assert judge(CHANGED, "gain >= 0 and test/top1 >= 0.6").promotes
    held = judge(CHANGED, "gain >= 0, test/top1 >= 0.7")
    assert not held.promotes and "test/top1 0.6400 is not >= 0.7" in held.reason and not held.bounds
    assert judge(CHANGED, "test/top1 >= 0.6") == judge_rule(CHANGED.metrics, "test/top1 >= 0.6")


def test_a_drop_alone_needs_no_new_domain_and_a_wrong_side_is_refused():
    assert judge(Scores({"old": 0.5}, {"old": 0.5}, {}), "drop <= 0").promotes
    with pytest.raises(ConfigError, match="bounds from the wrong side; say gain >= 0"):
        judge(CHANGED, "drop >= 0.01")
