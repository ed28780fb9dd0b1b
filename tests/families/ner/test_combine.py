"""Combination and formats: checks 1-21 and 38 of the specification."""

import json
import random
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curricle.errors import ConfigError, DataError, OutputError
from curricle.families.ner import combine
from curricle.families.ner.combine import combine_datasets, text_key
from curricle.families.ner.formats import load_records
from curricle.store.process import process_start


def rows(prefix: str, count: int) -> list[dict]:
    return [
        {"text": f"{prefix} knows Go {i}", "annotations": [[len(prefix) + 7, len(prefix) + 9, "SKILL"]]}
        for i in range(count)
    ]


def folder(path: Path, **splits: list[dict]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, records in splits.items():
        (path / f"{name}.json").write_text(json.dumps(records))
    return path


def texts(part) -> list[str]:
    return [record["text"] for record in part]


def test_new_only_takes_the_new_files_as_they_are(tmp_path):
    new = folder(tmp_path / "new", train=rows("n", 3), validation=rows("v", 1))
    made = combine_datasets(
        old_dataset_path=None, new_dataset_path=new, strategy="new_only", validation_ratio=0.1, random_seed=42
    )
    assert made["train"] == rows("n", 3) and made["validation"] == rows("v", 1) and set(made) == {"train", "validation"}


def test_a_new_validation_set_is_split_off_where_there_is_none(tmp_path):
    new = folder(tmp_path / "new", train=rows("n", 20))
    made = combine_datasets(None, new, "new_only", 0.1, 42)
    assert (
        len(made["train"]) == 18
        and len(made["validation"]) == 2
        and not set(texts(made["train"])) & set(texts(made["validation"]))
    )
    assert len(combine_datasets(None, new, "new_only", 0.001, 42)["validation"]) == 1
    assert len(combine_datasets(None, new, "new_only", 0.1, 42, create_new_validation=False)["validation"]) == 0


def test_combination_follows_from_the_seed_alone(tmp_path):
    old, new = folder(tmp_path / "old", train=rows("o", 10)), folder(tmp_path / "new", train=rows("n", 10))
    state = random.getstate()
    made, again = (combine_datasets(old, new, "combined", 0.1, 42) for _ in range(2))
    assert random.getstate() == state
    assert texts(made["train"]) == texts(again["train"]) and made.fingerprint() == again.fingerprint()
    assert len(made["train"]) == 18 and len(made["validation"]) == 2
    assert texts(made["train"]) != texts(combine_datasets(old, new, "combined", 0.1, 43)["train"])
    turned = folder(tmp_path / "turned", train=rows("o", 10)[::-1])
    assert combine_datasets(turned, new, "combined", 0.1, 42).fingerprint() == made.fingerprint()
    changed = folder(tmp_path / "changed", train=rows("o", 9) + rows("x", 1))
    assert combine_datasets(changed, new, "combined", 0.1, 42).fingerprint() != made.fingerprint()


def test_append_keeps_the_order(tmp_path):
    old, new = folder(tmp_path / "old", train=rows("o", 10)), folder(tmp_path / "new", train=rows("n", 10))
    made = combine_datasets(old, new, "append", 0.1, 42)
    held = set(texts(made["validation"]))
    assert len(held) == 2 and texts(made["train"]) == [t for t in texts(rows("o", 10) + rows("n", 10)) if t not in held]


def test_validation_files_are_kept_and_an_unvalidated_domain_is_reported(tmp_path):
    old = folder(tmp_path / "old", train=rows("o", 5), validation=rows("ov", 2))
    new = folder(tmp_path / "new", train=rows("n", 5), validation=rows("nv", 2))
    for fresh in (True, False):
        made = combine_datasets(old, new, "combined", 0.1, 42, create_new_validation=fresh)
        assert sorted(texts(made["validation"])) == sorted(texts(rows("ov", 2) + rows("nv", 2)))
    (new / "validation.json").unlink()
    made = combine_datasets(old, new, "combined", 0.1, 42, create_new_validation=False)
    assert sorted(texts(made["validation"])) == sorted(texts(rows("ov", 2)))
    assert any("new domain is not validated" in note for note in made.report["notes"])


def test_a_dataset_with_itself_is_that_dataset(tmp_path):
    old = folder(tmp_path / "old", train=rows("o", 10))
    made = combine_datasets(old, old, "combined", 0.1, 42)
    everything = texts(made["train"]) + texts(made["validation"])
    assert len(set(everything)) == 10 == len(everything)
    assert made.report["dropped"]["duplicate in training"] + made.report["dropped"]["duplicate in validation"] == 10


def test_no_text_stands_in_train_and_validation_even_when_spelled_otherwise(tmp_path):
    old = folder(tmp_path / "old", train=rows("o", 3), validation=[{"text": "Same  Text é", "annotations": []}])
    new = folder(
        tmp_path / "new",
        train=[*rows("n", 3), {"text": "same text E\u0301", "annotations": []}],
        validation=rows("w", 1),
    )
    made = combine_datasets(old, new, "combined", 0.1, 42)
    assert len(made["train"]) == 6 and made.report["dropped"]["training text stands in validation"] == 1
    assert text_key("Straße A") == text_key("STRASSE a") != text_key("Strasse b")


def test_postings_of_skillspan_stay_on_one_side(shared, tmp_path):
    records = json.loads((shared / "data/ner/skillspan/house/train.json").read_text())
    made = combine_datasets(None, folder(tmp_path / "new", train=records), "new_only", 0.1, 42)
    train, held = ({r["id"] for r in made[part]} for part in ("train", "validation"))
    assert held and not train & held and abs(len(made["validation"]) / len(records) - 0.1) < 0.02


@pytest.mark.parametrize("ratio", [0, 1, 1.5, -0.1, "a tenth", True, None])
def test_a_ratio_outside_zero_and_one_is_named(tmp_path, ratio):
    with pytest.raises(ConfigError, match="validation_ratio"):
        combine_datasets(None, folder(tmp_path / "new", train=rows("n", 3)), "new_only", ratio, 1)


def test_an_unknown_strategy_and_missing_paths_are_named(tmp_path):
    new = folder(tmp_path / "new", train=rows("n", 3))
    with pytest.raises(ConfigError, match="'merge'.*new_only, combined, append"):
        combine_datasets(new, new, "merge", 0.1, 1)
    with pytest.raises(ConfigError, match="old_dataset_path is needed"):
        combine_datasets(None, new, "combined", 0.1, 1)
    with pytest.raises(DataError, match="old_dataset_path path not found: .*absent"):
        combine_datasets(tmp_path / "absent", new, "combined", 0.1, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty/train.json is not there"):
        combine_datasets(None, tmp_path / "empty", "new_only", 0.1, 1)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b'[{"text": "a b", "annotations": [], "text": "c"}]',
            r"record 1 \(byte \d+\): not JSON: key 'text' stands twice",
        ),
        (b'[{"text": "a b", "annotations": []}, {"text": "c', r"record 2 \(byte \d+\): not JSON.*cut off"),
        (b'[{"text": "a b", "annotations": []}', "record 1 .*cut off"),
        (b'[{"text": "a", "annotations": []}] x', "after the closing"),
        (b'{"train": []}', "record 1: text is missing"),
        (b"[1]", "record 1: an object with text"),
        (b'[{"annotations": []}]', "record 1: text is missing"),
        (b'[{"text": null, "annotations": []}]', "record 1: text must be a string, not null"),
        (b'[{"text": "a", "annotations": null}]', "record 1: annotations must be a list .* not null"),
        (b'[{"text": "a", "entities": []}]', "record 1: annotations is missing; there is `entities`"),
        (b'[{"text": "a", "annotations": [{"start": 0}]}]', "record 1: annotation 1 must be .* not an object"),
        (b'[{"text": "ab", "annotations": [[0, 1, "X", 2]]}]', "not a list of 4"),
        (b'[{"text": "ab", "annotations": [[0, true, "X"]]}]', "annotation 1 must be"),
        (b'[{"text": "ab", "annotations": [[0, 3, "X"]]}]', "does not lie inside the text of 2"),
        (b'[{"text": "ab", "annotations": [[1, 1, "X"]]}]', "does not lie inside"),
        (b'[{"text": "ab", "annotations": [[-1, 1, "X"]]}]', "does not lie inside"),
        (b'[{"text": "\xff", "annotations": []}]', r"record 1 \(byte 11\): not UTF-8"),
        (
            b'[{"text": "a", "annotations": []}, {"text": "b \\ud83d", "annotations": []}]',
            "record 2: text holds half a surrogate pair at character 2",
        ),
        (b"", "is empty"),
        (b"[]", "nothing is left to train on"),
    ],
)
def test_damaged_files_are_named_with_record_and_nothing_is_written(tmp_path, content, problem):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/train.json").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        combine_datasets(None, tmp_path / "new", "new_only", 0.1, 1, output_dir=tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("Ann B-PER\nran O\n\nBo\n", r"record 2 \(byte 17\): line 'Bo': a token and a tag"),
        ("Ann B-PER\n\n-DOCSTART- O\n\nBo PER\n", "record 2 .*line 'Bo PER'"),
    ],
)
def test_damaged_conll_is_named_with_its_sentence(tmp_path, content, problem):
    (tmp_path / "train.conll").write_text(content)
    with pytest.raises(DataError, match=problem):
        combine_datasets(None, tmp_path, "new_only", 0.1, 1)


