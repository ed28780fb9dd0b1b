"""Errors by kind: each gold span and each predicted span counts in exactly one place.

The kinds are those of SemEval-2013 task 9 (Segura-Bedmar et al. 2013, after MUC-5, Chinchor and Sundheim 1993): a gold span may be met by a
prediction that overlaps it, and is missing otherwise; a prediction that meets none is spurious. One prediction meets at most one gold span.
Pairs are made in this order, within a record, longest overlap first, then from left to right:

    right     same start, end and label
    label     same start and end, another label
    boundary  same label, overlapping
    label     overlapping, another label (start or end may be wrong as well)
    missed    a gold span that is left
    spurious  a predicted span that is left

So of every label: true = right + boundary + label + missed. Over all labels: predicted = right + boundary + label + spurious; of one
label that holds with the `label` errors counted under the label that was predicted.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Iterable

from curricle.families.ner.tokens import Span

KINDS = ("right", "boundary", "label", "missed", "spurious")


def mistakes(gold: Iterable[Span], predicted: Iterable[Span]) -> Counter[tuple[str, str, str]]:
    """Of one record: how often (kind, gold label, predicted label); one of the two is empty for what is missed or spurious.

    Args:
        predicted: spans that do not overlap one another.
    """
    return Counter(
        (kind, one[2] if one else "", other[2] if other else "") for kind, one, other in paired(gold, predicted)
    )


def paired(gold: Iterable[Span], predicted: Iterable[Span]) -> list[tuple[str, Span | None, Span | None]]:
    """Of one record: each span once, as (kind, gold span, predicted span)."""
    left, found = set(gold), set(predicted)
    made: list[tuple[str, Span | None, Span | None]] = [("right", span, span) for span in sorted(left & found)]
    left, found = left - found, found - left
    in_order = sorted(found)
    ends = [end for _, end, _ in in_order]
    pairs = []
    for one in left:
        for other in itertools.islice(in_order, bisect.bisect_right(ends, one[0]), None):
            if other[0] >= one[1]:
                break
            rank = 0 if one[:2] == other[:2] else 1 if one[2] == other[2] else 2
            pairs.append((rank, max(one[0], other[0]) - min(one[1], other[1]), one, other))
    for _, _, one, other in sorted(pairs):
        if one in left and other in found:
            left.remove(one)
            found.remove(other)
            made.append(("boundary" if one[2] == other[2] else "label", one, other))
    made += [("missed", one, None) for one in sorted(left)]
    return made + [("spurious", None, other) for other in sorted(found)]
