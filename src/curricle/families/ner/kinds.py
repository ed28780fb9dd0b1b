"""What one JSON value of a file says, by the tools that write such values: to a record, and back.

Nothing here knows files; a problem is an `Odd`, and whoever reads the file adds its name and the record's number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from curricle.families.ner.tokens import SCHEMES, TAG, record_of

TAG_COLUMNS = ("ner_tags", "tags", "labels")
_PRODIGY = ("tokens", "answer", "_input_hash", "_task_hash", "_session_id", "_view_id", "_timestamp", "_annotator_id", "_is_binary")  # fmt: skip
_JSON_MIN = ("annotation_id", "annotator", "lead_time", "created_at", "updated_at", "agreement", "draft_id")


Names = Callable[[str], list[str]]
"""What finds the names of tags that are numbers, by column."""


class Odd(Exception):
    """A value that its kind cannot be; the text says what is wrong."""


class LeftOut(Exception):
    """A value that is no record, by the rules of its tool; the text is the reason, for a count."""


@dataclass(frozen=True)
class Kind:
    """One way to write a record as a JSON value."""

    name: str
    """As `--to` calls it, where it can be written."""
    shape: str
    """How it looks, for people."""
    is_one: Callable[[Any], bool]
    read: Callable[[Any, Names, Counter[str]], dict[str, Any]]
    """From the value; the counter is added what people should know of how it was read. Raises `Odd` and `LeftOut`."""
    write: Callable[[dict[str, Any]], Any] | None = None
    """The value of a record; None where it is only read."""


def kind_of(value: Any) -> Kind:
    """The kind of a value; what is none of the others is taken for the seed's, whose check says what is wrong."""
    return next((kind for kind in KINDS if kind.is_one(value)), SEED)


def rest(record: dict[str, Any]) -> dict[str, Any]:
    """The further keys of a record."""
    return {key: value for key, value in record.items() if key not in ("text", "annotations")}


def _has(value: Any, *keys: str) -> bool:
    return type(value) is dict and all(key in value for key in keys)


def _made(text: Any, spans: list[Any], further: dict[str, Any]) -> dict[str, Any]:
    return {"text": text, "annotations": spans} | {k: v for k, v in further.items() if k not in ("text", "annotations")}


def _without(value: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in keys}


def spans_of_objects(
    text: Any, items: Any, notes: Counter[str], start: str = "start", end: str = "end", label: str = "label"
) -> Any:
    """``[start, end, label]`` of objects with such keys, checked by their `text`; what is none stays for the record's check."""
    if type(items) is not list:
        return items
    spans = [[x[start], x[end], x[label]] if _has(x, start, end, label) else x for x in items]
    at = [i for i, x in enumerate(items) if _has(x, start, end, label) and type(x[start]) is type(x[end]) is int]
    found = checked_edges(text, [([*spans[i][:2]], items[i].get("text")) for i in at], notes)
    for i, edges in zip(at, found, strict=True):
        spans[i][:2] = edges
    return spans


def checked_edges(text: Any, marked: Sequence[tuple[list[int], Any]], notes: Counter[str]) -> list[list[int]]:
    """The edges of a record's annotations in characters. They count characters, or, where these do not give the texts beside them and UTF-16
    units do, such units.

    Args:
        text: the record's; what is no string checks nothing.
        marked: each annotation's edges (start, end; of one in pieces start, end, start, end ...), and the text that the file has beside them, if any.

    Raises:
        Odd: neither gives those texts.
    """
    edges = [places for places, _ in marked]
    if type(text) is not str or all(_gives(text, *each) for each in marked):
        return edges
    if not text.isascii():
        units = text.encode("utf-16-le", "surrogatepass")
        counted = [[_in_characters(units, edge) for edge in places] for places in edges]
        if all(_gives(text, places, said) for places, (_, said) in zip(counted, marked, strict=True)):
            notes["records whose offsets count UTF-16 units (as JavaScript does), read as such"] += 1
            return counted
    places, said = next(each for each in marked if not _gives(text, *each))
    raise Odd(
        f"the offsets {places[0]} to {places[-1]} give {_at(text, places)[:60]!r}, and {said[:60]!r} stands beside them: offsets must count the characters "
        "of the text as it stands here, from 0, end exclusive; a line end \\r\\n is two, an emoji one or more. Export or correct them"
    )


def _in_characters(units: bytes, edge: int) -> int:
    """An edge in UTF-16 units as one in characters; one outside of the text stays outside."""
    if not 0 <= 2 * edge <= len(units):
        return edge
    return len(units[: 2 * edge].decode("utf-16-le", "replace"))


def _at(text: str, places: list[int]) -> str:
    return " ".join(text[start:end] for start, end in zip(places[::2], places[1::2], strict=True))


