"""A plan reads the tables that training would read, and says what that would say."""

import pytest

from curricle.config.load import from_tree
from curricle.errors import ConfigError, DataError
from curricle.families.codes import planned
from curricle.families.codes.config import CodesConfig
from curricle.families.codes.planned import check_planned

CODES = "code,title\n1,Farming\n11,Crops\n12,Animals\n"


def stage(tmp_path, labelled):
    (tmp_path / "codes.csv").write_text(CODES)
    (tmp_path / "texts.csv").write_text(labelled)
    data = {"classification": str(tmp_path / "codes.csv"), "labelled": str(tmp_path / "texts.csv")}
    return from_tree(CodesConfig, {"family": "codes", "data": data, "curriculum": {"name": "01_stage"}})


@pytest.mark.parametrize(
    ("labelled", "error", "said"),
    [
        ("a,b\n1,2\n", ConfigError, "no column is known as that of texts"),
        ("text,code\nwheat,77\nrye,78\n", DataError, r"texts.csv, line 2: '77'"),
        ("text,code,split\nwheat,11,later\nrye,11,test\nsow,12,train\n", DataError, "the split 'later' is none of"),
    ],
)
def test_what_training_would_refuse_is_refused(tmp_path, labelled, error, said):
    with pytest.raises(error, match=said):
        check_planned(stage(tmp_path, labelled), True)


def test_tables_are_read_once_for_all_stages_and_again_once_they_changed(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(planned, "read_tables", lambda *given: read.append(given))
    config = stage(tmp_path, texts := "text,code\nwheat,11\nrye field,11\nsow,12\n")
    for from_scratch in (True, False):
        check_planned(config, from_scratch)
    assert len(read) == 1
    check_planned(stage(tmp_path, texts + "pig,12\n"), True)
    assert len(read) == 2


def test_large_tables_wait_for_their_preparing(tmp_path, monkeypatch):
    monkeypatch.setattr(planned, "LARGEST", 10)
    check_planned(stage(tmp_path, "a,b\n1,2\n"), True)
