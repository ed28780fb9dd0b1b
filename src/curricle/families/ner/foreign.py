"""Datasets that are no text file of records: BRAT folders, spaCy's DocBin, and the Parquet and Arrow files of Hugging Face `datasets`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from curricle.errors import DataError, MissingDataError
from curricle.families.ner.kinds import TAG_COLUMNS, LeftOut, Odd, checked_edges, kind_of
from curricle.families.ner.tokens import tagged, without_overlaps
from curricle.store.strict import read_json

BINARY = {b"PAR1": "Hugging Face Parquet", b"ARROW1": "Hugging Face Arrow"}
_ENTITY = re.compile(
    r"T[^\t]*\t(?P<label>\S+) (?P<places>\d{1,18} \d{1,18}(?:;\d{1,18} \d{1,18})*) *(?:\t(?P<text>.*))?"
)
"""A line of a BRAT file that annotates text."""


def foreign_kind(path: Path) -> str:
    """Which of these a path is, for people; empty for none of them."""
    if path.is_dir():
        if any(path.glob("*.arrow")):
            return "Hugging Face dataset folder"
        return "BRAT folder (.txt, .ann)" if any(path.glob("*.ann")) else ""
    if path.suffix == ".spacy":
        return "spaCy DocBin"
    with path.open("rb") as file:
        head = file.read(6)
    if path.suffix == ".arrow":
        return "Hugging Face Arrow"
    return next((name for mark, name in BINARY.items() if head.startswith(mark)), "")


def read_foreign(path: Path, left_out: Counter[str], notes: Counter[str]) -> Iterator[dict[str, Any]]:
    """The records of such a file or folder, not yet checked.

    Args:
        left_out: is added what is no record, or no span, by the rules of the tool.
        notes: is added what people should know of how the others were read.

    Raises:
        DataError: it is damaged; names file and record.
        MissingDataError: spaCy is not installed, and the file is its.
    """
    kind = foreign_kind(path)
    if kind.startswith("BRAT"):
        yield from _read_brat(path, left_out, notes)
    elif kind.startswith("spaCy"):
        yield from _read_docbin(path)
    else:
        yield from _read_arrow(path, left_out, notes)


def _read_brat(folder: Path, left_out: Counter[str], notes: Counter[str]) -> Iterator[dict[str, Any]]:
    alone = sum(not place.with_suffix(".ann").is_file() for place in folder.glob("*.txt"))
    left_out["texts without an .ann file beside them"] += alone
    below = {place.parent for place in folder.rglob("*.ann")} - {folder}
    left_out["sub-folders with .ann files, which are not read: give each alone, or move its pairs up"] += len(below)
    for number, place in enumerate(sorted(folder.glob("*.ann")), 1):
        text_file = place.with_suffix(".txt")
        if not text_file.is_file():
            raise DataError(f"{folder}, record {number}: {text_file.name} is not there beside {place.name}")
        texts = []
        for file in (text_file, place):
            try:
                texts.append(file.read_bytes().decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{file}, record {number} (byte {error.start}): not UTF-8 text") from None
        marked: list[tuple[list[int], str | None]] = []
        labels = []
        for line in texts[1].split("\n"):
            if not line.startswith("T"):
                left_out["BRAT lines that annotate no text (relations, events, notes)"] += bool(line.strip())
                continue
            match = _ENTITY.fullmatch(line.removesuffix("\r"))
            if not match:
                raise DataError(f"{place}, record {number}: line {line[:80]!r}: T1, label, start and end were expected")
            edges = [int(edge) for edge in re.findall(r"\d+", match["places"])]
            notes["BRAT annotations in pieces, taken from first to last"] += len(edges) > 2
            marked.append((edges, match["text"]))
            labels.append(match["label"])
        try:
            found = checked_edges(texts[0], marked, notes)
        except Odd as problem:
            raise DataError(f"{place}, record {number}: {problem}") from None
        spans = [[min(edges), max(edges), label] for edges, label in zip(found, labels, strict=True)]
        yield {"text": texts[0], "annotations": spans}


def write_brat(records: Iterable[dict[str, Any]], folder: Path, losses: Counter[str]) -> None:
    """A ``.txt`` and an ``.ann`` file a record, named by its number."""
    for number, record in enumerate(records, 1):
        text = record["text"]
        (folder / f"{number:06}.txt").write_bytes(text.encode())
        lines = []
        for nth, (start, end, label) in enumerate(record["annotations"], 1):
            plain = re.sub(r"\s", "_", label)
            losses["labels with white space, which becomes _"] += plain != label
            shown = re.sub(r"[\t\r\n]", " ", text[start:end])
            lines.append(f"T{nth}\t{plain} {start} {end}\t{shown}\n")
        (folder / f"{number:06}.ann").write_bytes("".join(lines).encode())
        losses["further keys of records"] += len(record) > 2


def _spacy() -> Any:
    try:
        import spacy.tokens
    except ImportError:
        raise MissingDataError(
            "a DocBin is read and written by spaCy, which is not installed here: `pip install spacy`, "
            "or give the examples as [text, {entities}] in JSON"
        ) from None
    return spacy


def _read_docbin(path: Path) -> Iterator[dict[str, Any]]:
    spacy = _spacy()
    vocab = spacy.blank("xx").vocab
    try:
        docs = list(spacy.tokens.DocBin().from_disk(path).get_docs(vocab))
    except Exception as error:  # what stands in a file can make the library fail in any way
        raise DataError(f"{path}: not a DocBin that spaCy {spacy.__version__} reads: {str(error)[:200]}") from None
    for doc in docs:
        yield {"text": doc.text, "annotations": [[e.start_char, e.end_char, e.label_] for e in doc.ents]}


def write_docbin(records: Iterable[dict[str, Any]], path: Path, losses: Counter[str]) -> None:
    """A DocBin; its tokens are words, and end where annotations do."""
    spacy = _spacy()
    vocab, packed = spacy.blank("xx").vocab, spacy.tokens.DocBin()
    for record in records:
        text = record["text"]
        spans, overlapping = without_overlaps([(s, e, label) for s, e, label in record["annotations"]])
        losses["overlapping annotations, of which the longest stays"] += overlapping
        losses["further keys of records"] += len(record) > 2
        words, spaces = _words_and_spaces(text, {edge for start, end, _ in spans for edge in (start, end)})
        doc = spacy.tokens.Doc(vocab, words, spaces)
        found = [doc.char_span(start, end, label) for start, end, label in spans]
        doc.ents = [span for span in found if span is not None and span.text.strip() == span.text]
        losses["annotations with white space at an edge"] += len(spans) - len(doc.ents)
        packed.add(doc)
    packed.to_disk(path)


def _words_and_spaces(text: str, borders: set[int]) -> tuple[list[str], list[bool]]:
    """Words that make up the text with the blanks behind them; further white space is a word of its own."""
    words: list[str] = []
    spaces: list[bool] = []
    for piece in re.finditer(r"\w+|[^\w\s]|\s", text):
        if piece[0] == " " and words and not spaces[-1] and not words[-1].isspace():
            spaces[-1] = True
            continue
        cuts = [piece.start(), *sorted(b for b in borders if piece.start() < b < piece.end()), piece.end()]
        for start, end in zip(cuts, cuts[1:], strict=False):
            words.append(text[start:end])
            spaces.append(False)
    return words, spaces


def _read_arrow(path: Path, left_out: Counter[str], notes: Counter[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    number = 0
    for file in sorted(path.glob("*.arrow")) if path.is_dir() else [path]:
        try:
            schema, batches = _opened(file)
            for value in (value for batch in batches for value in batch.to_pylist()):
                number += 1
                try:
                    yield kind_of(value).read(value, features_in(schema, file), notes)
                except LeftOut as reason:
                    left_out[str(reason)] += 1
                except Odd as problem:
                    raise DataError(f"{file}, record {number}: {problem}") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{file}: not a file that Arrow reads: {str(error)[:200]}") from None


def _opened(file: Path) -> tuple[Any, Iterator[Any]]:
    """Schema and record batches of a Parquet file, an Arrow file or an Arrow stream."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with file.open("rb") as opened:
        head = opened.read(6)
    if head.startswith(b"PAR1"):
        parquet = pq.ParquetFile(file)
        return parquet.schema_arrow, parquet.iter_batches(1000)
    mapped = pa.memory_map(str(file))
    if head != b"ARROW1":
        stream = pa.ipc.open_stream(mapped)
        return stream.schema, iter(stream)
    whole = pa.ipc.open_file(mapped)
    return whole.schema, (whole.get_batch(i) for i in range(whole.num_record_batches))