def _gives(text: str, places: list[int], said: Any) -> bool:
    """Whether these places give what the file says, but for white space, which tools trim and write in other ways; an empty text says nothing."""
    return type(said) is not str or not said.strip() or _at(text, places).split() == said.split()


def has_objects(value: Any) -> bool:
    """Whether a record of the seed's shape has spans that are objects ``{start, end, label}``."""
    spans = value.get("annotations") if type(value) is dict else None
    return type(spans) is list and len(spans) > 0 and type(spans[0]) is dict


def _read_seed(value: Any, names: Names, notes: Counter[str]) -> dict[str, Any]:
    return (
        value | {"annotations": spans_of_objects(value.get("text"), value["annotations"], notes)}
        if has_objects(value)
        else value
    )


def _write_seed(record: dict[str, Any]) -> Any:
    return record


def _is_hf(value: Any) -> bool:
    return _has(value, "tokens") and "spans" not in value and any(column in value for column in TAG_COLUMNS)


def _read_hf(value: Any, names: Names, notes: Counter[str]) -> dict[str, Any]:
    column = next((column for column in TAG_COLUMNS if column in value), TAG_COLUMNS[0])
    tokens, tags = value.get("tokens"), value.get(column)
    if type(tokens) is not list or type(tags) is not list or any(type(t) is not str or not t for t in tokens):
        raise Odd(f"tokens must be a list of strings that are not empty, and {column} a list beside it")
    if len(tokens) != len(tags):
        raise Odd(f"{len(tokens)} tokens and {len(tags)} {column}")
    if tags and all(type(tag) is int for tag in tags):
        known = names(column)
        if not 0 <= min(tags) <= max(tags) < len(known):
            raise Odd(f"{column} holds {max(tags)}, and the features name {len(known)} tags from 0")
        tags = [known[tag] for tag in tags]
    for tag in tags:
        if type(tag) is not str or not TAG.fullmatch(tag):
            raise Odd(f"{column} holds {json.dumps(tag)[:40]}; {SCHEMES} were expected")
    return record_of(tokens, tags) | _without(value, "tokens", column, "text", "annotations")


def _read_prodigy(value: Any, names: Names, notes: Counter[str]) -> dict[str, Any]:
    if value.get("answer", "accept") != "accept":
        raise LeftOut("not accepted in Prodigy")
    spans = spans_of_objects(value.get("text"), value.get("spans", []), notes)
    return _made(value.get("text"), spans, _without(value, "spans", *_PRODIGY))


def _write_prodigy(record: dict[str, Any]) -> Any:
    spans = [{"start": start, "end": end, "label": label} for start, end, label in record["annotations"]]
    return {"text": record["text"], "spans": spans, "answer": "accept"} | rest(record)


def _is_doccano(value: Any) -> bool:
    if not _has(value, "text") or "annotations" in value or "spans" in value:
        return False
    labels = value.get("label", value.get("labels"))
    return type(labels) is list and all(type(item) is list and len(item) == 3 for item in labels)


def _read_doccano(value: Any, names: Names, notes: Counter[str]) -> dict[str, Any]:
    column = "label" if "label" in value else "labels"
    return _made(value.get("text"), value.get(column), _without(value, column, "Comments"))


def _write_doccano(record: dict[str, Any]) -> Any:
    return {"text": record["text"], "label": record["annotations"]} | rest(record)


def _is_doccano_relations(value: Any) -> bool:
    entities = value.get("entities") if _has(value, "text", "entities") else None
    return type(entities) is list and (
        "relations" in value or any(_has(item, "start_offset", "end_offset") for item in entities)
    )


def _read_doccano_relations(value: Any, names: Names, notes: Counter[str]) -> dict[str, Any]:
    spans = spans_of_objects(value.get("text"), value.get("entities"), notes, "start_offset", "end_offset")
    relations = value.get("relations")
    notes["relations, left out"] += len(relations) if type(relations) is list else 0
    return _made(value.get("text"), spans, _without(value, "entities", "relations", "Comments"))


def _is_label_studio(value: Any) -> bool:
    return _has(value, "data") and type(value["data"]) is dict and any(k in value for k in ("annotations", "completions", "predictions"))  # fmt: skip


def _read_label_studio(value: Any, names: Names, notes: Counter[str]) -> dict[str, Any]:
    data = value.get("data")
    if type(data) is not dict:
        raise Odd("a Label Studio task has an object `data`")
    key, text = _only_text(data)
    answers = value.get("annotations") or value.get("completions") or []
    if type(answers) is not list or any(type(answer) is not dict for answer in answers):
        raise Odd("annotations of a Label Studio task are a list of objects with `result`")
    done = [answer for answer in answers if not answer.get("was_cancelled")]
    if not done:
        raise LeftOut("Label Studio task without annotation")
    answer = next((answer for answer in done if answer.get("ground_truth")), done[0])
    regions: list[Any] = []
    if type(results := answer.get("result") or []) is not list:
        raise Odd("the result of a Label Studio annotation is a list")
    for result in results:
        if type(result) is dict and result.get("type") == "relation":
            notes["relations, left out"] += 1
            continue
        region = result.get("value") if type(result) is dict else None
        if type(region) is not dict:
            raise Odd("each result of a Label Studio annotation has an object `value`")
        regions.append(region)
    further = _without(data, key)
    return _made(
        text, _spans_of_regions(text, regions, notes), ({"id": value["id"]} if "id" in value else {}) | further
    )


