"""The report of a coded table: how much of it is coded without a person, how sure the model was, which codes it gave. Holds no text of the table."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import escape

from curricle import __version__
from curricle.errors import OutputError
from curricle.report.charts import share
from curricle.report.page import OURS, render
from curricle.steps.assign import Assigned
from curricle.steps.tally import tally_of
from curricle.store import layout
from curricle.store.ours import check_output_file, check_replaced

HEAD = 2000
"""Characters of a page within which its title stands."""
HEIGHT, WIDTH = 180.0, 560.0


@dataclass(frozen=True)
class About:
    """What is told beside the counts; empty texts for what nobody knows."""

    output: str
    source: str = ""
    model: str = ""
    """Its place, and why it was this one."""
    done: Assigned = field(default_factory=lambda: Assigned(0, 0, 0, 0, 0, (), Path()))


def place_for(output: Path) -> Path:
    """Where the report of a coded table lies, unless somebody says: beside it, by its name without the ending; with the ending where the report of
    another table has that place."""
    place = output.with_name(f"{output.stem}.report.html")
    with suppress(OSError, UnicodeDecodeError):
        head = place.read_text(encoding="utf-8")[:HEAD]
        if OURS in head and f"<title>{escape(output.name)} " not in head:
            return output.with_name(f"{output.name}.report.html")
    return place


def check_place(report: Path, others: list[Path]) -> None:
    """Refuse a place that a report may not be written to, before anything is done.

    Raises:
        OutputError: it is one of the other files, or a file of somebody else's is there.
    """
    check_output_file(report, others)
    for other in others:
        if os.path.realpath(report) == os.path.realpath(other):
            raise OutputError(f"the report {report} would be the file {other} itself; name another one with --report")
    check_replaced(report, "curricle report", lambda head: OURS.encode() in head[:400])


def page_of_table(path: Path) -> str:
    """The page of a table that `assign` wrote, by the table alone: rejects and the rule are not known any more.

    Raises:
        DataError: `assign` did not write it.
    """
    counts = tally_of(path)
    rows = (counts.rows, counts.coded, counts.review, counts.without)
    return assigned_page(About(str(path), done=Assigned(*rows, 0, (), Path(), counts.tally())))


def assigned_page(about: About) -> str:
    """The page."""
    done, tally = about.done, about.done.tally
    empty = tally.get("empty", 0)
    bins, codes = tally.get("bins", []), tally.get("most", [])
    judged = any(review for _, review in bins) or bool(done.rule)
    facts = {
        "input": about.source,
        "output": about.output,
        "model": about.model,
        "model version": ", ".join(
            f"{name} ({rows:,} rows)" if len(tally.get("versions", {})) > 1 else name
            for name, rows in tally.get("versions", {}).items()
        ),
        "rule": done.rule or ("" if judged else "none was asked for: rows without a code alone are for review"),
    }
    return render(
        "assigned.html",
        ours=OURS,
        title=Path(about.output).name or about.output,
        verdict=_verdict(done, judged),
        tone="plain" if judged else "warn",
        cards=[
            ("rows", f"{done.rows:,}", ""),
            ("coded without a person", _part(done.coded, done.rows), f"{done.coded:,} rows"),
            ("for review", _part(done.review, done.rows), f"{done.review:,} rows"),
            (
                "without a code",
                _part(done.without, done.rows),
                f"{done.without:,} rows{f', {empty:,} of them without a text' if empty else ''}; they are for review too",
            ),
        ],
        worries=_worries(done, tally, judged),
        bins=_bars(bins),
        judged=judged,
        codes=[
            {
                "code": c,
                "title": t,
                "rows": n,
                "share": n / max(1, done.rows),
                "review": r / n,
                "mean": mean,
            }
            for c, t, n, r, mean in codes
        ],
        distinct=tally.get("distinct", 0),
        facts={name: value for name, value in facts.items() if value},
        bad=done.bad,
        named=done.named,
        rejects=str(done.rejects) if done.bad else "",
        version=__version__,
        now=layout.now(),
    )


def _part(count: int, whole: int) -> str:
    return share(count / whole) if whole else "–"


def _verdict(done: Assigned, judged: bool) -> str:
    if not done.rows:
        return "The table has no row."
    if not judged:
        return f"{done.rows:,} rows were given a code, and nobody said which of them a person should look at."
    return f"{_part(done.coded, done.rows)} of {done.rows:,} rows are coded without a person; {_part(done.review, done.rows)} are for review."


def _worries(done: Assigned, tally: dict[str, Any] | Any, judged: bool) -> list[str]:
    said = []
    if not judged and done.rows:
        said.append(
            "no rule was asked for: --max-error or --review-below of curricle assign marks what a person should look at"
        )
    if done.bad:
        said.append(
            f"rows of the input that are none, and were not coded: {done.bad:,} ({'; '.join(done.named)}{' ...' if done.bad > len(done.named) else ''})"
        )
    empty = tally.get("empty", 0)
    if empty > done.rows / 10:
        said.append(f"{_part(empty, done.rows)} of the rows have no text in that column")
    if done.without - empty > (done.rows - empty) / 10:
        said.append(
            f"{_part(done.without - empty, done.rows - empty)} of the texts have no code: they may be of another kind than those that the model was trained on"
        )
    if done.rows and judged and done.coded < done.rows / 5:
        said.append(
            "less than a fifth is coded without a person: the rule is strict, or the texts are unlike those that the model was trained on"
        )
    if len(tally.get("versions", {})) > 1:
        said.append("the rows were coded by more than one model")
    return said  # fmt: skip


def _bars(bins: list[list[int]]) -> list[dict[str, Any]]:
    """The histogram's bars in the coordinates of its drawing."""
    most, wide = max((sum(one) for one in bins), default=0), (WIDTH - 60) / max(1, len(bins))
    made = []
    for number, (sure, review) in enumerate(bins):
        high, low = HEIGHT * sure / max(1, most), HEIGHT * review / max(1, most)
        made.append(
            {
                "x": round(50 + number * wide, 1),
                "width": round(wide - 2, 1),
                "sure": {"y": round(24 + HEIGHT - high, 1), "height": round(high, 1), "rows": sure},
                "review": {"y": round(24 + HEIGHT - high - low, 1), "height": round(low, 1), "rows": review},
                "top": round(19 + HEIGHT - high - low, 1),
                "from": number / len(bins),
                "to": (number + 1) / len(bins),
            }
        )
    return made