def test_overlapping_and_blank_records_are_named_by_their_number_in_the_file(tmp_path):
    tangled = {"text": "Go Rust", "annotations": [[3, 7, "A"], [0, 7, "B"], [0, 2, "A"]]}
    new = folder(
        tmp_path / "new",
        train=[
            {"text": " ", "annotations": []},
            tangled,
            *rows("n", 3),
            {"text": "", "annotations": []},
            *rows("n", 1),
        ],
    )
    report = combine_datasets(None, new, "new_only", 0.1, 42, create_new_validation=False).report
    assert report["overlapping_annotations"] == {"new": 2} and report["examples"]["overlapping annotations"] == [
        "train.json of new, record 2"
    ]
    assert report["examples"]["blank text"] == ["train.json of new, record 1", "train.json of new, record 6"]
    assert report["examples"]["duplicate in training"][0] in (
        "train.json of new, record 3",
        "train.json of new, record 7",
    )


@pytest.mark.parametrize(
    "write",
    [
        lambda r: json.dumps(r, indent=2),
        lambda r: "\ufeff" + json.dumps(r),
        lambda r: "\n".join(map(json.dumps, r)),
        lambda r: "\r\n".join(json.dumps(x, ensure_ascii=False) for x in r) + "\r\n\r\n",
        lambda r: json.dumps(r, separators=(",", ":")),
    ],
)
def test_all_layouts_give_the_same_records(tmp_path, write):
    records = [
        *rows("é", 2),
        {"text": 'odd "}, {" and \\ [ ] text', "annotations": [[0, 3, "X"]], "meta": [{"a": 1}, {"b": 2}]},
    ]
    (tmp_path / "train.json").write_text(write(records), encoding="utf-8", newline="")
    assert load_records(tmp_path / "train.json") == records
    out = tmp_path / "out"
    combine_datasets(None, tmp_path, "new_only", 0.1, 1, create_new_validation=False, output_dir=out)
    assert load_records(out / "train.jsonl") == [{"origin": "new"} | r for r in records]
    assert not (out / "validation.jsonl").exists() and json.loads((out / "report.json").read_text())["kept"][
        "train"
    ] == {"new": 3}


