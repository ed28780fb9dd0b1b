"""The texts of a split as careless people write them. Pure; the same for the same seed.

The abbreviations and the sentences around a text are English, as most benchmarks are; nothing but `evaluate` uses them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from curricle.families.codes.slips import EVERY, slipped

ABBREVIATIONS = {
    "manufacturing": "mfg", "service": "svc", "services": "svcs", "wholesale": "whsle", "wholesalers": "whslrs", "equipment": "equip",
    "building": "bldg", "construction": "constr", "contractor": "contr", "contractors": "contrs", "repair": "rpr", "management": "mgmt",
    "department": "dept", "association": "assn", "associations": "assns", "company": "co", "distribution": "distr", "installation": "instl",
    "maintenance": "maint", "transportation": "transp", "products": "prods", "product": "prod", "supplies": "supp", "merchant": "mcht",
    "retail": "rtl", "store": "str", "stores": "strs", "agency": "agcy", "agencies": "agcs", "center": "ctr", "centers": "ctrs",
    "industrial": "indl", "commercial": "coml", "machinery": "mach", "automobile": "auto", "except": "exc", "and": "&", "without": "w/o",
    "processing": "proc", "production": "prodn", "administration": "admin", "medical": "med", "hospital": "hosp", "laboratory": "lab",
    "laboratories": "labs", "government": "govt", "international": "intl", "national": "natl", "school": "sch", "schools": "schs",
}  # fmt: skip
SENTENCES = (
    "We are a small family business, founded by my father in 1987, and most of what we do is {}.",
    "Hello, I am filling in this form for my company; our main activity is {} and we have twelve people.",
    "{}, that is what the firm has been doing for many years, mainly for customers in the area.",
    "According to the questionnaire that you sent us last month, the activity of this establishment is {}.",
)


def upper(texts: Sequence[str], draw: np.random.Generator) -> list[str]:
    """In upper case."""
    return [text.upper() for text in texts]


def typos(texts: Sequence[str], draw: np.random.Generator) -> list[str]:
    """One slip for every ten characters begun: a letter left out, doubled, or changed for its neighbour."""
    return [slipped(text, draw, 1 + len(text) // EVERY) for text in texts]


def abbreviated(texts: Sequence[str], draw: np.random.Generator) -> list[str]:
    """With the usual abbreviations of `ABBREVIATIONS`; a text without any of these words stays as it is."""
    return [re.sub(r"[A-Za-z]+", lambda word: ABBREVIATIONS.get(word[0].lower(), word[0]), text) for text in texts]


def embedded(texts: Sequence[str], draw: np.random.Generator) -> list[str]:
    """In a sentence."""
    return [SENTENCES[i].format(text) for text, i in zip(texts, draw.integers(len(SENTENCES), size=len(texts)), strict=True)]  # fmt: skip


WAYS = {"upper": upper, "typos": typos, "abbreviated": abbreviated, "sentence": embedded}
"""Name of a row → what is done to the texts."""

FOREIGN = (
    "asdf jkl qwerty", "xkcd zzzz brrr", "lorem ipsum dolor sit amet", "123 456 789", "n/a", "none of the above", "test test test", "???", "hjkdfs",
    "see attached document", "to be or not to be", "I love you more than words can say", "what time is it in Tokyo right now", "same as last year",
    "my cat sleeps all day on the sofa", "happy birthday to my dear sister", "the sun rises in the east", "she was late again yesterday",
    "please call me back tomorrow morning", "no comment", "the quick brown fox jumps over the lazy dog", "once upon a time there was a princess",
    "I forgot my password", "he scored two goals in the second half", "can you believe this weather", "see you on Monday", "ok thanks", "blah blah blah",
    "the meaning of life is forty-two", "all happy families are alike", "we went to the beach and it rained", "the president gave a speech last night",
    "this question does not apply to me", "refused to answer", "winter is coming", "my favourite colour is blue", "it was the best of times",
    "nobody knows what happened to them", "why is the sky blue", "two plus two is four", "let it be", "wqeqwe sdfsdf", "aaaaaaaaaa", "!!! ###",
    "I do not understand the question", "unknown", "he is taller than his brother", "the answer is in the letter", "congratulations on your wedding",
    "the battle lasted three days and nobody won", "she speaks four languages", "good night and sweet dreams", "never mind", "qpwoei rutyal skdjfh",
)  # fmt: skip
"""What people write into such a field that names no business; written by hand for `evaluate`, used for nothing else."""
