"""New texts behind those that a model was trained with: whose split they have, what they replace, and which classification is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from curricle.config.load import from_tree
from curricle.config.schema import PathsConfig
from curricle.errors import ConfigError, DataError
from curricle.families.codes.config import CodesConfig
from curricle.families.codes.labelled import DROPPED, TEST, TRAIN, VALIDATION, divide_further, word_set
from curricle.families.codes.metrics import measured
from curricle.families.codes.prepare import load, prepare
from curricle.families.codes.sources import fingerprint
from curricle.registry import PARENT
from curricle.steps.prepare import prepare_data
from curricle.store import open_store
from curricle.store.manifest import read_manifest

CODES = "code,title,parent\n1,Food,\n0,Other,\n001,Bakeries and pastry,0\n002,Breweries,0\n011,Meat,1\n012,Fish,1\n"
KINDS = (("001", "bread"), ("002", "beer"), ("011", "meat"), ("012", "fish"))


def config(folder, **data) -> CodesConfig:
    made = from_tree(CodesConfig, {"family": "codes", "curriculum": {"name": "x"}, "data": data})
    return replace(made, paths=PathsConfig(store_uri=str(folder / "store"), cache_dir=str(folder / "cache")))


def written(path, rows, header="text,code"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """(folder, URI of prepared data of 160 texts)."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "codes.csv").write_text(CODES)
    rows = [f"{word} number {i} {i * 7919},{code}" for code, word in KINDS for i in range(40)]
    return folder, prepare_data(
        config(folder, classification=str(folder / "codes.csv"), labelled=written(folder / "texts.csv", rows))
    )


def further(old, tmp_path, rows, header="text,code", **data):
    """(facts, table) of new rows behind the old data."""
    folder, uri = old
    given = config(folder, **({"old": uri, "labelled": written(tmp_path / "new.csv", rows, header)} | data))
    facts = prepare(given, tmp_path / "out")
    return facts, load(tmp_path / "out")


def entries(table, split, domain=None):
    return [t for t in table.split(split, "entry") if domain in (None, table.domain(t))]


NEW = [f"{word} stall {i} x{i * 31},{code}" for code, word in KINDS for i in range(10)]


def test_old_texts_stay_as_they_are_and_new_ones_come_behind_with_a_share_held_out(old, tmp_path):
    facts, table = further(old, tmp_path, NEW)
    before = load(old[0] / "store" / "data" / old[1].rpartition("/")[2])
    kept = [(t.text, t.code, t.split) for t in table.texts if table.domain(t) == "old"]
    assert kept == [(t.text, t.code, t.split) for t in before.texts] and table.batches == 1
    assert (facts["added"], facts["replaced"], facts["known"]) == (40, 0, 0)
    assert len(entries(table, "test", "new")) == 6 and len(entries(table, "validation", "new")) == 2
    assert {"test/new/top1", "test/old/top1", "test/top1"} <= measured(facts)
    assert table.channels == before.channels
    table.check_no_leak()


def test_a_new_text_with_the_words_of_an_old_one_is_on_that_ones_side(old, tmp_path):
    before = load(old[0] / "store" / "data" / old[1].rpartition("/")[2])
    one = {split: before.split(split, "entry")[0] for split in ("train", "validation", "test")}
    turned = [f"{' '.join(reversed(t.text.split()))},{t.code}" for t in one.values()]
    _, table = further(old, tmp_path, [*NEW, *turned, "pastry BAKERIES and,001"])
    found = {t.text: t.split for t in table.texts if table.domain(t) == "new"}
    for split, text in one.items():
        assert found[" ".join(reversed(text.text.split()))] == split
    assert found["pastry BAKERIES and"] == "train"  # the words of a title
    trained = {word_set(t.text) for t in table.texts if t.split == "train"}
    assert not trained & {word_set(t.text) for t in table.texts if t.split in ("test", "validation")}


def test_a_correction_takes_the_place_of_the_old_text_and_a_confirmation_changes_nothing(old, tmp_path):
    before = load(old[0] / "store" / "data" / old[1].rpartition("/")[2])
    wrong, right = before.split("test", "entry")[0], before.split("train", "entry")[0]
    other = "012" if wrong.code != "012" else "011"
    facts, table = further(old, tmp_path, [*NEW, f"{wrong.text.upper()},{other}", f"{right.text},{right.code}"])
    assert (facts["replaced"], facts["known"], facts["added"]) == (1, 1, 41)
    same = [t for t in table.texts if t.text.casefold() == wrong.text]
    assert [(t.code, t.split, table.domain(t)) for t in same] == [(other, "test", "new")]
    assert [table.domain(t) for t in table.texts if t.text == right.text] == ["old"]


