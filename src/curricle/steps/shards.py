"""A table that is coded on several machines: cut into shards in a store, each coded by itself, and joined. Every step done again does nothing twice.

The work's place is named by the digest of table, model and order, so that a second run finds what a first one has done:

<store_uri>/assigned/<digest>/
  texts-00000.jsonl   line and text of a shard's rows
  work.json           the work, written after its texts
  rule.json           what is for review, and how many of the next there are
  kept/               what makes opening the model quick, made once
  coded-00000.jsonl   the values of a shard, whole or not there
  done.json           what came of it, written after the output; all but `work.json` and this is deleted then
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import orjson

from curricle.errors import ConfigError, DataError, OutputError, StoreError
from curricle.steps.assign import (
    PIECE,
    Assigned,
    Known,
    Opened,
    code_rows,
    is_own_table,
    joined,
    look_through,
    read_values,
    reject_lines,
    texts_of,
    write_values,
)
from curricle.steps.assigned import Order, Rule, Values, names_for, rule_of, text_column
from curricle.steps.promote import default_model
from curricle.steps.source import resolve_source
from curricle.steps.table_output import form_of, write_rows
from curricle.steps.tally import Counts
from curricle.steps.use import identity_of, open_model
from curricle.store import Store, join_uri, layout, open_store, split_uri
from curricle.store.folder import FolderStore
from curricle.store.local import write_whole
from curricle.store.manifest import read_manifest, sha256_of
from curricle.store.ours import check_output_file, check_replaced
from curricle.store.scratch import scratch
from curricle.tables import Table, open_table

WORK, RULE, DONE = "work.json", "rule.json", "done.json"
MOST = 100
"""Shards at most: Argo keeps a whole run in one object of 1.5 MiB."""


@runtime_checkable
class Keeps(Protocol):
    """A coder that keeps files which make the next opening quick."""

    def kept_files(self) -> list[Path]:
        """Those files, below the working folder; the model is opened now, if it was not."""


@dataclass(frozen=True)
class Work:
    """What is to be coded."""

    table: str
    output: str
    rejects: str
    order: Order
    model: str
    encoding: str
    rows: int
    bad: int
    named: tuple[str, ...]
    shards: int
    digest: str
    """Of the table."""

    @classmethod
    def read(cls, place: str) -> Work:
        """The work at a place.

        Raises:
            StoreError: there is none.
        """
        content = _record(open_store(place), WORK)
        if content is None:
            raise StoreError(f"no work at {place}: {WORK} is missing; cut a table first")
        return cls(**content | {"order": Order(**content["order"]), "named": tuple(content["named"])})


def check_count(shards: int) -> None:
    """Refuse a number of shards that there cannot be.

    Raises:
        ConfigError: says what there can.
    """
    if not 1 <= shards <= MOST:
        raise ConfigError(f"{shards} shards; 1 to {MOST} are possible")


def cut(table_uri: str, output_uri: str, order: Order, *, store_uri: str, model: str = "", shards: int = 8, encoding: str = "") -> str:  # fmt: skip
    """Cut a table into shards.

    Args:
        table_uri: a file of this machine or of a store.
        output_uri: the file to write; its rejects lie beside it.
        model: as of `steps.use.open_model`.
        shards: as many, of equal length; at least a piece of rows each.

    Returns:
        The work's place.

    Raises:
        DataError, ConfigError: the table cannot be coded so.
        OutputError: the output is the table.
    """
    check_count(shards)
    if "://" not in output_uri:
        check_output_file(Path(output_uri), [Path(table_uri)])
        check_replaced(Path(output_uri), "the pipeline assign", lambda head: is_own_table(Path(output_uri)))
    if table_uri == output_uri:
        raise OutputError(
            f"the output {output_uri} is the table itself, which is never overwritten; choose another name"
        )
    source = resolve_source(model, store_uri, asked="model") if model else default_model(store_uri, "assign")
    print(f"model {source.uri}: {source.reason}", flush=True)
    manifest = read_manifest(open_store(source.uri), "")
    if manifest is None:
        raise StoreError(f"{source.uri} is not complete")
    with scratch("curricle-assign-") as folder:
        table = _table(table_uri, folder, encoding)
        at = text_column(table.columns, order.column, table_uri)
        names_for(order, table.columns, table_uri)
        form_of(Path(output_uri), table)
        survey = look_through(table)
        print(f"{table_uri}: {table.said}; {survey.rows:,} rows", flush=True)
        if survey.bad and not survey.rows:
            raise DataError(f"{table_uri} holds no good row: {'; '.join(survey.named)}")
        count = max(1, min(shards, -(-survey.rows // PIECE)))
        rejects = f"{output_uri.rpartition('.')[0] or output_uri}.rejects.csv"
        work = Work(table_uri, output_uri, rejects, order, source.uri, encoding, survey.rows, survey.bad, survey.named, count, survey.digest)  # fmt: skip
        key = hashlib.sha256(
            orjson.dumps([asdict(work), identity_of(manifest)], option=orjson.OPT_SORT_KEYS)
        ).hexdigest()
        place = join_uri(store_uri, layout.ASSIGNED, key[:16])
        store = open_store(place)
        if (done := _record(store, DONE)) and _is_there(output_uri, done):
            print(f"{output_uri} is there already, whole", flush=True)
            return place
        if done or _record(store, WORK) is None:
            store.delete(WORK)
            store.delete(DONE)
            texts, length = texts_of(table, at), -(-survey.rows // count)
            for number in range(count):
                _put_lines(store, f"texts-{number:05d}.jsonl", folder, islice(texts, length))
            store.write(WORK, orjson.dumps(asdict(work)))
    return place


def model_at(uri: str) -> Opened:
    """The model at a place."""
    return open_model(uri).coder()


def open_coder(place: str, opener: Callable[[str], Opened] = model_at) -> list[int]:
    """Open the model once for all shards: what is for review is decided, and what makes opening it quick is kept at the place.

    Returns:
        The shards that are not coded yet.
    """
    work, store = Work.read(place), open_store(place)
    todo = uncoded(work, store)
    if todo and _record(store, RULE) is None:
        coder = opener(work.model).coder
        rule = rule_of(work.order, coder)
        print(rule.said or "no rule: for review is what has no code", flush=True)
        files = coder.kept_files() if isinstance(coder, Keeps) else []
        for path in files:
            store.put(f"kept/{path.name}", path)
        kept = [path.as_posix() for path in files]
        store.write(RULE, orjson.dumps({"least": rule.least, "said": rule.said, "kept": kept}))
    return todo


def shard_uri(place: str, number: int) -> str:
    """The texts of a shard."""
    return join_uri(place, f"texts-{number:05d}.jsonl")


def place_of(uri: str) -> tuple[str, int]:
    """(place, number) of a `shard_uri`."""
    place, name = split_uri(uri)
    return place, int(name.removeprefix("texts-").removesuffix(".jsonl"))


def uncoded(work: Work, store: Store) -> list[int]:
    """Numbers of the shards that are to be coded yet."""
    if _record(store, DONE) is not None:
        return []
    coded = {entry.key for entry in store.list("coded-")}
    return [number for number in range(work.shards) if f"coded-{number:05d}.jsonl" not in coded]


def code_shard(place: str, number: int, opener: Callable[[str], Opened] = model_at, tell: Callable[[int], None] = lambda done: None) -> int:  # fmt: skip
    """Code a shard, unless it is coded already; the number of rows that had to be.

    Args:
        tell: called now and then with the number of rows done.
    """
    work, store, name = Work.read(place), open_store(place), f"coded-{number:05d}.jsonl"
    if number not in uncoded(work, store):
        return 0
    kept = _record(store, RULE)
    if kept is None:
        raise StoreError(f"no {RULE} at {place}; open the model first")
    for path in map(Path, kept["kept"]):
        if not path.is_absolute() and ".." not in path.parts and not path.exists():
            store.get(f"kept/{path.name}", path)
    opened, rule, known = opener(work.model), Rule(kept["least"], kept["said"]), Known()
    with scratch("curricle-assign-") as folder:
        store.get(f"texts-{number:05d}.jsonl", folder / "texts")
        total = 0

        def coded() -> Iterator[tuple[int, Values]]:
            nonlocal total
            with (folder / "texts").open("rb") as lines:
                pairs = ((line, text) for line, text in map(orjson.loads, lines))
                while rows := list(islice(pairs, PIECE)):
                    yield from code_rows(rows, work.order, rule, opened, known)
                    total += len(rows)
                    tell(total)

        write_values(folder / "coded", coded())
        store.put(name, folder / "coded")
    return total


def join(place: str) -> Assigned:
    """Write the output from all shards, and then delete them.

    Raises:
        StoreError: a shard is not coded.
        DataError: the table is not what it was.
    """
    work, store = Work.read(place), open_store(place)
    if (done := _record(store, DONE)) is not None:
        return _assigned(done)
    if missing := uncoded(work, store):
        raise StoreError(
            f"{place}: of {work.shards} shards {len(missing)} are not coded ({missing[0]} is the first); run the pipeline again"
        )
    with scratch("curricle-assign-") as folder:
        table = _table(work.table, folder, work.encoding)
        if sha256_of(table.path) != work.digest:
            raise DataError(f"{work.table} was changed since it was cut; run the pipeline again")

        def values() -> Iterator[tuple[int, Values]]:
            for number in range(work.shards):
                path = folder / f"coded-{number:05d}"
                store.get(f"coded-{number:05d}.jsonl", path)
                yield from read_values(path)
                path.unlink()

        form, names, counts = (
            form_of(Path(work.output), table),
            names_for(work.order, table.columns, work.table),
            Counts(work.order),
        )
        made = folder / "output"
        rows = ((row, counts.seen(own)) for row, own in joined(table, values()))
        write_whole(made, lambda out: write_rows(out, form, table, names, rows))
        if work.bad:
            write_whole(folder / "rejects", lambda out: out.writelines(reject_lines(table)))
            _put(work.rejects, folder / "rejects")
        _put(work.output, made)
        facts = {name: getattr(counts, name) for name in ("rows", "coded", "review", "without")}
        facts |= {"tally": counts.tally(), "rule": str((_record(store, RULE) or {}).get("said", ""))}
        about = {"bad": work.bad, "named": work.named, "rejects": work.rejects, "size": made.stat().st_size}
        store.write(DONE, orjson.dumps(facts | about))
    for key in [entry.key for entry in store.list("") if entry.key not in (WORK, DONE) and _is_ours(entry.key)]:
        store.delete(key)
    return _assigned(_record(store, DONE) or {})


def _is_ours(key: str) -> bool:
    return key == RULE or key.startswith(("texts-", "coded-", "kept/"))


def _assigned(done: dict[str, Any]) -> Assigned:
    return Assigned(done["rows"], done["coded"], done["review"], done["without"], done["bad"], tuple(done["named"]), Path(done["rejects"]), done.get("tally", {}), done.get("rule", ""))  # fmt: skip


def _record(store: Store, key: str) -> dict[str, Any] | None:
    data = store.read(key)
    return None if data is None else orjson.loads(data)


def _put_lines(store: Store, key: str, folder: Path, rows: Iterator[tuple[int, str]]) -> None:
    path = folder / key
    write_whole(path, lambda out: out.writelines(orjson.dumps(row) + b"\n" for row in rows))
    store.put(key, path)
    path.unlink()


def _table(uri: str, folder: Path, encoding: str) -> Table:
    """A table that lies here or in a store, opened."""
    where, key = split_uri(uri)
    store = open_store(where)
    path = store.local(key)
    if path is None and "://" in where:
        path = folder / key
        store.get(key, path)
    return open_table(path or Path(uri), encoding=encoding)


def _put(uri: str, path: Path) -> None:
    where, key = split_uri(uri)
    open_store(where).put(key, path)


def _is_there(uri: str, done: dict[str, Any]) -> bool:
    where, key = split_uri(uri)
    store = open_store(where)
    if isinstance(store, FolderStore):  # whose `list` walks the whole folder
        path = store.local(key)
        return path is not None and path.stat().st_size == done["size"]
    return any(entry.key == key and entry.size == done["size"] for entry in store.list(key))
