"""Names that become folders: plain ones, and a message that says what is wrong with another."""

import pytest

from curricle.errors import ConfigError
from curricle.store import layout


@pytest.mark.parametrize("name", ["r", "sequential_01-02", "+a.b-c_9", "学习_1", "обучение", "दिन", "_x", "é" * 120])
def test_a_plain_name_of_any_script_is_a_run_id_and_a_stage_name(name):
    assert layout.check_run_id(name) == name == layout.check_stage_name(name)


BAD = {
    "": "is empty",
    "../x": "holds '/'",
    "/abs": "holds '/'",
    "a/b": "holds '/'",
    "a..b": r"holds \.\.",
    ".hidden": "begins with",
    "-rf": "begins with",
    "a b": "holds ' '",
    "a\nb": r"holds '\\n'",
    "a\x00": r"holds '\\x00'",
    "a\\b": r"holds '\\\\'",
    "<b>": "holds '<' '>'",
    "$(id)": r"holds '\$' '\(' '\)'",
    "a\u202eb": r"holds '\\u202e'",
    "x" * 121: "too long: 121 characters",
    "学" * 120: "too long",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_name_is_refused_and_why_is_said(name):
    for check, what in ((layout.check_run_id, "run id"), (layout.check_stage_name, "stage name")):
        with pytest.raises(ConfigError, match=f"{what} .*{BAD[name]}"):
            check(name)


@pytest.mark.parametrize("name", ["data", "imported", "published", "promoted"])
def test_a_stores_own_folders_are_no_runs(name):
    with pytest.raises(ConfigError, match="a store's own folder"):
        layout.check_run_id(name)
    assert layout.check_stage_name(name) == name


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b"5", b"[" * 99_999, b"\xff"])
def test_a_damaged_record_is_an_empty_one(data):
    assert layout.read_record(data) == {} and layout.read_stage_digest(data) == ""
