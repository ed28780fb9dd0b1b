"""Converting: what is written is read back, for every format, on real and on generated records; what does not fit is counted."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curricle.errors import DataError, OutputError
from curricle.families.ner.convert import convert
from curricle.families.ner.formats import load_records
from curricle.families.ner.labels import label_problem

EXACT = ("seed", "jsonl", "label-studio", "doccano", "prodigy", "spacy")
"""Formats that hold everything."""
TOKENS = ("conll", "hf", "hf.parquet")
FILES = {"hf.parquet": ("hf", "out.parquet"), "docbin": ("spacy", "out.spacy")}
PLAIN = ("text", "annotations")

labels = st.text(string.ascii_letters + "-_é ", min_size=1, max_size=6).filter(lambda x: not label_problem(x))
texts = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(["Anna", "in", "Köln,", "(東京)", "#", "x\u00a0y", "👩‍💻", "-DOCSTART-", "[", "U.S."])
    ).map(" ".join),
)
further = st.dictionaries(
    st.sampled_from(["id", "meta", "tokens", "label", "spans", "answer", "data", "entities", "ner_tags", "relations"]),
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.text(max_size=3), max_size=2)),
    max_size=2,
)


@st.composite
def records(draw, key=further):
    text, spans = draw(texts), []
    if text:
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.integers(0, len(text) - 1))
            spans.append([start, draw(st.integers(start + 1, len(text))), draw(labels)])
    return {"text": text, "annotations": spans} | draw(key)


def there_and_back(folder: Path, rows, target):
    """What comes back, and what was counted."""
    for old in folder.glob("*"):
        old.unlink() if old.is_file() else [old_file.unlink() for old_file in old.iterdir()] and old.rmdir()
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name, file = FILES.get(target, (target, f"out-{target}"))
    made = convert(folder / "in.jsonl", folder / file, name)
    assert (made.records, made.annotations) == (len(rows), sum(len(row["annotations"]) for row in rows))
    return load_records(folder / file), {why for why, count in made.losses.items() if count}


GENERATED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("target", EXACT)
@GENERATED
@given(
    rows=st.lists(
        records(st.dictionaries(st.sampled_from(["id", "meta"]), st.text(max_size=5))), min_size=1, max_size=4
    )
)
def test_generated_records_come_back_as_they_were(tmp_path, target, rows):
    assert there_and_back(tmp_path, rows, target) == (rows, set())


@pytest.mark.parametrize("target", [*EXACT, "brat"])
@GENERATED
@given(rows=st.lists(records(), min_size=1, max_size=4))
def test_texts_and_annotations_come_back_whatever_else_a_record_holds(tmp_path, target, rows):
    back, lost = there_and_back(tmp_path, rows, target)
    assert [row["text"] for row in back] == [row["text"] for row in rows]
    wanted = [
        [[s, e, "_".join(label.split(" ")) if target == "brat" else label] for s, e, label in row["annotations"]]
        for row in rows
    ]
    assert [row["annotations"] for row in back] == wanted
    assert bool(lost) == (back != rows)


@pytest.mark.parametrize("target", TOKENS)
@GENERATED
@given(rows=st.lists(records(), min_size=1, max_size=4))
def test_tokens_hold_a_record_whole_exactly_where_nothing_is_counted(tmp_path, target, rows):
    try:
        back, lost = there_and_back(tmp_path, rows, target)
    except DataError as error:  # a CoNLL file of texts without a word holds no record
        assert target == "conll" and not any(row["text"].split() for row in rows), error
        return
    same = [{**row, "annotations": sorted(row["annotations"])} for row in rows]
    assert bool(lost) == (back != same)
    assert there_and_back(tmp_path, back, target) == (back, set())


@pytest.mark.parametrize("target", [*EXACT, *TOKENS, "brat"])
@pytest.mark.parametrize("name", ["wnut17", "crossner/science", "skillspan/house"])
def test_real_records_come_back(tmp_path, shared, name, target):
    """These texts are tokenised, so the token formats hold them whole, but for annotations that overlap."""
    rows = load_records(shared / "data/ner" / name / "validation.json")[:300]
    overlaps = name.startswith("skillspan")
    if target in EXACT:
        assert there_and_back(tmp_path, rows, target) == (rows, set())
        return
    rows = [{key: row[key] for key in PLAIN} for row in rows]
    back, lost = there_and_back(tmp_path, rows, target)
    if target == "brat" or not overlaps:
        assert (back, lost) == (rows, set())
        return
    assert lost == {"overlapping annotations, of which the longest stays"}
    assert [row["text"] for row in back] == [row["text"] for row in rows]
    assert all(span in row["annotations"] for row, got in zip(rows, back, strict=True) for span in got["annotations"])


def test_what_raw_files_of_others_say_is_what_the_shared_records_say(tmp_path, shared):
    raw = shared / "data/ner/wnut17/raw/wnut17train.conll"
    convert(raw, tmp_path / "out.jsonl", "jsonl")
    wanted = {(row["text"], len(row["annotations"])) for row in load_records(shared / "data/ner/wnut17/train.json")}
    found = {(row["text"], len(row["annotations"])) for row in load_records(tmp_path / "out.jsonl")}
    assert len(found & wanted) > 0.95 * len(wanted)


def test_tokens_do_not_give_the_annotations_away(tmp_path):
    """In a file with an annotation beside punctuation every punctuation mark is a token, else none is."""
    rows = [
        {"text": "Bo's in (Oslo), not.", "annotations": []},
        {"text": "In Rome, too.", "annotations": [[3, 7, "LOC"]]},
    ]
    back, lost = there_and_back(tmp_path, rows, "conll")
    assert [row["text"] for row in back] == ["Bo ' s in ( Oslo ) , not .", "In Rome , too ."]
    assert lost == {"texts whose white space becomes one blank between tokens"}
    assert there_and_back(tmp_path, rows[:1], "conll") == (rows[:1], set())


def test_strict_writes_nothing_where_something_would_be_lost(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps([{"text": "Bo left", "annotations": [[0, 2, "A"], [0, 7, "B"]]}]))
    for target in ("conll", "hf"):
        with pytest.raises(
            DataError, match=r"in.json does not fit into .* nothing was written: 1 × overlapping annotations"
        ):
            convert(tmp_path / "in.json", tmp_path / "out", target, strict=True)
    convert(tmp_path / "in.json", tmp_path / "brat", "brat", strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brat", "in.json"]


@pytest.mark.parametrize("target", ["seed", "conll", "brat", "hf"])
def test_nothing_is_overwritten_and_a_wrong_input_writes_nothing(tmp_path, target):
    good, bad, out = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "out"
    good.write_text('[{"text": "Bo", "annotations": []}]')
    bad.write_text('[{"text": "Bo", "annotations": []}, {"text": "Bo", "annotations": [[0, 9, "X"]]}]')
    for taken in (good, bad, tmp_path):
        before = taken.read_bytes() if taken.is_file() else b""
        with pytest.raises(OutputError, match="is there already, and is not overwritten"):
            convert(good, taken, target)
        assert taken.is_dir() or taken.read_bytes() == before
    with pytest.raises(DataError, match="bad.json, record 2: annotation 1"):
        convert(bad, out, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "good.json"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.json", "", "is empty"),
        ("in.json", "[]", "in.json, read as JSON array, holds no record"),
        ("in.txt", " [ ]\n", "read as JSON array, holds no record"),
        ("in.jsonl", "\n", "read as JSON Lines, holds no record"),
        ("in.txt", "\n", "read as CoNLL, holds no record"),
        ("in.json", "{", "not JSON"),
        (
            "in.json",
            '[{"text": "a", "spans": [], "answer": "reject"}]',
            r"read as JSON array, Prodigy .*, holds no record \(left out: 1 × not accepted in Prodigy\); nothing was written",
        ),
    ],
)
def test_an_input_without_a_record_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / name, tmp_path / "out", "jsonl")
    with pytest.raises(DataError, match="none is not there"):
        convert(tmp_path / "none", tmp_path / "out", "jsonl")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["lines.jsonl", "tokens.conll"])
def test_a_large_file_is_converted_with_the_memory_of_a_record(tmp_path, name):
    import tracemalloc

    sentence = " ".join(f"word{i}" for i in range(50))
    row = json.dumps({"text": sentence, "annotations": [[0, 5, "X"]]})
    block = f"{row}\n" if name == "lines.jsonl" else "\n".join(f"{w} O" for w in sentence.split()) + "\n\n"
    (tmp_path / name).write_text(block * 700)
    tracemalloc.start()
    convert(tmp_path / name, tmp_path / "out", "conll")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out").stat().st_size > 300_000 and peak < 150_000


def test_a_docbin_is_read_and_written_by_spacy_and_missed_in_one_sentence(tmp_path):
    try:
        import spacy  # noqa: F401
    except ImportError:
        (tmp_path / "train.spacy").write_bytes(b"x")
        for source, out in (("train.spacy", "out.json"), ("in.json", "out.spacy")):
            (tmp_path / "in.json").write_text('[{"text": "Bo", "annotations": []}]')
            with pytest.raises(DataError, match="spaCy, which is not installed here: `pip install spacy`"):
                convert(tmp_path / source, tmp_path / out, "spacy")
            assert not (tmp_path / out).exists()
        return
    rows = [
        {
            "text": "Anna  lives\nin Köln, (東京) 👩‍💻.",
            "annotations": [[0, 4, "PER"], [15, 19, "LOC"], [22, 24, "GPE"]],
        },
        {"text": " Oslo U.S.A ", "annotations": [[1, 5, "LOC"], [6, 11, "a b"]]},
        {"text": "", "annotations": []},
    ]
    assert there_and_back(tmp_path, rows, "docbin") == (rows, set())


def test_an_input_that_cannot_be_read_is_named_and_not_the_output(tmp_path):
    (tmp_path / "brat").mkdir()
    (tmp_path / "brat/a.ann").touch()
    (tmp_path / "brat/a.txt").symlink_to("/proc/self/mem")  # it opens, and reading fails
    with pytest.raises(DataError, match="brat cannot be read: Input/output error"):
        convert(tmp_path / "brat", tmp_path / "out.json", "jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["brat"]
