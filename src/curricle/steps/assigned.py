"""What `assign` adds to a row: which columns, and how a code, its alternatives and its reasons are written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from curricle.errors import ConfigError

COLUMNS = ("code", "title", "confidence", "review", "alternatives", "model_version")
EXPLAINED = ("path", "nearest", "words", "excluded")
"""Columns that `explain` adds behind them."""
NUMBERS = frozenset({"confidence"})
"""Columns that are numbers where a file knows numbers."""
CLASH = "assigned_"
"""What the added columns begin with where the table has one of their names."""
NO_TEXT = "no code: the text is empty"
BETWEEN = " | "
"""Between several things in one cell."""

Value = str | float | None
Values = list[Value]


class Coder(Protocol):
    """A family's opened model, as `assign` asks it."""

    def assign(self, texts: Sequence[str], top: int) -> Sequence[Sequence[Any]]:
        """The `top` best codes of each text, best first, each with `code` (empty: there is none), `title` and `confidence`, 0 to 1."""

    def assign_fast(self, texts: Sequence[str], top: int) -> Sequence[Sequence[Any]]:
        """The same, as quick as may be: a text's confidence may depend a little on the machine and the texts beside it."""

    def explain(self, texts: Sequence[str], hits: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """What each hit rests on (as `families.codes.explain.Reasons`)."""

    def sureness(self, max_error: float) -> tuple[float, float, int]:
        """(the confidence from which on at most `max_error` of the first codes are wrong, above 1 where there is none; the share of
        validation texts that reach it; how many those were)."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for."""

    column: str
    """Name of the text's column, or its number from 1."""
    top: int = 1
    max_error: float | None = None
    """Share of wrong codes that is allowed among those that nobody is to look at."""
    review_below: float | None = None
    """Confidence below which a row is for review."""
    explain: bool = False
    fast: bool = False
    """In numbers of 16 bits where the processor is fast in them, else of 8."""
    prefix: str = ""
    """What the added columns' names begin with."""

    def __post_init__(self) -> None:
        if self.max_error is not None and self.review_below is not None:
            raise ConfigError("--max-error and --review-below are two rules for the same thing; give one of them")

    @property
    def has_rule(self) -> bool:
        """Whether it says what is for review."""
        return self.max_error is not None or self.review_below is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are added, without a prefix."""
        return (*COLUMNS, *(EXPLAINED if self.explain else ()))


NONE_WRONG = 3.0
"""Of n texts without a wrong one, with 95 % certainty at most this over n are wrong (the rule of three: Hanley and Lippman-Hand, JAMA 249, 1983)."""


@dataclass(frozen=True)
class Rule:
    """From which confidence on nobody is to look at a code."""

    least: float | None
    """None: nobody asked for a rule."""
    said: str
    """For people; empty without a rule."""


def rule_of(order: Order, coder: Coder) -> Rule:
    """The rule that an order asks for."""
    if order.review_below is not None:
        return Rule(order.review_below, f"for review is what has a confidence below {order.review_below:g}")
    if order.max_error is None:
        return Rule(None, "")
    least, share, count = coder.sureness(order.max_error)
    wanted = f"at most {order.max_error:.3%} wrong".replace(".000%", "%")
    if least > 1:
        return Rule(
            least, f"{wanted}: no confidence reaches that on {count:,} validation texts, so every row is for review"
        )
    told = f"{wanted}: holds from a confidence of {least:.4f} on, on {count:,} validation texts, of which {share:.1%} are coded so"
    if order.max_error and share * count < (wanting := NONE_WRONG / order.max_error):
        told += f" (too few to show that: it takes {wanting:,.0f} without a wrong one)"
    return Rule(least, f"{told}; the others are for review")


def values_of(hits: Sequence[Any], rule: Rule, version: str, reasons: Any = None, *, explain: bool = False) -> Values:
    """The values of `Order.columns` for a text with its codes, best first."""
    first, others = hits[0], [hit for hit in hits[1:] if hit.code]
    doubtful = not first.code or (rule.least is not None and first.confidence < rule.least)
    review = "yes" if doubtful else "" if rule.least is None else "no"
    listed = BETWEEN.join(f"{hit.code} {hit.title} ({hit.confidence:.4f})" for hit in others)
    made: Values = [first.code, first.title, round(float(first.confidence), 4), review, listed, version]
    return [*made, *_explained(first, reasons)] if explain else made


def values_of_nothing(order: Order, version: str) -> Values:
    """The values for a row without a text: it gets no code."""
    return ["", NO_TEXT, None, "yes", "", version, *[""] * (len(order.columns) - len(COLUMNS))]


def part(share: float) -> str:
    """A share in per cent, for people: of a small one that it is small, and not that it is none."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _explained(hit: Any, reasons: Any) -> list[str]:
    """The values of `EXPLAINED`: the way down the tree; the nearest training texts with their code and share; words; cross-references."""
    if not hit.code or reasons is None:
        return [""] * len(EXPLAINED)
    near = (
        f"{hit.code} {part(n.share)} {n.text}" + (f" [{', '.join(n.words)}]" if n.words else "")
        for n in reasons.neighbours
    )
    other = (f"excluded from {e.source}: {e.text} (see {e.code} {e.title})" for e in reasons.elsewhere)
    path = " > ".join(f"{code} {title}" for code, title in hit.path)
    return [path, BETWEEN.join(near), ", ".join(word for word, _ in reasons.words), BETWEEN.join(other)]


def names_for(order: Order, there: Iterable[str], where: str) -> tuple[str, ...]:
    """The added columns' names: with the prefix that is asked for, else with `CLASH` where the table has one of them already.

    Args:
        there: the table's own columns.

    Raises:
        ConfigError: the table has those too.
    """
    taken = set(there)
    tries = [order.prefix] if order.prefix else ["", CLASH]
    for prefix in tries:
        names = tuple(f"{prefix}{name}" for name in order.columns)
        if not taken & set(names):
            return names
    clash = sorted(taken & set(names))
    raise ConfigError(f"{where} has the column {', '.join(clash)} already; name what is added with another --prefix")


def is_assigned(columns: Sequence[str]) -> bool:
    """Whether columns end as those of a table that `assign` wrote, with any prefix."""
    return bool(added_to(columns))


def added_to(columns: Sequence[str]) -> int:
    """How many of the last columns `assign` added; 0 where it did not write the table."""
    for added in (COLUMNS, (*COLUMNS, *EXPLAINED)):
        last = tuple(columns[-len(added) :])
        if last and last == tuple(f"{last[0].removesuffix(added[0])}{name}" for name in added):
            return len(added)
    return 0


def text_column(columns: Sequence[str], wanted: str, where: str) -> int:
    """Position of the text's column.

    Raises:
        ConfigError: there is none of that name or number, or two have the name.
    """
    found = [i for i, name in enumerate(columns) if name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(str(i + 1) for i in found)
        raise ConfigError(
            f"{where} has the column {wanted!r} {len(found)} times; give its number: --column {places.replace(', ', ' or ')}"
        )
    if wanted.isdecimal() and 1 <= int(wanted) <= len(columns):
        return int(wanted) - 1
    shown = ", ".join(name or f"(column {i + 1} has no name)" for i, name in enumerate(columns))
    raise ConfigError(f"{where} has no column {wanted!r}; its columns: {shown}")
