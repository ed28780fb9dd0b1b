"""Two small synthetic datasets, to try continued training with: made of sentence frames and word lists in this file, of no corpus.

The old one is short business news (PERSON, ORG, PLACE), the new one support tickets (PERSON, ORG, PRODUCT, FEATURE). No name means anybody.
It is not too easy: one word is a person here and a company, a place, a product or no entity there; half of the names in validation and
test, and some frames, never stand in training. What is scored on it says that the machinery works and nothing about other texts.
"""

# ruff: noqa: SIM905  a list of words is read and changed more easily as text

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

from curricle.store.ours import new_folder, require_free

FOLDERS = ("dataset_tiny/seed0", "dataset_new")
"""Where the guide keeps the old and the new dataset, beside `config/`."""
UNLABELLED = "unlabelled.txt"
"""In the new one: further tickets, a text a line, that nobody annotated."""
SIZES = {"train": 400, "validation": 100, "test": 200, UNLABELLED: 150}
"""Records of each file."""

FIRST = (
    "Anna Ben Carla David Elif Femi Grace Hana Ivan June Karim Lena Mark Nadia Omar Priya Rosa Sven Tomas Will Yuki Zoe May Austin Florence "
    "Sydney Frank Hope Chase Dawn Ines Jonas Kofi Maja Rahul Tess"
).split()
LAST = (
    "Miller Okafor Haddad Lindqvist Novak Rossi Tanaka Silva Kowalski Banerjee Price Cook Banks Grant Hill Young Long Stone Field Rivers Marsh "
    "Lincoln Jackson Houston Berlin Holland Chen Dubois Eriksen Fischer Gupta Ito Jensen Keller Moreau Nakamura Ortega Petrov Quinn Sharp Vance "
    "Wood Park Power Baker Bishop Carpenter Shore"
).split()
CITY = (
    "Lisbon Oslo Leipzig Nairobi Lyon Turin Osaka Krakow Bergen Seville Ghent Austin Lincoln Jackson Houston Florence Sydney Berlin Holland Reading "
    "Bath Cork Nice Split Essen Mobile Orange Hull Tampa Porto Basel Cologne Malmo Kyoto Dakar Quito Riga Perth Derby Bristol"
).split()
STEM = (
    "Norvik Halden Brightwater Quantia Solvano Redfern Kestrel Ironbridge Lumeno Castor Veridia Oakline Zentrix Palmero Northgate Silverline Meridian "
    "Arbor Trident Falcon Corvus Delphi Everline Granite Harvest Juniper Keystone Lantern Monarch Orchard Pioneer Summit Anchor Beacon Compass Slate"
).split()
TRADE = "Foods Motors Energy Logistics Steel Capital Systems Pharma Textiles Media Shipping Insurance".split()
PRODUCT = (
    "Anchor Beacon Compass Slate Relay Ledger Harbor Canvas Pulse Atlas Lantern Orbit Scribe Tally Voyage Mosaic Quill Signal Summit Prism Drift "
    "Ember Folio Glide Helix Index Jigsaw Kite Loom Nimbus"
).split()
EDITION = ("Pro", "Cloud", "Mobile", "Desk", "Lite", "One")
THING = (
    "invoice export|sign-in page|search box|calendar sync|dark mode|photo upload|password reset|audit log|report builder|share button|backup job|"
    "print preview|chat window|import wizard|map view|offline mode|time sheet|price list|contact form|voice search|tag editor|status page|"
    "PDF viewer|spell checker|task board|unread badge"
).split("|")
ROLE = ("finance chief", "chairwoman", "analyst", "spokesman", "founder", "head of sales", "union leader")
DAY = ("Monday", "Tuesday", "Friday", "in May", "last week", "in March", "this summer")

