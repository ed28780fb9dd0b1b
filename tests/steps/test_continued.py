"""The decision on a continued model, in words."""

import pytest

from curricle.steps.continued import Scores, decide

BEFORE, AFTER = {"old": 0.5, "new": 0.0}, {"old": 0.46, "new": 0.4}


def test_a_drop_by_what_else_is_found_is_told_from_what_was_forgotten():
    verdict = decide(
        Scores(BEFORE, AFTER, {"test/old/f1": 0.46, "test/old/f1_annotated": 0.495, "test/new/f1_annotated": 0.4}),
        0.0,
        0.01,
    )
    assert verdict.decision == "hold"
    assert verdict.reason.endswith(
        "beyond the drop of 0.0100 allowed); without spans of labels that no old record has, old scores 0.4950"
    )


@pytest.mark.parametrize("metrics", [{}, {"test/old/f1_annotated": 0.46}])
def test_nothing_is_said_where_no_other_label_is_found(metrics):
    assert decide(Scores(BEFORE, AFTER, metrics), 0.0, 0.01).reason.endswith("allowed)")


def test_without_a_model_before_or_an_old_domain_the_gain_decides():
    assert decide(Scores({}, AFTER, {}), 0.9, 0.0).decision == "promote"
    alone = decide(Scores({"new": 0.1}, {"new": 0.4}, {}), 0.2, 0.0)
    assert alone.decision == "promote" and alone.reason.endswith("the old domain was not measured: no old_dataset_path")