def features_in(schema: Any, file: Path) -> Callable[[str], list[str]]:
    """The names of tags that are numbers, as `datasets` leaves them in a file's schema, else in files beside it."""

    def names(column: str) -> list[str]:
        said = (schema.metadata or {}).get(b"huggingface")
        features = json.loads(said).get("info", {}).get("features", {}) if said else {}
        return _class_names(features.get(column)) or features_beside(file)(column)

    return names


def features_beside(file: Path) -> Callable[[str], list[str]]:
    """The same from ``dataset_info.json`` or ``dataset_infos.json`` in the file's folder or the one above."""

    def names(column: str) -> list[str]:
        for folder in (file.parent, file.parent.parent):
            for place in (folder / "dataset_info.json", folder / "dataset_infos.json"):
                if not place.is_file():
                    continue
                try:
                    said = read_json(place.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise DataError(f"{place} is not JSON: {error}") from None
                for info in [said, *(said.values() if isinstance(said, dict) else ())]:
                    features = info.get("features") if isinstance(info, dict) else None
                    if isinstance(features, dict) and (found := _class_names(features.get(column))):
                        return found
        raise Odd(
            f"{column} holds numbers, and nothing names them: neither the file's own features nor a dataset_info.json beside it"
        )

    return names


def _class_names(feature: Any) -> list[str]:
    """The names of a ClassLabel, however deep it stands in a feature."""
    if isinstance(feature, list):
        feature = {"feature": feature[0]} if feature else {}
    while isinstance(feature, dict):
        if isinstance(feature.get("names"), list):
            return [str(name) for name in feature["names"]]
        feature = feature.get("feature")
    return []


def write_parquet(records: Iterable[dict[str, Any]], path: Path, fine: bool, losses: Counter[str]) -> None:
    """Tokens and numbered tags, with the features that `datasets` reads the names from."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for record in records:
        rows.append(tagged(record, fine, losses))
        losses["further keys of records"] += len(record) > 2
    tags = ["O", *sorted({tag for _, row in rows for tag in row} - {"O"}, key=lambda tag: (tag[2:], tag))]
    number = {tag: i for i, tag in enumerate(tags)}
    features = {
        "tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
        TAG_COLUMNS[0]: {"feature": {"names": tags, "_type": "ClassLabel"}, "_type": "List"},
    }
    schema = pa.schema(
        [("tokens", pa.list_(pa.string())), (TAG_COLUMNS[0], pa.list_(pa.int64()))],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    columns = [[tokens for tokens, _ in rows], [[number[tag] for tag in row] for _, row in rows]]
    pq.write_table(pa.table(columns, schema=schema), path)
