"""Labelled texts out of tables: codes, duplicates, what is left out, and a split that nothing leaks through."""

import gzip
import json

import numpy as np
import pytest

from curricle.config.load import from_tree
from curricle.errors import ConfigError, DataError
from curricle.families.codes.config import CodesConfig
from curricle.families.codes.labelled import DROPPED, TEST, TRAIN, VALIDATION, divide, word_set
from curricle.families.codes.prepare import load, prepare
from curricle.families.codes.sources import fingerprint

CODES = "code,title,parent\n1,Food,\n0,Other,\n001,Bakeries and pastry,0\n002,Breweries,0\n011,Meat,1\n012,Fish,1\n"


def config(folder, *files, **data) -> CodesConfig:
    (folder / "codes.csv").write_text(CODES)
    named = {"classification": str(folder / "codes.csv"), "labelled": [str(f) for f in files]}
    return from_tree(CodesConfig, {"family": "codes", "curriculum": {"name": "x"}, "data": named | data})


def written(path, rows, header="text,code"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def many(count=40):
    return [f"{word} number {i} {i * 7919},{code}" for code, word in (("001", "bread"), ("002", "beer"), ("011", "meat"), ("012", "fish")) for i in range(count)]  # fmt: skip


def prepared(folder, *files, **data):
    made = folder / "out"
    facts = prepare(config(folder, *files, **data), made)
    table = load(made)
    table.check_no_leak()
    return facts, table


def test_texts_are_prepared_and_the_tree_is_that_of_the_file(tmp_path):
    facts, table = prepared(tmp_path, written(tmp_path / "a.csv", many()))
    assert facts["rows"] == 160 and facts["levels"] == [1, 2] and facts["left_out"] == {}
    assert 12 <= facts["entry_test"] <= 36 and 4 <= facts["entry_validation"] <= 14
    assert {t.code for t in table.split("train", "entry")} == {"001", "002", "011", "012"}
    assert [table.codes[i] for i in table.leaves] == ["001", "002", "011", "012"]
    assert table.channels["examples"][2].startswith("bread number")


def test_the_same_texts_in_another_order_and_other_files_have_the_same_split(tmp_path):
    rows = many()
    _, one = prepared(tmp_path, written(tmp_path / "a.csv", rows))
    half = written(tmp_path / "b.csv", rows[::-2]), written(tmp_path / "c.csv", rows[-2::-2])
    _, two = prepared(tmp_path, *half)
    assert {(t.text, t.split) for t in one.texts} == {(t.text, t.split) for t in two.texts}
    _, other = prepared(tmp_path, *half, split_seed=1)
    assert {(t.text, t.split) for t in other.texts} != {(t.text, t.split) for t in two.texts}


def test_every_row_that_cannot_be_used_is_counted_and_the_first_are_named(tmp_path, caplog):
    bad = ["ghost,999", "too coarse,1", ",001", "   ,001", "no code,", "no code either,NA", "a,b,c,d"]
    facts, _ = prepared(tmp_path, written(tmp_path / "a.csv", [*many(), *bad]))
    assert facts["left_out"] == {
        "the code is not in the classification": 1, "the code has codes below it": 1, "the text is empty": 2, "the code is empty": 2,
        "the row is none: it has 4 cells, and the table 2 columns": 1,
    }  # fmt: skip
    assert "a.csv, line 162: '999'" in caplog.text and "a.csv, line 163: '1'" in caplog.text


def test_files_of_another_classification_are_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"of 200 labelled rows 160 cannot be used: 160 × the code is not .*a.csv, line 42: 'Q1'"
    ):
        rows = [row if row.startswith("bread") else row.split(",")[0] + ",Q1" for row in many()]
        prepared(tmp_path, written(tmp_path / "a.csv", [*rows, *(f"x {i},Q2" for i in range(40))]))


