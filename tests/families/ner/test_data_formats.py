"""Every example of docs/data-formats.md is read by the real readers, as what the page says; and what real exports hold beside the plain case."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from curricle.errors import DataError
from curricle.families.ner.combine import combine_datasets
from curricle.families.ner.formats import Seen, iter_pieces, load_records, split_file
from curricle.families.ner.labels import Scheme
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


def brat(folder, text, start, end, said):
    (folder / "1.txt").write_bytes(text.encode())
    (folder / "1.ann").write_bytes(f"T1\tLOC {start} {end}\t{said}\n".encode())
    return folder


def json_of(make):
    def write(folder, text, start, end, said):
        (folder / "train.json").write_text(json.dumps([make(text, start, end, said)]))
        return folder / "train.json"

    return write


WITH_TEXT = {
    "BRAT": brat,
    "BRAT in pieces": lambda folder, text, start, end, said: brat(folder, text, f"{start} {start + 1};{start + 1}", end, f"{said[:1]} {said[1:]}"),
    "Label Studio": json_of(lambda text, *place: {"data": {"text": text}, "annotations": [{"result": [result(*place, "LOC")]}]}),
    "JSON-MIN": json_of(lambda text, *place: {"text": text, "annotation_id": 1, "x": [result(*place, "LOC")["value"]]}),
    "Prodigy": json_of(lambda text, s, e, said: {"text": text, "spans": [{"start": s, "end": e, "label": "LOC", "text": said}]}),
    "objects": json_of(lambda text, s, e, said: {"text": text, "annotations": [{"start": s, "end": e, "label": "LOC", "text": said}]}),
    "doccano": json_of(lambda text, s, e, said: {"text": text, "entities": [{"start_offset": s, "end_offset": e, "label": "LOC", "text": said}]}),
}  # fmt: skip


@pytest.mark.parametrize("form", WITH_TEXT)
def test_offsets_that_give_another_text_than_the_one_beside_them_are_refused(tmp_path, form):
    """Here a line end that is two characters was counted as one."""
    path = WITH_TEXT[form](tmp_path, "Bo left\r\nOslo and Rome.", 8, 12, "Oslo")
    with pytest.raises(DataError) as refused:
        load_records(path)
    said = str(refused.value).replace("n Osl", "nOsl").replace("O slo", "Oslo")
    assert f"{path}" in said and "record 1: the offsets 8 to 12 give '\\nOsl', and 'Oslo' stands beside them" in said


@pytest.mark.parametrize("form", WITH_TEXT)
def test_offsets_in_utf_16_units_are_seen_by_the_text_beside_them_and_said(tmp_path, form):
    seen = Seen()
    path = WITH_TEXT[form](tmp_path, "Bo 👩 Oslo", 6, 10, "Oslo")
    assert [piece.record["annotations"] for piece in iter_pieces(path, seen)] == [[[5, 9, "LOC"]]]
    assert seen.notes["records whose offsets count UTF-16 units (as JavaScript does), read as such"] == 1
    path = WITH_TEXT[form](tmp_path, "Bo 👩 Oslo", 5, 9, "Oslo")
    assert load_records(path)[0]["annotations"] == [[5, 9, "LOC"]]


def test_all_offsets_of_a_record_are_of_one_unit_and_white_space_is_no_difference(tmp_path):
    def read_one(*results):
        return one(tmp_path, [TASK | {"annotations": [{"result": list(results)}]}])[0]["annotations"]

    bare = {"value": {"start": 6, "end": 8, "labels": ["X"]}}
    assert read_one(result(6, 10, "Oslo", "LOC", "GPE"), bare) == [[5, 9, "LOC"], [5, 9, "GPE"], [5, 7, "X"]]
    assert read_one(result(5, 9, "Oslo", "LOC"), bare)[1] == [6, 8, "X"]
    assert read_one(result(4, 9, "Oslo ", "LOC"), result(0, 2, "", "PER"), bare)[0] == [4, 9, "LOC"]
    for start, end in ((-3, 2), (3, 99)):
        outside = {"value": {"start": start, "end": end, "labels": ["X"]}}
        with pytest.raises(DataError, match="does not lie inside the text"):
            read_one(result(6, 10, "Oslo", "LOC"), outside)
    with pytest.raises(DataError, match="train.json, record 1: the offsets 6 to 10 give 'slo', and 'Oslo'"):
        read_one(result(6, 10, "Oslo", "LOC"), result(5, 9, "Oslo", "LOC"))


def test_rejected_examples_are_left_out_and_counted_where_datasets_are_combined(tmp_path):
    rows = [
        {"text": t, "spans": [], "answer": a}
        for t, a in (("one", "accept"), ("two", "reject"), ("six", "ignore"), ("ten", "accept"))
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = combine_datasets(None, tmp_path, "new_only", 0.5, 1)
    assert made.report["dropped"]["not accepted in Prodigy"] == 2
    assert {row["text"] for part in made.values() for row in part} == {"one", "ten"}


def test_where_everything_is_left_out_the_message_says_why(tmp_path):
    from curricle.families.ner.config import NerConfig, NerData
    from curricle.families.ner.evaluate import tag_test
    from curricle.families.ner.export import _sample

    for split in ("validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"text": "one", "spans": [], "answer": "reject"}\n' * 2)
    (tmp_path / "train.jsonl").write_text('{"text": "Bo", "spans": [{"start": 0, "end": 2, "label": "PER"}]}')
    with pytest.raises(DataError, match=r"no validation record \(left out: 4 × not accepted in Prodigy\)"):
        prepare(NerConfig(data=NerData(new_dataset_path=str(tmp_path))), tmp_path / "out")
    tagger = SimpleNamespace(
        scheme=Scheme(("O",)),
        encode=lambda texts, spans: SimpleNamespace(windows=[], bounds=[], gold=[], unreachable=[]),
    )
    with pytest.raises(DataError, match=r"test.jsonl holds no record with text \(left out: 2 × not accepted"):
        tag_test(tagger, tmp_path)
    with pytest.raises(DataError, match=r"holds no record with text .*\(left out: 2 × not accepted"):
        _sample(tmp_path)


def test_a_folder_that_is_not_there_is_said_to_be_so(tmp_path):
    from curricle.families.ner.evaluate import tag_test
    from curricle.families.ner.export import _sample
    from curricle.families.ner.predict import calibrate

    (tmp_path / "file").touch()
    for ask in (lambda place: tag_test(None, place), lambda place: calibrate(None, place), _sample):
        with pytest.raises(DataError, match="dataset path not found: .*/nowhere is not there"):
            ask(tmp_path / "nowhere")
        with pytest.raises(DataError, match="file is a file, not a folder"):
            ask(tmp_path / "file")


def test_relations_are_left_out_and_counted(tmp_path):
    relation = {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"}
    task = TASK | {"annotations": [{"result": [result(0, 2, "Bo", "PER"), relation, relation]}]}
    doccano = {"text": "Bo", "entities": [{"label": "PER", "start_offset": 0, "end_offset": 2}], "relations": [{}, {}]}
    for value in (task, doccano):
        (tmp_path / "train.json").write_text(json.dumps([value]))
        spans, seen = read(tmp_path / "train.json")
        assert spans == [[("Bo", "PER")]] and seen.notes["relations, left out"] == 2
    with pytest.raises(DataError, match="has an object `value`"):
        one(tmp_path, [TASK | {"annotations": [{"result": [{"type": "labels"}]}]}])


def test_texts_and_folders_that_are_no_brat_pair_are_counted(tmp_path):
    for place in ("a/1", "a/b/2", "c/3"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".txt", ".ann"):
            (tmp_path / place).with_suffix(suffix).touch()
    with pytest.raises(
        DataError, match=r"neither .ann nor .arrow files; sub-folders are not read .a, a/b, c.: give each"
    ):
        load_records(tmp_path)
    for name in ("1.txt", "1.ann", "2.txt", "README.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "1.txt").write_text("Bo")
    spans, seen = read(tmp_path)
    assert spans == [[]] and sorted(filter(None, seen.left_out.values())) == [2, 3]
    assert "sub-folders" in str(seen.left_out) and "without an .ann file" in str(seen.left_out)


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
        *(("a.json", json.dumps([{"text": "a b", "annotations": [[0, 1, "X"], [2, 3, label]]}]),
           f"record 1: annotation 2 has the label '{label}', which looks like a tag; labels are plain names") for label in ("O", "B-", "I-", "B-PER", " O ")),
        ("a.json", '[{"text": "a", "annotations": [[0, 1, " "]]}]', "record 1: annotation 1 has the label ' ', which holds .* nothing that can be seen"),
        ("a.jsonl", '{"text": "a", "label": [[0, 1, "O"]]}', "record 1: annotation 1 has the label 'O', which looks like a tag"),
        ("a.conll", "Bo B-O", "record 1: annotation 1 has the label 'O', which looks like a tag"),
        ("a.parquet", "PAR1 and nothing else", "not a file that Arrow reads"),
        ("a.txt", "[ O\n] B-\n", "record 1 .byte 0.: line '. B-': a token and a tag were expected"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_record(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        load_records(tmp_path / name)


GERMEVAL = "#\thttp://x/y [2009-10-17]\n1\tAnna\tO\tB-PER\n2\tlebt\tO\tO\n\n#\thttp://z [2009]\n1\tBo\tO\tB-PER\n\n1\t1\tO\tO\n2\tist\tO\tO\n"
CONLL_U = "# newdoc\n# text = Anna im Ort\n" + "\n".join(
    "\t".join([number, form, "_", "X", "_", "_", "0", "dep", "_", tag])
    for number, form, tag in (("1", "Anna", "B-PER"), ("2-3", "im", "O"), ("2", "in", "O"), ("3", "dem", "O"), ("3.1", "ist", "_"), ("4", "Ort", "B-LOC"))
)  # fmt: skip


@pytest.mark.parametrize(
    ("content", "texts", "spans"),
    [
        (GERMEVAL, ["Anna lebt", "Bo", "1 ist"], [[("Anna", "PER")], [("Bo", "PER")], []]),
        (GERMEVAL.replace("\n", "\r\n"), ["Anna lebt", "Bo", "1 ist"], [[("Anna", "PER")], [("Bo", "PER")], []]),
        (CONLL_U, ["Anna in dem Ort"], [[("Anna", "PER"), ("Ort", "LOC")]]),
        ("0 Bo B-PER\n1 left O\n\n2 Eva B-PER\n3 left O", ["Bo left", "Eva left"], [[("Bo", "PER")], [("Eva", "PER")]]),
    ],
    ids=["germeval", "crlf", "conll-u", "on through the file"],
)  # fmt: skip
def test_a_first_column_that_counts_is_no_token_and_that_is_said(tmp_path, content, texts, spans):
    (tmp_path / "train.tsv").write_bytes(content.encode())
    found, seen = read(tmp_path / "train.tsv")
    assert (found, [r["text"] for r in load_records(tmp_path / "train.tsv")]) == (spans, texts)
    (note,) = [why for why, count in seen.notes.items() if count == len(texts)]
    assert "the second one is the token" in note
    assert seen.left_out.total() == (2 if content is CONLL_U else 0)
    made = combine_datasets(None, tmp_path, "new_only", 0.5, 1, create_new_validation=False)
    assert {row["text"] for row in made["train"]} == set(texts) and note in str(made.report["notes"])


def test_numbers_that_are_tokens_stay_and_those_that_are_nothing_are_refused(tmp_path):
    path = tmp_path / "train.conll"

    def texts(content):
        path.write_text(content)
        return [row["text"] for row in load_records(path)]

    assert texts("1 CD O\n2 CD O\n\nBo NNP B-PER\n") == ["1 2", "Bo"]
    assert texts("1 O\n2 O\n") == ["1 2"] and texts("1 CD O\n") == ["1"]
    assert texts("1 Bo B-PER\n2 left O\n\n1 . O\n") == ["Bo left", "."]
    with pytest.raises(
        DataError, match=r"train.conll, sentence 1: the first column holds numbers alone .1, 2, 1, 2., "
    ):
        texts("1 Bo B-PER\n2 left O\n1 Eva B-PER\n2 left O\n")
    many = "1 Bo B-PER\n2 left O\n\n" * 100
    with pytest.raises(
        DataError, match=r"record 101 .*the first column counts the tokens in the first .*not here .1, 3"
    ):
        texts(many + "1 Bo B-PER\n3 left O\n")
    with pytest.raises(DataError, match="record 1 .*a token and a tag were expected after the token's number"):
        texts("1 Bo PERSON\n2 left O\n")
    path.write_text("1\tAnna\tB-PER\tO\n2\tlebt\tO\tO\n")
    found, seen = read(path)
    assert found == [[]] and seen.notes["sentences with tags in two columns, of which the last one is read"] == 1


def test_a_line_that_begins_with_a_hash_and_has_no_tag_is_a_comment(tmp_path):
    for comment in ("#\thttp://x [2009]", "#\t", "# a b", "#"):
        (tmp_path / "a.tsv").write_text(f"{comment}\nBo\tB-PER\n#\tO\n")
        assert load_records(tmp_path / "a.tsv")[0]["text"] == "Bo #"
    for token in ("#golang", "#golang\tNN"):
        (tmp_path / "a.tsv").write_text(f"Bo\tB-PER\n{token}\n")
        with pytest.raises(DataError, match="a token and a tag were expected"):
            load_records(tmp_path / "a.tsv")


def test_brackets_and_braces_begin_a_token_file_too(tmp_path):
    for content in ("[ O\nBo B-PER\n", "[] O\nBo B-PER\n", "{ O\nBo B-PER\n", '["\tO\nBo\tB-PER\n'):
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
    assert spans == [[("Bo left Oslo", "PER")]] and (seen.left_out.total(), seen.notes.total()) == (1, 1)
