"""The gate's rules."""

import pytest

from curricle.errors import ConfigError
from curricle.steps.gate import gate


def test_all_conditions_must_hold_and_each_is_reported():
    metrics = {"test/top1": 0.8, "test/mrr": 0.5}
    assert gate(metrics, "test/top1 >= 0.75 and test/mrr > 4e-1").decision == "promote"
    held = gate(metrics, "test/top1 >= 0.75, test/mrr >= 0.6")
    assert (
        held.decision == "hold"
        and "test/mrr 0.5000 is not >= 0.6" in held.reason
        and "test/top1 0.8000 is >=" in held.reason
    )


def test_no_rule_promotes_and_says_so():
    assert gate({}, " ").reason == "no rule was given"


@pytest.mark.parametrize(
    ("rule", "message"),
    [("top1 >= 0.5", "was not measured; measured: a"), ("a is big", "not of the form"), ("a >= x", "not of the form")],
)
def test_a_rule_that_cannot_be_decided_is_an_error(rule, message):
    with pytest.raises(ConfigError, match=message):
        gate({"a": 1.0}, rule)