def test_of_a_text_with_two_codes_the_more_frequent_counts_and_equal_rows_count_once(tmp_path, caplog):
    rows = ["Craft Beer,001", "craft  beer,002", "CRAFT BEER,002", "tie,011", "tie,012"]
    facts, table = prepared(tmp_path, written(tmp_path / "a.csv", [*rows, *many()]))
    kept = {t.text.lower(): (t.code, t.weight) for t in table.texts}
    assert kept["craft beer"] == ("002", 2.0) and kept["tie"] == ("011", 1.0)
    assert facts["left_out"] == {"the same text with the same code stands there before": 1, "the same text has another code more often (or first)": 2}  # fmt: skip
    assert "'Craft Beer' as '001'" in caplog.text and "a.csv, line 4: 'CRAFT BEER' as '002'" in caplog.text
    weighted = written(tmp_path / "b.csv", ["craft beer,001,9", "craft beer,002,1", *(r + ",1" for r in many())], "text,code,weight")  # fmt: skip
    assert {t.text: t.code for t in prepared(tmp_path, weighted)[1].texts}["craft beer"] == "001"


def test_lost_zeros_and_other_marks_are_mended_and_said(tmp_path, caplog):
    rows = [
        row.replace(",001", ",1").replace(",002", ",2").replace(",011", ",11.0").replace(",012", ",12")
        for row in many()
    ]
    facts, table = prepared(tmp_path, written(tmp_path / "a.csv", rows))
    assert {t.code for t in table.split("train", "entry")} == {"001", "002", "011", "012"} and facts["left_out"] == {}
    assert "codes are written in another way, as '2' for '002'" in caplog.text


def test_a_code_that_may_have_lost_a_zero_is_left_out_and_one_above_a_single_code_is_said(tmp_path, caplog):
    tree = "code,title,parent\n1,Farms,\n2,State,\n0912,Fishing,1\n0913,Hunting,1\n912,Law,2\n9121,Courts,912\n913,Tax,2\n9131,Money,913\n"
    rows = [f"{word} number {i},{code}" for word, code in (("fish", "0912"), ("hunt", "0913"), ("court", "9121"), ("money", "9131")) for i in range(40)]  # fmt: skip
    made = config(tmp_path, written(tmp_path / "a.csv", [*rows, "boat,912", "state,2", "treasury,913"]))
    (tmp_path / "codes.csv").write_text(tree.replace("0913,Hunting,1\n", ""))
    facts = prepare(made, tmp_path / "out")
    assert facts["left_out"] == {
        "the code is not in the classification": 40,
        "the code may have lost a zero in front, for it is a code with a single one below it, and with the zero another one": 1,
        "the code has codes below it": 1,
    }
    assert "a.csv, line 162: '912'" in caplog.text
    assert {t.text: t.code for t in load(tmp_path / "out").texts}["treasury"] == "9131"
    assert "a code with a single one below it is read as that one, '913' as '9131'; texts: 1" in caplog.text


def test_a_split_of_its_own_is_respected_and_what_would_leak_is_left_out(tmp_path):
    splits = ["train"] * 30 + ["dev"] * 4 + ["test"] * 6
    rows = [f"{row},{splits[i % 40]}" for i, row in enumerate(many())]
    facts, table = prepared(
        tmp_path, written(tmp_path / "a.csv", [*rows, "1 bread number 7919,001,test"], "text,code,split")
    )
    assert (facts["entry_test"], facts["entry_validation"]) == (24, 16) and facts["entry_train"] == 120
    assert facts["left_out"] == {"for evaluation in its split, and with the words of a training text": 1}
    with pytest.raises(DataError, match="a.csv, line 163: the split 'maybe'"):
        prepared(tmp_path, written(tmp_path / "a.csv", [*rows, "a,001,train"] + ["x y,001,maybe"], "text,code,split").rename(tmp_path / "a.csv"), columns={"split": "split"})  # fmt: skip


def test_groups_and_word_sets_are_never_divided(tmp_path):
    rows = [f"{row},g{i % 23}" for i, row in enumerate(many())]
    _, table = prepared(tmp_path, written(tmp_path / "a.csv", rows, "text,code,group"))
    group = {row.split(",")[0]: row.split(",")[2] for row in rows}
    splits: dict = {}
    for text in table.texts:
        if text.kind == "entry":
            splits.setdefault(group[text.text], set()).add(text.split)
    assert {len(s) for s in splits.values()} == {1} and len(splits) == 23


