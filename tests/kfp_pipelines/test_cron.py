"""Schedules: what Kubeflow would read otherwise than its writer, refuse, or never fire by, is refused before it sees it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_pipelines.cron import FIELDS, check_cron


@pytest.mark.parametrize(
    "good",
    [
        "0 0 2 * * *",
        "*/10 * * * * *",
        "0 30 9-17 ? * MON-FRI",
        "0 0 0 29 feb *",
        "0 0,30 8/4 1,15 */3 0",
        "0 0 0 31 2 1",
    ],
)
def test_six_fields_are_taken(good):
    check_cron(good)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("0 2 * * *", 'write "0 0 2 * * *"'),
        ("*/5 * * * *", 'write "0 */5 * * * *"'),
        ("@daily", 'write its six fields, "0 0 0 * * *"'),
        ("@every 1h", "set interval_seconds"),
        (
            "TZ=Europe/Berlin 0 0 2 * * *",
            "leave TZ=Europe/Berlin out: Kubeflow reads all by the clock of its controller",
        ),
        ("CRON_TZ=UTC 0 0 2 * * *", "CRON_SCHEDULE_TIMEZONE"),
        ("0 */70 * * * *", "cron's minute '*/70': a step of 70 is longer than 0 to 59; write 0"),
        ("0 0 */25 * * *", "cron's hour '*/25': a step of 25"),
        ("0 0-5/7 * * * *", "cron's minute '0-5/7': a step of 7 is longer than 0 to 5"),
        ("0 0 2 * * * 2027", "six fields"),
        ("60 0 2 * * *", "second is 0 to 59, not 60"),
        ("0 60 2 * * *", "minute is 0 to 59"),
        ("0 0 24 * * *", "hour is 0 to 23"),
        ("0 0 2 0 * *", "day of the month is 1 to 31"),
        ("0 0 2 * 13 *", "month is 1 to 12"),
        ("0 0 2 * * 7", "day of the week is 0 to 6"),
        ("0 0 2 * * MO", "'MO' is no number"),
        ("0 0 5-2 * * *", "5 comes after 2"),
        ("0 0 */0 * * *", "a step of 0"),
        ("0 0 2 L * *", "'L' is no number"),
        ("0 0 2 * * 5#3", "cannot be read"),
        ("0 0 -1 * * *", "cannot be read"),
        ("0 0 2 31 2,4 *", "never fires"),
        ("0 0 २ * * *", "is no number"),
    ],
)
def test_what_would_fire_otherwise_or_never_is_refused_with_what_to_write(bad, said):
    with pytest.raises(ValueError) as error:
        check_cron(bad)
    assert said in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-5, 70), min_size=6, max_size=6))
def test_numbers_are_taken_exactly_within_their_ranges(numbers):
    numbers[3] = min(numbers[3], 28)  # a day that every month has, or one that is refused
    good = all(least <= value <= most for value, (_, least, most, _) in zip(numbers, FIELDS, strict=True))
    try:
        check_cron(" ".join(map(str, numbers)))
    except ValueError:
        assert not good
    else:
        assert good


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_taken_or_refused_with_a_message(text):
    try:
        check_cron(text)
    except ValueError as error:
        assert str(error)