def test_conll_gives_the_spans_of_its_tags(tmp_path, shared):
    (tmp_path / "train.conll").write_text("-DOCSTART- O\n\nAnn B-PER\nLee I-PER\nBo B-PER\nran O\n\n\nRome\tI-LOC\n")
    assert load_records(tmp_path / "train.conll") == [
        {"text": "Ann Lee Bo ran", "annotations": [[0, 7, "PER"], [8, 10, "PER"]]},
        {"text": "Rome", "annotations": [[0, 4, "LOC"]]},
    ]
    (tmp_path / "wnut.conll").write_bytes((shared / "data/ner/wnut17/raw/emerging.dev.conll").read_bytes())
    converted = json.loads((shared / "data/ner/wnut17/validation.json").read_text())
    assert len(load_records(tmp_path / "wnut.conll")) == len(converted)


def test_replay_keeps_a_share_of_the_old_records(tmp_path):
    old, new = (
        folder(tmp_path / "old", train=rows("o", 20), validation=rows("ov", 4)),
        folder(tmp_path / "new", train=rows("n", 10)),
    )
    made = combine_datasets(old, new, "combined", 0.1, 42, replay=0.1)
    assert made.report["kept"]["train"] == {"old": 2, "new": 9} and made.report["kept"]["validation"] == {
        "old": 4,
        "new": 1,
    }
    (old / "validation.json").unlink()
    made = combine_datasets(old, new, "combined", 0.2, 42, replay=0.1)
    assert (
        made.report["kept"]["validation"]["old"] >= 2 and made.report["kept"]["train"]["old"] == 2
    )  # validated by what is not trained on anyway
    for bad in (0, 1.1, "x"):
        with pytest.raises(ConfigError, match="replay"):
            combine_datasets(old, new, "combined", 0.1, 42, replay=bad)