def test_a_text_with_the_words_of_a_title_trains(tmp_path):
    rows = [row for row in many(20)] + ["pastry and bakeries,001", "BREWERIES,002"]
    for seed in range(5):
        _, table = prepared(tmp_path, written(tmp_path / "a.csv", rows), split_seed=seed)
        assert {t.split for t in table.texts if "akeries" in t.text or t.text == "BREWERIES"} == {"train"}


def test_texts_of_every_script_are_kept_apart_by_their_words(tmp_path):
    assert word_set("Ärzte für Straße") == word_set("strasse FÜR ärzte") and word_set("面包店") != word_set("啤酒厂")
    assert (
        word_set("ﬁsh") == word_set("fish")
        and word_set("!!!") == ("!!!",)
        and word_set("пекарня Хлеб") == word_set("хлеб пекарня")
    )
    rows = [f"面包{chr(0x4E00 + i)}店,001" for i in range(30)] + [f"пиво {chr(0x430 + i)}а,002" for i in range(30)]
    facts, table = prepared(tmp_path, written(tmp_path / "a.csv", rows))
    assert facts["entry_train"] + facts["entry_test"] + facts["entry_validation"] == 60 and facts["entry_test"]


def test_hidden_codes_show_nothing_while_training(tmp_path):
    (tmp_path / "codes.csv").write_text(CODES.replace("012,Fish,1", "012,Fish,1\n013,Eggs,1\n014,Milk,1"))
    config_ = config(tmp_path, written(tmp_path / "a.csv", many()), hidden_codes=1)
    (tmp_path / "codes.csv").write_text(CODES + "013,Eggs,1\n014,Milk,1\n")
    prepare(config_, tmp_path / "out")
    table = load(tmp_path / "out")
    hidden = {table.codes[i] for i in np.flatnonzero(table.cold)}
    assert len(hidden) == 1 and not any(t.code in hidden for t in table.texts if t.split != "cold")


def test_files_come_as_folders_and_patterns_and_columns_by_content_or_name(tmp_path):
    (tmp_path / "many").mkdir()
    written(tmp_path / "many" / "a.csv", many()[:100])
    (tmp_path / "many" / "b.jsonl").write_text("".join(json.dumps(dict(zip(("was", "nummer"), r.rsplit(",", 1), strict=True))) + "\n" for r in many()[100:]))  # fmt: skip
    facts, _ = prepared(tmp_path, tmp_path / "many")
    assert facts["rows"] == 160
    assert prepared(tmp_path, tmp_path / "many" / "*.*")[0]["rows"] == 160
    (tmp_path / "plain.txt").write_text("".join(r.replace(",", "\t") + "\n" for r in many()))
    assert prepared(tmp_path, tmp_path / "plain.txt")[0]["rows"] == 160
    with pytest.raises(ConfigError, match="data.columns.text is 'nope'"):
        prepared(tmp_path, tmp_path / "plain.txt", columns={"text": "nope"})