NEWS = (
    "{ORG} will close its plant in {PLACE} by the end of the year.",
    "Shares of {ORG} fell {number} percent {day} after {ORG} cut its outlook.",
    '"We are not for sale," said {PERSON}, {role} of {ORG}.',
    "{PERSON} joins {ORG} as {role}; {PERSON} had led the office in {PLACE}.",
    "The mayor of {PLACE}, {PERSON}, welcomed the plan.",
    "{ORG} ({PLACE}) and {ORG} agreed to merge, {PERSON} told reporters {day}.",
    "{ORG}'s new warehouse near {PLACE} employs {number} people.",
    "{PLACE}-based {ORG} won a contract worth {number} million.",
    "{ORG} said {day} it would not comment.",
    "{PERSON} said {day} she would step down.",
    "{PLACE} said {day} it would raise the tax on fuel.",
    "Talks between {ORG} and {PLACE} broke down {day}.",
    "For {PERSON}, {day} was a long wait for a fair price.",
    "The deal gives {ORG} a foothold in {PLACE}/{PLACE}.",
    "Analysts at {ORG} expect growth of {number} percent.",
    "{ORG} sued {PERSON}, its former {role}, over {number} patents.",
    "Workers in {PLACE} and {PLACE} walked out {day}.",
    "Critics accuse {PERSON} of misleading {ORG}.",
    "A spokesman for {PERSON} denied the report.",
    "After years in {PLACE}, {ORG} moves to {PLACE}.",
    "{ORG}: profit up {number} percent.",
    "Nobody at {ORG} knew that {PERSON} had left {PLACE}.",
    "The winners of the day were {ORG}, {ORG} and {ORG}.",
    "{PERSON} owns {number} percent of {ORG}.",
    "Rain delayed ships bound for {PLACE}.",
    "Prices of stone, wood and power rose {day}.",
    "Banks will grant fewer loans, and young families wait for a home on the hill.",
    "The central bank left rates alone {day}, a beacon for the markets.",
    "It was a good harvest: every orchard in the north sold out {day}.",
    "The summit ended without a deal; nice words, no price.",
)
TICKETS = (
    "{PRODUCT} crashes when I open the {FEATURE}.",
    "Since the update to {version} the {FEATURE} in {PRODUCT} is gone!",
    "{PERSON} from {ORG} cannot log in to {PRODUCT}.",
    "Hi, the {FEATURE} does not work on my phone ({PRODUCT} {version}).",
    "Could you move our {number} seats at {ORG} from {PRODUCT} to {PRODUCT}?",
    "Please call {PERSON} back, the {FEATURE} fails again.",
    "We at {ORG} pay for {PRODUCT} and want our money back.",
    "Is there a {FEATURE} in {PRODUCT}/{PRODUCT}?",
    "I clicked on '{FEATURE}', and nothing happened.",
    "{ORG} asks whether {PRODUCT} can be used without the {FEATURE}.",
    '{PERSON} says: "{FEATURE} broken, please fix {day}".',
    "{PRODUCT} is slow, but the {FEATURE} and the {FEATURE} are fine.",
    "Ticket {number} was closed by {PERSON} without an answer.",
    "Thanks to {PERSON}, {PRODUCT} runs again.",
    "Nobody at {ORG} gets mails from {PRODUCT} since {version}.",
    "When will {PRODUCT} get a {FEATURE}?",
    "{PRODUCT} said my licence ended {day}.",
    "{ORG} said our licence ended {day}.",
    "{PERSON} said our licence ended {day}.",
    "My colleague {PERSON} lost {number} files in {PRODUCT}.",
    "The {FEATURE} shows the wrong total.",
    "Refund for {ORG}, please: {PRODUCT} was billed twice.",
    "{PERSON} ({ORG}) wants a demo of the {FEATURE}.",
    "I cannot find the page to reset anything, and search gives no results.",
    "You sent a signal that help is near, but nobody wrote back {day}.",
    "The button on the page is grey; I tried {number} times.",
    "Everything in the office drifts: mail, calendar, phone. Is it you or us?",
    "Is my account a one-time offer? It says so on the invoice.",
)


