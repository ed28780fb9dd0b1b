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
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_name_is_refused_and_why_is_said(name):
    for check, what in ((layout.check_run_id, "run id"), (layout.check_stage_name, "stage name")):
        with pytest.raises(ConfigError, match=f"{what} .*{BAD[name]}"):
            check(name)


@pytest.mark.parametrize("name", ["x" * 121, "学" * 120, "שלום" * 75, "a" + "é" * 299])
def test_a_run_id_of_any_length_has_a_folder_of_its_own_and_a_stage_is_short(name):
    folder = layout.check_run_id(name)
    assert layout.check_run_id(folder) == folder == layout.run_folder(name), (
        "the folder is a run id too, and its own folder"
    )
    assert len(folder.encode()) <= 240 and folder.startswith(name[:20]) and layout.run_folder(name + "x") != folder
    with pytest.raises(ConfigError, match="stage name .* is too long"):
        layout.check_stage_name(name)


@pytest.mark.parametrize("name", ["data", "imported", "published", "promoted"])
def test_a_stores_own_folders_are_no_runs(name):
    with pytest.raises(ConfigError, match="a store's own folder"):
        layout.check_run_id(name)
    assert layout.check_stage_name(name) == name


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b"5", b"[" * 99_999, b"\xff"])
def test_a_damaged_record_is_an_empty_one(data):
    assert layout.read_record(data) == {} and layout.read_stage_digest(data) == ""


def test_a_name_that_holds_a_secret_of_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "minioadmin")
    with pytest.raises(ConfigError, match="secret of the environment variable AWS_SECRET_ACCESS_KEY") as error:
        layout.check_run_id("run-hunter2hunter2")
    assert "hunter2" not in str(error.value) and layout.check_run_id("of-minioadmin") == "of-minioadmin"