def test_data_of_a_store_is_fetched_and_the_digest_follows_the_bytes(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    written(store / "a.csv", many())
    made = fingerprint(config(tmp_path, f"file://{store}/a.csv"))
    assert made == fingerprint(config(tmp_path, store / "a.csv"))
    facts, _ = prepared(tmp_path, f"file://{store}")
    assert facts["rows"] == 160 and f"file://{store}/a.csv" in facts["read_as"][0]
    written(store / "a.csv", many()[1:])
    assert made != fingerprint(config(tmp_path, store / "a.csv"))
    with pytest.raises(DataError, match=r"no table at file://.*gone.csv; .* holds a.csv"):
        fingerprint(config(tmp_path, f"file://{store}/gone.csv"))


def test_an_unknown_word_in_a_split_column_is_an_error_and_no_reason_to_draw_it_anew(tmp_path):
    rows = [f"{row},{'train' if i % 3 else 'test'}" for i, row in enumerate(many())]
    with pytest.raises(DataError, match="a.csv, line 162: the split 'holdout' is none of train, validation, test"):
        prepared(tmp_path, written(tmp_path / "a.csv", [*rows, "special,001,holdout"], "text,code,split"))
    facts, _ = prepared(
        tmp_path, written(tmp_path / "b.csv", [f"{row},{i}" for i, row in enumerate(many())], "text,code,fold")
    )
    assert "split" not in facts["read_as"][0]


def test_of_several_columns_of_codes_that_of_the_leaves_is_read_and_the_others_are_named(tmp_path):
    rows = [f"{row},{row.rsplit(',', 1)[1]}" for row in many()]
    facts, _ = prepared(tmp_path, written(tmp_path / "a.csv", rows, "text,first_code,final_code"))
    assert "codes stand in 'final_code' too: data.columns.label=NAME takes another one" in facts["read_as"][0]
    rows = [f"{row.rsplit(',', 1)[0]},{'1' if row.endswith(('011', '012')) else '0'},{row.rsplit(',', 1)[1]}" for row in many()]  # fmt: skip
    facts, table = prepared(tmp_path, written(tmp_path / "b.csv", rows, "text,code,label"))
    assert "code 'label'" in facts["read_as"][0] and facts["left_out"] == {}
    with pytest.raises(DataError, match="Is this the classification.*Read were .*b.csv: .*code 'code'"):
        prepared(tmp_path, tmp_path / "b.csv", columns={"label": "code"})


def test_lost_zeros_beside_kept_ones_are_mended(tmp_path, caplog):
    rows = [*many(), "cake,2", "roast,11"]
    facts, table = prepared(tmp_path, written(tmp_path / "a.csv", rows))
    assert {t.text: t.code for t in table.texts if t.text in ("cake", "roast")} == {"cake": "002", "roast": "011"}
    assert facts["left_out"] == {} and "2 codes are written in another way, as '2' for '002'" in caplog.text


def test_how_the_texts_are_divided_is_said(tmp_path, caplog):
    facts, _ = prepared(tmp_path, written(tmp_path / "a.csv", many()))
    shares = [facts[f"entry_{split}"] for split in ("train", "validation", "test")]
    said = "{} to train on, {} to choose the best model by, {} to measure by".format(*shares)
    assert said in caplog.text and "none trains" not in caplog.text
    (tmp_path / "b").mkdir()
    only = written(tmp_path / "b" / "a.csv", [f"{row},dev" for row in many()], "text,code,split")
    prepared(tmp_path / "b", only)
    assert "0 to train on, 160 to choose the best model by, 0 to measure by: none trains" in caplog.text


def test_of_two_columns_of_one_name_it_is_said_which_is_read(tmp_path):
    rows = [f"{row},no" for row in many()]
    facts, _ = prepared(tmp_path, written(tmp_path / "a.csv", rows, "text,code,text"))
    assert "text 'text' (column 1; 1 more has that name), code 'code'" in facts["read_as"][0]


def test_nothing_to_validate_on_is_said_before_training(tmp_path):
    with pytest.raises(DataError, match="can be kept for validation"):
        prepared(tmp_path, written(tmp_path / "a.csv", ["bread,001", "beer,002"]))


def test_the_split_of_a_long_tail_has_its_shares_and_leaves_each_code_a_text():
    rng = np.random.default_rng(0)
    leaf = np.repeat(np.arange(2000), rng.integers(1, 6, 2000))
    unit, none = rng.integers(1, 2**60, len(leaf)).astype(np.uint64), np.zeros(len(leaf), dtype=bool)
    split = divide(unit, leaf, np.full(len(leaf), -1, dtype=np.int8), none, none, 0)
    assert abs((split == TEST).mean() - 0.15) < 0.03 and abs((split == VALIDATION).mean() - 0.05) < 0.02
    assert set(leaf[split == TRAIN]) == set(leaf) and DROPPED not in split


def test_a_table_of_a_header_alone_is_named(tmp_path):
    with pytest.raises(DataError, match="a.csv: no labelled row below the header"):
        prepared(tmp_path, written(tmp_path / "a.csv", []))


def test_damaged_and_missing_files_are_one_error(tmp_path):
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("text,code\n")
    for name, said in (("a.csv.gz", "is not read"), ("gone.csv", "no file")):
        with pytest.raises(DataError, match=said):
            prepared(tmp_path, tmp_path / name)