def test_running_twice_writes_the_same_bytes_and_leaves_nothing_stale(tmp_path):
    old, new = folder(tmp_path / "old", train=rows("o", 10)), folder(tmp_path / "new", train=rows("n", 10))
    out, found = tmp_path / "out", []
    for _ in range(2):
        combine_datasets(old, new, "combined", 0.1, 42, output_dir=out)
        found.append({p.name: p.read_bytes() for p in sorted(out.iterdir())})
    names = {"train.jsonl", "validation.jsonl", "report.json", "manifest.json"}
    assert found[0] == found[1] and set(found[0]) == names
    combine_datasets(old, new, "combined", 0.1, 42, create_new_validation=False, output_dir=out)
    assert not (out / "validation.jsonl").exists()
    precious = folder(tmp_path / "precious", train=rows("o", 1))
    with pytest.raises(OutputError, match="holds train.json, and no manifest.json"):
        combine_datasets(old, new, "combined", 0.1, 42, output_dir=precious)


@pytest.mark.parametrize("place", ["", "old", "new", "report", "work"])
def test_no_folder_of_the_users_is_ever_replaced(tmp_path, place, monkeypatch):
    """What was lost once: a folder with a report.json, the input, what holds it, and the working folder."""
    work = tmp_path / "user"
    old, new = folder(work / "old", train=rows("o", 10)), folder(work / "new", train=rows("n", 10))
    for name in ("report", "work", "old"):
        (work / name).mkdir(exist_ok=True)
        (work / name / "report.json").write_text("{}")
    (work / "work/src").mkdir()
    (work / "report.json").write_text("{}")
    (work / "thesis.txt").write_text("thesis")
    monkeypatch.chdir(work / "work")
    before = {p: p.read_bytes() for p in work.rglob("*") if p.is_file()}
    with pytest.raises(OutputError, match="nothing was written") as error:
        combine_datasets(old, new, "combined", 0.1, 42, output_dir=work / place)
    assert error.value.exit_code == 2 and before == {p: p.read_bytes() for p in work.rglob("*") if p.is_file()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["user"]


def test_a_test_text_never_trains(tmp_path):
    new = folder(tmp_path / "new", train=rows("n", 5), validation=rows("v", 1), test=rows("n", 1))
    made = combine_datasets(None, new, "new_only", 0.1, 42)
    assert len(made["train"]) == 4 and made.report["dropped"]["text stands in a test file"] == 1


@given(
    st.text(
        alphabet=st.one_of(
            st.characters(max_codepoint=0x2BFF), st.sampled_from("aA \u0301\u0336´ﬁßİ\u00a0\u0085’…Å가\U0001f600")
        )
    )
)
def test_the_key_of_a_text_is_that_of_its_folded_form(text):
    folded = "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())
    assert text_key(text) == combine.hashlib.blake2b(folded.encode(), digest_size=16).digest()


def test_a_character_that_folds_alone_folds_to_what_stays():
    alone = {chr(i): combine._folded_alone(chr(i)) for i in range(128, 0x3000)}
    for pair in filter(None, alone.values()):
        assert all(alone.get(c) in (None, (c.encode(), c.encode())) for c in pair[1].decode())


def test_two_processes_read_what_one_reads(tmp_path, monkeypatch):
    old, new = folder(tmp_path / "old", train=rows("o", 9)), folder(tmp_path / "new", train=rows("n", 9) + rows("é", 2))
    one = combine_datasets(old, new)
    monkeypatch.setattr(combine, "_LARGE", 0)
    two = combine_datasets(old, new)
    assert two.fingerprint() == one.fingerprint() and two.report == one.report
    (new / "train.json").write_text("[{}]")
    with pytest.raises(DataError, match="record 1: text is missing"):
        combine_datasets(old, new)


def combination(tmp_path: Path, setup: str) -> list[str]:
    """A command that combines two datasets by two readers, and says in a line what is wrong with them; `setup` changes the module ``c`` before."""
    folders = [folder(tmp_path / name, train=rows(name, 9)) for name in ("old", "new")]
    program = (
        f"import os, sys, time, curricle.families.ner.combine as c\nc._LARGE = 0\n{setup}\n"
        "try:\n    c.combine_datasets(*sys.argv[1:3])\nexcept c.DataError as error:\n    print(error)"
    )
    return [sys.executable, "-c", program, *map(str, folders)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_reader_that_is_killed_ends_the_combination_with_one_sentence(tmp_path, number):
    """It hung: the pool waited for ever for what the killed one had begun."""
    command = combination(
        tmp_path,
        "read = c._File.__init__\n"
        f"c._File.__init__ = lambda self, *place: os.kill(os.getpid(), {int(number)}) or read(self, *place)",
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "was killed" in done.stdout and str(tmp_path / "new/train.json") in done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one process reads")
def test_a_reader_that_is_killed_in_the_middle_of_its_answer_does_not_keep_the_command_waiting(tmp_path):
    """It hung: the rest of the answer was waited for, and so it was when the command itself was asked to stop."""
    command = combination(
        tmp_path,
        "import struct\nfrom multiprocessing.connection import Connection\n"
        "parent, send = os.getpid(), Connection._send_bytes\n"
        "def half(self, data):\n    if os.getpid() == parent:\n        return send(self, data)\n"
        "    os.write(self.fileno(), struct.pack('!i', len(data)) + bytes(data[:10]))\n    os.kill(os.getpid(), 9)\n"
        "Connection._send_bytes = half",
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "was killed" in done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one process reads")
def test_no_reader_outlives_a_combination_that_is_killed(tmp_path):
    setup = "c._File.__init__ = lambda self, *place: os.write(1, b'%d\\n' % os.getpid()) and time.sleep(60)"
    command = subprocess.Popen(combination(tmp_path, setup), stdout=subprocess.PIPE, text=True)
    readers = [int(command.stdout.readline()) for _ in range(2)]
    command.kill()
    command.communicate(timeout=10)
    end = time.monotonic() + 5
    while any(process_start(reader) for reader in readers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(process_start(reader) for reader in readers)