def test_nothing_new_is_an_error(old, tmp_path):
    text = load(old[0] / "store" / "data" / old[1].rpartition("/")[2]).split("train", "entry")[0]
    with pytest.raises(DataError, match="nothing is new. 1 texts are among the old ones"):
        further(old, tmp_path, [f"{text.text},{text.code}"])


def test_a_second_batch_goes_on_top_of_the_first(old, tmp_path):
    folder, uri = old
    first = prepare_data(config(folder, old=uri, labelled=written(tmp_path / "1.csv", NEW)))
    second = prepare_data(
        config(folder, old=first, labelled=written(tmp_path / "2.csv", [f"cake {i},001" for i in range(9)]))
    )
    table = load(folder / "store" / "data" / second.rpartition("/")[2])
    assert table.batches == 2 and len({first, second, uri}) == 3
    assert sorted({t.batch for t in table.texts}) == [0, 1, 2]
    assert {t.text.split()[0] for t in table.texts if table.domain(t) == "new"} == {"cake"}
    assert read_manifest(open_store(second), "").info["kept"] == read_manifest(open_store(first), "").info["kept"] + 40


def test_another_classification_is_refused_with_the_way_out_before_anything_is_prepared(old, tmp_path):
    folder, uri = old
    (tmp_path / "codes.csv").write_text(CODES + "013,Insects,1\n")
    given = {"old": uri, "labelled": written(tmp_path / "new.csv", NEW)}
    with pytest.raises(DataError, match=r"1 more \(013\).*curricle crosswalk"):
        fingerprint(config(folder, classification=str(tmp_path / "codes.csv"), **given))
    (tmp_path / "codes.csv").write_text(CODES.replace("012,Fish,1", "012,Fish,0"))
    with pytest.raises(DataError, match="the same codes lie under others"):
        fingerprint(config(folder, classification=str(tmp_path / "codes.csv"), **given))
    (tmp_path / "codes.csv").write_text(CODES.replace("Fish", "Fish of any kind"))
    assert len(fingerprint(config(folder, classification=str(tmp_path / "codes.csv"), **given))) == 64


def test_the_digest_is_of_old_data_and_new_texts_and_what_cannot_be_meant_is_said(old, tmp_path):
    folder, uri = old
    one = config(folder, old=uri, labelled=written(tmp_path / "a.csv", NEW))
    two = config(folder, old=uri, labelled=written(tmp_path / "b.csv", NEW[1:]))
    assert fingerprint(one) == fingerprint(one) != fingerprint(two)
    for data, error, said in (
        ({"old": uri}, ConfigError, "names no new texts"),
        ({"old": PARENT, "labelled": str(tmp_path / "a.csv")}, DataError, "only a training knows"),
        ({"old": str(tmp_path), "labelled": str(tmp_path / "a.csv")}, DataError, "holds no prepared data"),
    ):
        with pytest.raises(error, match=said):
            fingerprint(config(folder, **data))


def test_texts_of_data_that_are_kept_apart_by_likeness_stay_so(small_census, tmp_path):
    store = tmp_path / "census"
    uri = prepare_data(config(store, source=str(small_census)))
    before = load(store / "store" / "data" / uri.rpartition("/")[2])
    assert not before.by_words
    near = before.split("test", "entry")[0].text
    rows = [f"oyster bed number {i} {i * 101},112512" for i in range(20)]
    facts, table = further((store, uri), tmp_path, [f"{near}s,111110", "Canola farmings,111120", *rows])
    found = {t.text: t.split for t in table.texts if table.domain(t) == "new"}
    assert found[f"{near}s"] == "test" and found["Canola farmings"] == "train" and not table.by_words
    table.check_no_leak()
    assert json.loads((tmp_path / "out" / "data.json").read_text())["apart_by"] == "likeness"
    assert facts["scored"]["test"] == ["new", "old"]


def test_no_unit_is_on_both_sides_whatever_stands_in_the_rows():
    draw = np.random.default_rng(0)
    for seed in range(50):
        n = int(draw.integers(1, 40))
        unit = draw.integers(0, 12, n).astype(np.uint64)
        known = draw.choice([-1, -1, TRAIN, VALIDATION, TEST, DROPPED], n).astype(np.int8)
        own = draw.choice([-1, -1, TRAIN, VALIDATION, TEST], n).astype(np.int8)
        trains = draw.random(n) < 0.1
        split = divide_further(unit, known, own, trains, seed)
        for u in np.unique(unit):
            assert len({int(s) for s in split[unit == u]} - {DROPPED}) <= 1
        assert (split[known >= 0] == known[known >= 0]).sum() + (split[known >= 0] == DROPPED).sum() >= (
            known >= 0
        ).sum()
        assert (split[(known < 0) & (own > TRAIN) & (split != DROPPED)] == own[(known < 0) & (own > TRAIN) & (split != DROPPED)]).all()  # fmt: skip