def write_example(folder: Path) -> list[Path]:
    """Write both datasets below a folder, always the same bytes; the folders written.

    Raises:
        OutputError: one of the places holds something already.
        OSError: it cannot be written.
    """
    for place in FOLDERS:
        require_free(folder / place)
    written = []
    for place, frames, texts in zip(FOLDERS, (NEWS, TICKETS), (False, True), strict=True):
        made = records(frames)
        with new_folder(folder / place) as fresh:
            for name in ("train", "validation", "test"):
                lines = ",\n ".join(json.dumps(record, ensure_ascii=False) for record in made[name])
                (fresh / f"{name}.json").write_text(f"[{lines}]\n", encoding="utf-8")
            if texts:
                lines = "".join(f"{record['text']}\n" for record in made[UNLABELLED])
                (fresh / UNLABELLED).write_text(lines, encoding="utf-8")
        written.append(folder / place)
    return written


def records(frames: tuple[str, ...], seed: int = 7) -> dict[str, list[dict[str, object]]]:
    """Records of one domain, by file; no text stands twice."""
    draw = random.Random(seed)
    kept = frames[: len(frames) - 5]  # the last five are the ones without any entity
    made: dict[str, list[dict[str, object]]] = {}
    known: set[str] = set()
    for name, size in SIZES.items():
        training = name == "train"
        usable = [frame for i, frame in enumerate(kept) if i % 6 or not training] + list(frames[-5:])
        made[name] = []
        while len(made[name]) < size:
            record = _record(draw, [draw.choice(usable) for _ in range(draw.choice((1, 1, 2)))], training)
            if str(record["text"]) not in known:
                known.add(str(record["text"]))
                made[name].append(record)
    return made


def _record(draw: random.Random, frames: list[str], training: bool) -> dict[str, object]:
    text, spans = "", []
    for part in re.split(r"(\{\w+\})", " ".join(dict.fromkeys(frames))):
        slot = part[1:-1] if part.startswith("{") else ""
        word = _FILL[slot](draw, training) if slot else part
        if slot.isupper():
            spans.append([len(text), len(text) + len(word), slot])
        text += word
    return {"text": text, "annotations": spans}


def _pick(draw: random.Random, words: list[str] | tuple[str, ...], training: bool) -> str:
    """A word: in training never one of every third, elsewhere one of those half the time."""
    hidden = words[::3]
    if not training and draw.random() < 0.5:
        return draw.choice(hidden)
    return draw.choice([word for word in words if word not in hidden])


def _person(draw: random.Random, training: bool) -> str:
    first, last = _pick(draw, FIRST, training), _pick(draw, LAST, training)
    return draw.choice((f"{first} {last}", f"{first} {last}", last, first, f"{first[0]}. {last}"))


def _org(draw: random.Random, training: bool) -> str:
    stem, place = _pick(draw, STEM, training), _pick(draw, CITY, training)
    last, trade = _pick(draw, LAST, training), draw.choice(TRADE)
    return draw.choice(
        (
            stem,
            stem,
            f"{stem} {trade}",
            f"{place} {trade}",
            f"{last} & Sons",
            last,
            f"{last} {trade}",
            f"Bank of {place}",
        )
    )


def _product(draw: random.Random, training: bool) -> str:
    name = _pick(draw, PRODUCT, training)
    return draw.choice((name, name, f"{name} {draw.choice(EDITION)}"))


_FILL: dict[str, Callable[[random.Random, bool], str]] = {
    "PERSON": _person,
    "ORG": _org,
    "PLACE": lambda draw, training: _pick(draw, CITY, training),
    "PRODUCT": _product,
    "FEATURE": lambda draw, training: _pick(draw, THING, training),
    "role": lambda draw, _: draw.choice(ROLE),
    "day": lambda draw, _: draw.choice(DAY),
    "number": lambda draw, _: str(draw.randrange(2, 90)),
    "version": lambda draw, _: f"{draw.randrange(1, 9)}.{draw.randrange(10)}",
}
