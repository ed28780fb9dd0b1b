"""Every example of docs/data-formats.md is read by the real readers, as what the page says; and what real exports hold beside the plain case."""

import json
import re
from pathlib import Path

import pytest

from curricle.errors import DataError
from curricle.families.ner.combine import combine_datasets
from curricle.families.ner.formats import Seen, iter_pieces, load_records, split_file
from curricle.families.ner.prepare import fingerprint, prepare

PAGE = Path(__file__).parents[3] / "docs/data-formats.md"
BLOCK = re.compile(r"((?:```(?:json|jsonl|conll|text)[^\n]*\n.*?```\n)+)Recognised as: ([^\n]+)\n", re.DOTALL)
PART = re.compile(r"```(\S+) ?(\S*)\n(.*?)```", re.DOTALL)
EXAMPLES = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
WORDS = [[("Anna Miller", "PER"), ("Köln", "LOC")], [], [("Bo", "PER"), ("Oslo", "LOC")]]


def written(folder: Path, blocks: str) -> Path:
    parts = PART.findall(blocks)
    if parts[0][0] == "text":
        for _, name, content in parts:
            (folder / name).write_text(content, encoding="utf-8")
        return folder
    ((kind, _, content),) = parts
    (folder / f"train.{kind}").write_text(content, encoding="utf-8")
    return folder / f"train.{kind}"


def read(path: Path) -> tuple[list[list[tuple[str, str]]], Seen]:
    seen = Seen()
    rows = [piece.record for piece in iter_pieces(path, seen)]
    return [[(row["text"][s:e], label) for s, e, label in row["annotations"]] for row in rows], seen


def test_the_page_has_every_layout():
    said = {what for _, what in EXAMPLES}
    assert len(EXAMPLES) == 12 and len(said) == 11, said
    assert len(re.findall("```(?:json|jsonl|conll)\n", PAGE.read_text(encoding="utf-8"))) == len(EXAMPLES) - 1


@pytest.mark.parametrize(("blocks", "what"), [pytest.param(*e, id=e[1]) for e in EXAMPLES])
def test_an_example_of_the_page_is_recognised_and_read(tmp_path, blocks, what):
    spans, seen = read(written(tmp_path, blocks))
    assert (spans, seen.what) == (WORDS[: len(spans)], what) and spans
    assert "BRAT" in what or len(spans) == 3


@pytest.mark.parametrize(("blocks", "what"), [pytest.param(*e, id=e[1]) for e in EXAMPLES])
def test_a_dataset_of_any_layout_is_combined_and_prepared(tmp_path, caplog, blocks, what):
    """As if its records stood there as the seed writes them."""
    from curricle.families.ner.config import NerConfig, NerData

    folder, plain = tmp_path / "data", tmp_path / "plain"
    (folder / "train" if "BRAT" in what else folder).mkdir(parents=True)
    path = written(folder / "train" if "BRAT" in what else folder, blocks)
    assert split_file(folder, "train") == path
    plain.mkdir()
    rows = [{k: row[k] for k in ("text", "annotations")} for row in load_records(path)]
    if len(rows) == 1:  # BRAT
        (path / "2.txt").write_text("Bo left.")
        (path / "2.ann").write_text("")
        rows += [{"text": "Bo left.", "annotations": []}]
    (plain / "train.json").write_text(json.dumps(rows))
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.json").write_text(json.dumps([{"text": "Eva sings", "annotations": [[0, 3, "PER"]]}]))
    made = [
        combine_datasets(other, source, "append", 0.4, 1, output_dir=tmp_path / f"out-{source.name}")
        for source in (folder, plain)
    ]
    texts = [[{k: row[k] for k in ("text", "annotations")} for row in m["train"]] for m in made]
    assert texts[0] == texts[1] and len(texts[0]) == (len(rows) + 1) - len(made[0]["validation"])
    assert made[0].report["files"]["new " + path.name] == what
    lines = load_records(tmp_path / "out-data/train.jsonl")
    assert [row["text"] for row in lines] == [row["text"] for row in texts[0]] and {row["origin"] for row in lines} <= {
        "old",
        "new",
    }
    config = NerConfig(data=NerData(new_dataset_path=str(folder), validation_ratio=0.4))
    before = fingerprint(config)
    facts = prepare(config, tmp_path / "prepared")
    assert facts["labels"] == ["LOC", "PER"] and facts["files"] == {"new " + path.name: what}
    assert ("is read as" in caplog.text) == ("records (text" not in what) and (what in caplog.text) == (
        "records (text" not in what
    )
    assert ("× BRAT lines that annotate no text" in caplog.text) == ("BRAT" in what)
    target = path / "1.ann" if path.is_dir() else path
    target.write_bytes(target.read_bytes().replace(b"LOC", b"GPE"))
    assert fingerprint(config) != before


