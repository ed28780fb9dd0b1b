"""Preparing the data and reading it back."""

import json

import pytest

from curricle.errors import DataError
from curricle.families.codes.config import CodesConfig, CodesData, Curriculum
from curricle.families.codes.prepare import CodeTable, load, prepare
from curricle.families.codes.sources import fingerprint
from curricle.families.codes.texts import check_no_leak


def config(source, **data) -> CodesConfig:
    return CodesConfig(
        family="naics", data=CodesData(source=str(source), **data), curriculum=Curriculum(name="01_stage")
    )


def records(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_census_prepares_to_2125_codes_with_four_channels(shared, tmp_path):
    facts = prepare(config(shared / "data" / "naics2022"), tmp_path)
    assert {k: facts[k] for k in ("codes", "with_title", "with_description", "with_examples", "with_exclusions")} == {
        "codes": 2125, "with_title": 2125, "with_description": 2111, "with_examples": 1075, "with_exclusions": 1095,
    }  # fmt: skip
    assert (facts["entry_train"], facts["entry_validation"], facts["entry_test"]) == (16_224, 988, 2705)
    table = load(tmp_path)
    check_no_leak(table.texts)
    assert len(table.codes) == 2125 and len(table.leaves) == 1012
    assert sum(map(len, table.excluded)) == table.excluded_mask.sum()


@pytest.fixture(scope="module")
def hidden(shared, tmp_path_factory) -> CodeTable:
    """The Census with 100 codes hidden."""
    place = tmp_path_factory.mktemp("hidden")
    prepare(config(shared / "data" / "naics2022", hidden_codes=100), place)
    return load(place)


def test_no_examples_of_the_census_hold_an_evaluation_entry(hidden):
    table = hidden
    held_out = {t.text.lower() for t in table.texts if t.split != "train" and t.kind == "entry"}
    shown = {part.strip().lower() for text in table.channels["examples"] if text for part in text.split(";")}
    assert len(held_out) > 5000 and len(shown) > 10_000
    assert not shown & held_out


def test_the_demo_prepares_and_says_that_its_entries_are_made_up(tmp_path):
    facts = prepare(config("demo"), tmp_path)
    assert facts["synthetic"] is True and facts["codes"] == 2125 and facts["with_description"] == 0
    assert facts["entry_validation"] > 200 and facts["entry_test"] > 400
    assert load(tmp_path).channels["description"] == [None] * 2125


def test_preparing_twice_writes_the_same_bytes(small_census, tmp_path):
    for place in ("a", "b"):
        prepare(config(small_census), tmp_path / place)
    for name in ("codes.jsonl", "texts.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_code_is_written_with_its_channels_and_null_for_absent_ones(small_census, tmp_path):
    prepare(config(small_census), tmp_path)
    rows = {row["code"]: row for row in records(tmp_path / "codes.jsonl")}
    assert rows["11"] == {
        "code": "11", "level": 2, "parent": None, "title": "Agriculture, Forestry, Fishing and Hunting",
        "description": "This industry comprises code 11.", "examples": None, "exclusions": None, "excluded_codes": [], "cold": False,
    }  # fmt: skip
    assert rows["311"]["parent"] == "31-33"
    assert rows["11119"]["examples"] == "Rye farming; Oat farming"
    assert rows["111120"]["exclusions"] == "Growing soybeans--are classified in Industry 111110, Soybean Farming."
    assert rows["111120"]["excluded_codes"] == ["111110"]


def test_a_text_is_written_with_kind_split_and_the_code_it_stands_under(small_census, tmp_path):
    prepare(config(small_census), tmp_path)
    texts = [t for t in records(tmp_path / "texts.jsonl") if t["kind"] == "cross_reference"]
    assert texts[0] == {
        "text": "Growing soybeans",
        "code": "111110",
        "kind": "cross_reference",
        "split": "train",
        "source_code": "111120",
    }


def test_the_channels_of_others_do_not_speak_of_a_hidden_code(hidden):
    table = hidden
    cold = {table.codes[i] for i in table.cold.nonzero()[0]}
    assert len(cold) == 100
    assert not [c for named in table.excluded for c in named if table.codes[c] in cold]
    assert not [c for text in table.channels["exclusions"] if text for c in cold if c in text]
    assert all(table.channels["examples"][i] is None for i in table.cold.nonzero()[0])


def test_the_fingerprint_follows_the_sources_and_the_split(small_census, census_folder, tmp_path):
    first = fingerprint(config(small_census))
    assert first == fingerprint(config(small_census)) and len(first) == 64
    other = census_folder(tmp_path / "other", index=[("NAICS22", "INDEX ITEM DESCRIPTION"), (111110, "Soybeans")])
    digests = [
        fingerprint(config(small_census, split_seed=1)),
        fingerprint(config(small_census, hidden_codes=5)),
        fingerprint(config(other)),
    ]
    assert len({first, fingerprint(config("demo")), *digests}) == 5


def test_a_source_in_a_store_prepares_as_a_folder_does(small_census, tmp_path):
    prepare(config(f"file://{small_census}"), tmp_path / "store")
    prepare(config(small_census), tmp_path / "folder")
    assert (tmp_path / "store" / "codes.jsonl").read_bytes() == (tmp_path / "folder" / "codes.jsonl").read_bytes()
    assert fingerprint(config(f"file://{small_census}")) == fingerprint(config(small_census))


def test_a_store_without_the_workbooks_is_an_error_that_names_them(tmp_path):
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match="lacks '2-6 digit_2022_Codes.xlsx', .*; it holds: readme.txt"):
        prepare(config(f"file://{tmp_path}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_source_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        prepare(config(tmp_path / "nowhere"), tmp_path / "out")
    with pytest.raises(DataError, match="is not a folder"):
        fingerprint(config(tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()


def test_prepared_data_that_is_missing_or_broken_is_said(small_census, tmp_path):
    with pytest.raises(DataError, match="no prepared data of a classification: .*codes.jsonl is not there"):
        load(tmp_path)
    prepare(config(small_census), tmp_path)
    whole = (tmp_path / "texts.jsonl").read_text()
    (tmp_path / "texts.jsonl").write_text(whole[:-20])
    with pytest.raises(DataError, match="texts.jsonl, line .*: not JSON"):
        load(tmp_path)
    (tmp_path / "texts.jsonl").write_text(whole + '{"txt": 1}\n')
    with pytest.raises(DataError, match="is not prepared data of this version"):
        load(tmp_path)
