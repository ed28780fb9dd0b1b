"""The gate's rules."""

import pytest

from curricle.errors import ConfigError, DataError
from curricle.steps.gate import Scores, judge_rule, judge_scores, matrix


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


def test_a_drop_by_what_else_is_found_is_told_from_what_was_forgotten():
    verdict = judge_scores(Scores(BEFORE, AFTER, {}, {"old": 0.495, "new": 0.4}), 0.0, 0.01)
    assert verdict.decision == "hold"
    assert verdict.reason.endswith(
        "beyond the drop of 0.0100 allowed); without spans of labels that no old record has, old scores 0.4950"
    )


@pytest.mark.parametrize("annotated", [{}, {"old": 0.46}])
def test_nothing_is_said_where_no_other_label_is_found(annotated):
    assert judge_scores(Scores(BEFORE, AFTER, {}, annotated), 0.0, 0.01).reason.endswith("allowed)")


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
