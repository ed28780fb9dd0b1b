"""A table that is coded in shards gives what one machine gives; killed and run again, nothing is done twice and nothing is lost."""

import csv
import os
from pathlib import Path

import pytest

from curricle.errors import ConfigError, DataError, OutputError, StoreError
from curricle.steps import shards
from curricle.steps.assign import Opened, assign_table
from curricle.steps.assigned import Order
from curricle.store import open_store
from curricle.store.manifest import publish
from tests.steps.test_assign import Toy

ORDER = Order(column="text", top=2, max_error=0.05)


class Keeping(Toy):
    """Keeps a file that makes its next opening quick."""

    def kept_files(self):
        path = Path("cache/scorer.bin")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"quick")
        return [path]


@pytest.fixture
def place(tmp_path: Path, monkeypatch):
    """A working folder with a store that holds a model, and a table of five shards with a bad row."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shards, "PIECE", 20)
    publish(open_store("store/run/one/x.ckpt"), "", None, kind="checkpoint", digest="d" * 64, info={"family": "codes"})
    rows = "".join(f"{i};text {i % 7 * 'x'}\n" for i in range(99))
    Path("in.csv").write_text(f"id;text\n{rows}1;too;many\n", encoding="cp1252")
    return tmp_path


def cut(**options) -> str:
    asked = {
        "store_uri": str(Path("store").absolute()),
        "model": str(Path("store/run/one/x.ckpt").absolute()),
        "shards": 5,
    }
    return shards.cut("in.csv", "out/coded.csv", ORDER, **asked | options)


def opened(where: str, coder: Toy) -> list[int]:
    return shards.open_coder(where, lambda uri: Opened(coder, "v1", "d"))


def code(where: str, number: int, coder: Toy) -> int:
    return shards.code_shard(where, number, lambda uri: Opened(coder, "v1", "d"))


def names(where: str) -> list[str]:
    return [entry.key for entry in open_store(where).list("")]


def test_shards_join_to_what_one_machine_writes_and_are_gone_then(place: Path):
    where = cut()
    numbers = opened(where, Keeping())
    assert numbers == [0, 1, 2, 3, 4]
    Path("cache/scorer.bin").unlink()
    assert [code(where, number, Toy()) for number in reversed(numbers)] == [19, 20, 20, 20, 20]
    assert Path("cache/scorer.bin").read_bytes() == b"quick"
    done = shards.join(where)
    alone = assign_table(Path("in.csv"), place / "alone.csv", ORDER, lambda: Opened(Toy(), "v1", "d"))
    assert Path("out/coded.csv").read_bytes() == Path("alone.csv").read_bytes()
    assert Path("out/coded.rejects.csv").read_bytes() == Path("alone.rejects.csv").read_bytes()
    assert (done.rows, done.coded, done.review, done.bad) == (99, alone.coded, alone.review, 1) and alone.rows == 99
    assert names(where) == ["done.json", "work.json"]
    assert shards.join(where) == done and cut() == where and opened(where, Toy()) == []
    Path("out/coded.csv").unlink()  # somebody wants it again
    assert cut() == where and opened(where, Toy()) == numbers and names(where) == ["rule.json", *(f"texts-0000{number}.jsonl" for number in numbers), "work.json"]  # fmt: skip


def test_a_killed_shard_is_coded_by_the_next_run_and_the_others_are_not(place: Path):
    where = cut()
    with pytest.raises(StoreError, match="open the model first"):
        code(where, 0, Toy())
    assert opened(where, Toy()) == [0, 1, 2, 3, 4]
    for number in (0, 1, 3, 4):
        code(where, number, Toy())
    with pytest.raises(KeyboardInterrupt):
        code(where, 2, Toy(stop="text x"))
    with pytest.raises(StoreError, match="of 5 shards 1 are not coded .2 is the first."):
        shards.join(where)
    assert not Path("out").exists() and cut() == where
    never = lambda uri: pytest.fail("opened")  # noqa: E731
    assert [shards.code_shard(where, number, never) for number in (0, 1, 3, 4)] == [0] * 4
    assert shards.open_coder(where, never) == [2] and code(where, 2, Toy()) == 20
    assert shards.join(where).rows == 99
    with open("out/coded.csv", encoding="cp1252", newline="") as lines:
        assert [row["id"] for row in csv.DictReader(lines, delimiter=";")] == [str(i) for i in range(99)]


def test_another_order_table_or_model_is_another_work(place: Path):
    first = cut()
    assert shards.cut("in.csv", "out/coded.csv", Order(column="text"), store_uri="store", model="run/one/x.ckpt").rpartition("/")[2] not in first  # fmt: skip
    where = cut(shards=2)
    assert where != first
    for number in opened(where, Toy()):
        code(where, number, Toy())
    Path("in.csv").write_text("id;text\n1;other\n")
    with pytest.raises(DataError, match="in.csv was changed since it was cut"):
        shards.join(where)


def test_what_cannot_be_coded_is_refused_before_anything_is_written(place: Path):
    before = sorted(path for path in place.rglob("*"))
    with pytest.raises(ConfigError, match="no column 'text '"):
        shards.cut("in.csv", "o.csv", Order(column="text "), store_uri="store", model="run/one/x.ckpt")
    with pytest.raises(OutputError, match="the input itself"):
        shards.cut("in.csv", "in.csv", ORDER, store_uri="store", model="run/one/x.ckpt")
    with pytest.raises(ConfigError, match="101 shards; 1 to 100"):
        cut(shards=101)
    os.truncate("in.csv", 0)
    with pytest.raises(DataError, match="is empty"):
        cut()
    assert sorted(path for path in place.rglob("*")) == before
