"""When a schedule fires: what Kubeflow's cron expressions allow, checked before a server sees one. Kubeflow reads them with robfig/cron v1."""

from __future__ import annotations

import re
from calendar import monthrange

from curricle.config.schema import require

FIELDS = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")),
    ("day of the week", 0, 6, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")),
)
"""Name, least and greatest value, and the words that stand for values from the least on."""
_NAMED = {"@yearly": "0 0 0 1 1 *", "@annually": "0 0 0 1 1 *", "@monthly": "0 0 0 1 * *", "@weekly": "0 0 0 * * 0", "@daily": "0 0 0 * * *", "@midnight": "0 0 0 * * *", "@hourly": "0 0 * * * *"}  # fmt: skip
_PART = re.compile(r"(?P<first>[*?]|\w+)(?:-(?P<last>\w+))?(?:/(?P<step>\d+))?")


def check_cron(text: str) -> None:
    """Refuse an expression that Kubeflow would refuse, read otherwise than its writer, or never fire by.

    Five fields are refused: crontab's first one is the minute, Kubeflow takes the second for it and leaves out the last.

    Raises:
        ValueError: what is wrong, and what to write; `config.load.build` gathers it.
    """
    fields = text.split()
    require(
        not re.match(r"\s*(CRON_)?TZ=", text),
        f"cron {text!r}: a schedule has no time zone of its own; leave {fields[0] if fields else 'it'} out: Kubeflow reads all by the clock of its "
        "controller, UTC unless the deployment ml-pipeline-scheduledworkflow sets CRON_SCHEDULE_TIMEZONE",
    )
    require(
        fields[:1] != ["@every"],
        f"cron {text!r}: for a fixed time between two runs set interval_seconds (3600 is an hour) in place of cron",
    )
    require(text.strip() not in _NAMED, f'cron {text!r}: write its six fields, "{_NAMED.get(text.strip())}"')
    if len(fields) == 5:
        check_cron(f"0 {text}")
        require(
            False,
            f"cron {text!r} has five fields, and Kubeflow's begins with the seconds; as crontab means it, write "
            f'"0 {" ".join(fields)}"',
        )
    require(
        len(fields) == 6,
        f"cron must have six fields (second minute hour day month weekday), not {len(fields)}: {text!r}",
    )
    values = [_values(part, field) for part, field in zip(fields, FIELDS, strict=True)]
    days, months = values[3], values[4]
    every_weekday = fields[5][0] in "*?"
    require(
        not every_weekday or any(day <= monthrange(2024, month)[1] for month in months for day in days),
        f"cron {text!r} never fires: no such month has such a day",
    )


def _values(text: str, field: tuple[str, int, int, tuple[str, ...]]) -> set[int]:
    """The values of one field."""
    name, least, greatest, words = field

    def number(word: str) -> int:
        if word.upper()[:3] in words and len(word) == 3:
            return least + words.index(word.upper())
        require(word.isascii() and word.isdigit() and len(word) < 10, f"cron's {name} {text!r}: {word!r} is no number")
        value = int(word)
        also = f" ({', '.join(words)})" if words else ""
        require(least <= value <= greatest, f"cron's {name} is {least} to {greatest}{also}, not {word}")
        return value

    values: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        require(match is not None, f"cron's {name} {text!r} cannot be read; write *, 5, 1-5, */15 or a list of these")
        assert match is not None
        star, step = match["first"] in "*?", int(match["step"] or 1)
        require(not (star and match["last"]), f"cron's {name} {text!r}: a range is of two numbers")
        first = least if star else number(match["first"])
        last = number(match["last"]) if match["last"] else greatest if star or match["step"] else first
        require(first <= last, f"cron's {name} {text!r}: {first} comes after {last}")
        require(step > 0, f"cron's {name} {text!r}: a step of 0")
        require(
            not match["step"] or step <= last - first + 1,
            f"cron's {name} {text!r}: a step of {step} is longer than {first} to {last}; write {first} where that alone is meant",
        )
        values |= set(range(first, last + 1, step))
    return values