def _only_text(data: dict[str, Any], besides: tuple[str, ...] = ()) -> tuple[str, str]:
    """Which value of a task is its text: `text`, else the only string."""
    texts = {key: item for key, item in data.items() if type(item) is str and key not in besides}
    if "text" in texts:
        return "text", texts["text"]
    if len(texts) != 1:
        raise Odd(
            f"which of {', '.join(sorted(data)) or 'nothing'} is the text? `text`, or one string alone, was expected"
        )
    return next(iter(texts.items()))


def _spans_of_regions(text: str, regions: list[dict[str, Any]], notes: Counter[str]) -> list[Any]:
    """The spans of Label Studio's regions, one a label, checked by the text in each."""
    marked, names = [], []
    for region in regions:
        labels = region.get("labels", region.get("hypertextlabels", []))
        if type(labels) is not list:
            raise Odd("labels of a region are a list")
        if not labels:  # a choice or a rating
            continue
        place = region["globalOffsets"] if type(region.get("globalOffsets")) is dict else region
        start, end = place.get("start"), place.get("end")
        if type(start) is not int or type(end) is not int:
            raise Odd(f"a region's start and end are numbers, not {start!r} and {end!r}")
        marked.append(([start, end], region.get("text")))
        names.append(labels)
    found = checked_edges(text, marked, notes)
    return [[*edges, label] for edges, labels in zip(found, names, strict=True) for label in labels]


def regions_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A record's spans as results of a Label Studio annotation, for ``<Labels name="label" toName="text">``."""
    return [
        {
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {"start": start, "end": end, "text": record["text"][start:end], "labels": [label]},
        }
        for start, end, label in record["annotations"]
    ]


def _write_label_studio(record: dict[str, Any]) -> Any:
    return {"data": {"text": record["text"]} | rest(record), "annotations": [{"result": regions_of(record)}]}


def _is_json_min(value: Any) -> bool:
    if type(value) is not dict or "annotations" in value or "spans" in value:
        return False
    return "annotation_id" in value or _region_column(value) != ""


def _region_column(value: dict[str, Any]) -> str:
    """The key that holds the regions: whatever the labelling interface calls it."""
    return next(
        (
            key
            for key, item in value.items()
            if type(item) is list
            and item
            and all(_has(x, "start", "end") and ("labels" in x or "hypertextlabels" in x) for x in item)
        ),
        "",
    )


def _read_json_min(value: Any, names: Names, notes: Counter[str]) -> dict[str, Any]:
    column = _region_column(value)
    if not column and "annotation_id" not in value:
        raise LeftOut("Label Studio task without annotation")
    key, text = _only_text(value, _JSON_MIN)
    spans = _spans_of_regions(text, value.get(column, []), notes)
    return _made(text, spans, _without(value, key, column, *_JSON_MIN))


def _is_spacy(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and type(value[0]) is str and _has(value[1], "entities")


def _read_spacy(value: Any, names: Names, notes: Counter[str]) -> dict[str, Any]:
    if not _is_spacy(value):
        raise Odd("[text, {entities: [[start, end, label], ...]}] was expected")
    return _made(value[0], value[1]["entities"], _without(value[1], "entities"))


def _write_spacy(record: dict[str, Any]) -> Any:
    return [record["text"], {"entities": record["annotations"]} | rest(record)]


SEED = Kind("seed", "records (text, annotations)", lambda v: _has(v, "text", "annotations"), _read_seed, _write_seed)
KINDS = (
    SEED,
    Kind("spacy", "spaCy's [text, {entities}]", _is_spacy, _read_spacy, _write_spacy),
    Kind("label-studio", "Label Studio tasks (data, annotations)", _is_label_studio, _read_label_studio, _write_label_studio),
    Kind("hf", "Hugging Face tokens and tags", _is_hf, _read_hf),
    Kind("doccano", "doccano (text, label)", _is_doccano, _read_doccano, _write_doccano),
    Kind("doccano", "doccano with relations (text, entities)", _is_doccano_relations, _read_doccano_relations),
    Kind("prodigy", "Prodigy (text, spans)", lambda v: _has(v, "text") and ("spans" in v or "answer" in v), _read_prodigy, _write_prodigy),
    Kind("label-studio", "Label Studio JSON-MIN", _is_json_min, _read_json_min),
)  # fmt: skip
"""In the order in which they are tried."""