JUNK = (None, True, -1, 2.5, "", "x", [], {}, [[]], [{}], {"a": 1}, [1, 2, "X"], 10**30, "\ud800")


def places(value, at=()):
    """The path of every value within a value."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


@pytest.mark.parametrize(("blocks", "what"), [pytest.param(*e, id=e[1]) for e in EXAMPLES if e[1].startswith("JSON")])
def test_any_value_anywhere_is_read_or_refused_in_one_sentence(tmp_path, blocks, what):
    ((kind, _, content),) = PART.findall(blocks)
    rows = json.loads(content) if kind == "json" else [json.loads(line) for line in content.splitlines()]
    path, refused = tmp_path / f"train.{kind}", 0
    for at in [at for at in places(rows) if at]:
        for junk in JUNK:
            damaged = json.loads(json.dumps(rows))
            inner = damaged
            for key in at[:-1]:
                inner = inner[key]
            inner[at[-1]] = junk
            path.write_text(json.dumps(damaged) if kind == "json" else "\n".join(map(json.dumps, damaged)))
            try:
                load_records(path)
            except DataError as error:
                assert f"{path}, record " in str(error)
                refused += 1
    assert refused > 50


def one(tmp_path, value, name="train.json"):
    (tmp_path / name).write_text(json.dumps(value))
    return load_records(tmp_path / name)


TASK = {"id": 4, "data": {"text": "Bo 👩 Oslo", "site": "x"}, "annotations": []}


def result(start, end, text, *labels):
    return {"type": "labels", "value": {"start": start, "end": end, "text": text, "labels": list(labels)}}


def test_of_the_annotations_of_a_task_ground_truth_goes_first_and_cancelled_ones_do_not_count(tmp_path):
    first, true = [result(0, 2, "Bo", "A")], [result(0, 2, "Bo", "B"), {"type": "choices", "value": {"choices": ["x"]}}]
    answers = [{"was_cancelled": True, "result": first}, {"result": first}, {"ground_truth": True, "result": true}]
    tasks = [TASK | {"annotations": answers[:n]} for n in (1, 2, 3)] + [TASK]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    seen = Seen()
    rows = [piece.record for piece in iter_pieces(tmp_path / "a.json", seen)]
    assert [row["annotations"] for row in rows] == [[[0, 2, "A"]], [[0, 2, "B"]]]
    assert seen.left_out == {"Label Studio task without annotation": 2}
    assert rows[0] | {"annotations": 0} == {"text": "Bo 👩 Oslo", "annotations": 0, "id": 4, "site": "x"}


def test_offsets_in_utf_16_units_are_seen_by_the_text_beside_them(tmp_path):
    units = [TASK | {"annotations": [{"result": [result(6, 10, "Oslo", "LOC", "GPE")]}]}]
    assert one(tmp_path, units)[0]["annotations"] == [[5, 9, "LOC"], [5, 9, "GPE"]]
    characters = [TASK | {"annotations": [{"result": [result(5, 9, "Oslo", "LOC")]}]}]
    assert one(tmp_path, characters)[0]["annotations"] == [[5, 9, "LOC"]]


def test_rejected_examples_are_left_out_and_counted_where_datasets_are_combined(tmp_path):
    rows = [
        {"text": t, "spans": [], "answer": a}
        for t, a in (("one", "accept"), ("two", "reject"), ("six", "ignore"), ("ten", "accept"))
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = combine_datasets(None, tmp_path, "new_only", 0.5, 1)
    assert made.report["dropped"]["not accepted in Prodigy"] == 2
    assert {row["text"] for part in made.values() for row in part} == {"one", "ten"}


def test_numbered_tags_take_their_names_from_the_features(tmp_path):
    row = [{"tokens": ["Bo", "left"], "ner_tags": [1, 0]}]
    with pytest.raises(DataError, match=r"train.json, record 1: ner_tags holds numbers, and nothing names them"):
        one(tmp_path, row)
    feature = {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "_type": "Sequence"}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": {"ner_tags": feature}}))
    assert one(tmp_path, row)[0]["annotations"] == [[0, 2, "PER"]]
    with pytest.raises(DataError, match=r"record 1: ner_tags holds 2, and the features name 2 tags"):
        one(tmp_path, [{"tokens": ["Bo"], "ner_tags": [2]}])


@pytest.mark.parametrize("kind", ["stream", "file", "parquet"])
def test_the_files_of_datasets_bring_their_features(tmp_path, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"ner_tags": {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}, "_type": "List"}}
    table = pa.table({"tokens": [["Bo", "left"]], "ner_tags": [[1, 0]]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder = tmp_path / "train"
    folder.mkdir()
    path = folder / "data-00000-of-00001.arrow" if kind != "parquet" else tmp_path / "train.parquet"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        opened = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as writer:
            writer.write_table(table)
    spans, seen = read(split_file(tmp_path, "train"))
    assert spans == [[("Bo", "PER")]] and seen.what.startswith("Hugging Face")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"text": "a", "spans": []}, {"text": "b", "label": []}]', "record 2: Prodigy .text, spans. was expected, as before, and this is doccano"),
        ("a.json", '[["a", {"entities": []}], {"text": 1}]', r"record 2: spaCy's .* was expected, as before, not an object"),
        ("a.jsonl", '["a", {"entities": []}]\n["b", {"entities": [[0, 9, "X"]]}]', r"record 2: annotation 1 \[0, 9, 'X'\] does not lie inside"),
        ("a.json", '[{"data": {"a": "x", "b": "y"}, "annotations": [{"result": []}]}]', "record 1: which of a, b is the text"),
        ("a.json", '[{"data": {"text": "x"}, "annotations": [{"result": [{"value": {"labels": ["A"]}}]}]}]', "record 1: a region's start and end are numbers"),
        ("a.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O"]}', "record 1: 2 tokens and 1 ner_tags"),
        ("a.jsonl", '{"tokens": ["a"], "ner_tags": ["PER"]}', 'record 1: ner_tags holds "PER"; O, B-x'),
        ("a.json", '[{"text": "a", "annotations": [{"start": 0, "end": 1}]}]', "record 1: annotation 1 must be .start, end, label., not an object"),
        ("a.parquet", "PAR1 and nothing else", "not a file that Arrow reads"),
        ("a.txt", "[ O\n] B-\n", "record 1 .byte 0.: line '. B-': a token and a tag were expected"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_record(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        load_records(tmp_path / name)


def test_brackets_and_braces_begin_a_token_file_too(tmp_path):
    for content in ("[ O\nBo B-PER\n", "{ O\nBo B-PER\n", '["\tO\nBo\tB-PER\n'):
        (tmp_path / "a.txt").write_text(content)
        assert read(tmp_path / "a.txt")[0] == [[("Bo", "PER")]]


def test_a_brat_pair_without_its_text_or_with_a_broken_line_is_named(tmp_path):
    (tmp_path / "1.ann").write_text("T1\tPER 0\n")
    with pytest.raises(DataError, match="record 1: 1.txt is not there beside 1.ann"):
        load_records(tmp_path)
    (tmp_path / "1.txt").write_text("Bo left Oslo")
    with pytest.raises(DataError, match=r"1.ann, record 1: line 'T1\\tPER 0'"):
        load_records(tmp_path)
    (tmp_path / "1.ann").write_text("T1\tPER 0 2;8 12\tBo Oslo\nR1\tx Arg1:T1 Arg2:T1\n")
    spans, seen = read(tmp_path)
    assert spans == [[("Bo left Oslo", "PER")]] and seen.left_out.total() == 2
