"""Combine an old and a new dataset into one: which records train, which validate, in which order, and why others were left out.

Only byte ranges and 128-bit text keys stay in memory; records are copied from the sources. Nothing is drawn from a
random generator: order and split follow from a hash of (seed, text), so they depend on neither file order, process nor Python.

Rules:
- A source that has a validation file keeps it. With `create_new_validation`, the training records of all sources that have none are
  one pool, of which max(1, floor(n · ratio)) go to validation. Records with one `id` in one file, and equal normalised texts, stay together.
- A training text that also stands in validation (equal after Unicode NFKC, case folding and removal of white space) leaves training.
  A text of a source's test file leaves both. Of equal texts in training one is kept, the new source's before the old's.
- `combined` orders by hash; `append` keeps old, then new, each in file order; `new_only` reads the old source not at all.
- A record's `origin` says where it comes from (`annotated.origin_of`): `old` or `new`, and of an old dataset that was combined before ``old/old``
  or ``old/new``.
- `replay` keeps that share of the old training records (at least one) that are left after the split.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from curricle.errors import ConfigError, DataError
from curricle.families.ner.annotated import origin_of, source_of
from curricle.families.ner.formats import SUFFIXES, Seen, dataset_files, iter_pieces, overlapping, read_piece
from curricle.store.ours import check_output_folder, write_folder
from curricle.store.process import die_with

MAKER = "curricle combine"
STRATEGIES = ("new_only", "combined", "append")
_LARGE = 64 << 20
"""Bytes of all files together from which a second process pays."""
_LOWER = bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256))
_ASCII = bytes(range(128))
_WHITE = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"


def text_key(text: str) -> bytes:
    """16 bytes that are equal for texts equal after NFKC, case folding and removal of white space."""
    raw = text.encode("utf-8", "surrogatepass")
    if not text.isascii():
        beyond = set(raw.translate(None, _ASCII).decode("utf-8", "surrogatepass"))
        alone = [pair for char in beyond if (pair := _folded_alone(char)) is not None]
        if len(alone) < len(beyond):
            raw = _folded(text).encode("utf-8", "surrogatepass")
        else:
            for written, folded in alone:
                if folded != written:
                    raw = raw.replace(written, folded)
    return hashlib.blake2b(raw.translate(_LOWER, _WHITE), digest_size=16).digest()


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


@functools.lru_cache(4096)
def _folded_alone(char: str) -> tuple[bytes, bytes] | None:
    """This character, and what `_folded` makes of it in any text; None if that may depend on its neighbours.

    Latin letters, punctuation and symbols without combining marks: nothing composes with what stands before them.
    """
    simple = (char < "\u0300" or "\u2000" <= char < "\u2c00") and not unicodedata.category(char).startswith("M")
    return (char.encode(), _folded(char).encode()) if simple else None


class _File:
    """One source file: byte ranges, text keys and id groups of its records."""

    def __init__(self, source: str, split: str, path: Path):
        self.source, self.split, self.path = source, split, path
        starts, ends, groups, keys = array("Q"), array("Q"), array("q"), bytearray()
        seen: dict[str, int] = {}
        self.blanks, self.tangled = array("Q"), array("Q")
        self.overlapping = 0
        self.labels: Counter[str] = Counter()
        self.annotated: dict[str, set[str]] = {}
        """Source → labels that occur in its records here."""
        self.nested = False
        """Whether it is the old dataset and holds origins of an earlier combination."""
        self.seen, self.plain = Seen(), True
        """What the file turned out to be, and whether its bytes are records as they stand."""
        self._handle, copies = -1, None
        for piece in iter_pieces(path, self.seen):
            text = piece.record["text"]
            if not text.strip():
                self.blanks.append(piece.number)
                continue
            if len(spans := piece.record["annotations"]) > 1 and (many := overlapping(spans)):
                self.overlapping += many
                self.tangled.append(piece.number)
            start, end = piece.start, piece.end
            self.plain &= piece.plain
            if start < 0:  # no file has these bytes: they are kept in one that goes with this object
                copies = copies or tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as this object
                start, end = copies.tell(), copies.tell() + copies.write(json.dumps(piece.record).encode())
            starts.append(start)
            ends.append(end)
            keys += text_key(text)
            name = piece.record.get("id")
            groups.append(-1 if name is None else seen.setdefault(str(name), len(seen)))
            found = [label for _, _, label in spans]
            self.labels.update(found)
            origin = source
            if "origin" in piece.record:
                origin = origin_of(piece.record, source)
                self.nested |= source == "old"
                origin = source_of({"origin": origin})
            self.annotated.setdefault(origin, set()).update(found)
        self.starts, self.ends, self.groups = (
            np.frombuffer(a, dtype=t) if len(a) else np.empty(0, t)
            for a, t in ((starts, np.uint64), (ends, np.uint64), (groups, np.int64))
        )
        self.keys = np.frombuffer(bytes(keys), dtype=np.uint64).reshape(-1, 2)
        self._kept_before = [number - nth for nth, number in enumerate(self.blanks, 1)]
        """For each blank record, how many that are kept stand before it."""
        self.copied = copies is not None
        if copies:
            copies.flush()
            self._handle = os.dup(copies.fileno())
            copies.close()

    def __len__(self) -> int:
        return len(self.starts)

    def raw(self, row: int) -> bytes:
        """One record's bytes."""
        if self._handle < 0:
            self._handle = os.open(self.path, os.O_RDONLY)
        start = int(self.starts[row])
        return os.pread(self._handle, int(self.ends[row]) - start, start)

    def __del__(self) -> None:
        if getattr(self, "_handle", -1) >= 0:
            os.close(self._handle)

    def place(self, number: int) -> str:
        """A record by its number, for people."""
        return f"{self.path.name} of {self.source}, record {number}"

    def number(self, row: int) -> int:
        """The number in the file of a record that is kept here as `row`: blank ones are not."""
        return row + 1 + bisect.bisect_right(self._kept_before, row)

    def record(self, row: int) -> dict[str, Any]:
        """One record."""
        raw = self.raw(row)
        if self.copied:
            return json.loads(raw)
        return read_piece(self.path, self.number(row), int(self.starts[row]), raw, self.seen.numbered)

    def line(self, row: int) -> bytes:
        """One record as one line of JSON with its `origin`; one of the new dataset that has an origin already keeps it."""
        origin = b'{"origin": "' + self.source.encode() + b'", '
        if self.nested:
            record = self.record(row)
            return json.dumps(record | {"origin": origin_of(record, "old")}, ensure_ascii=False).encode() + b"\n"
        if not self.plain:
            return origin + json.dumps(self.record(row), ensure_ascii=False).encode()[1:] + b"\n"
        raw = self.raw(row).strip()
        if b"\n" in raw or b"\r" in raw:
            raw = raw.replace(b"\r", b" ").replace(b"\n", b" ")
        return origin + raw[1:] + b"\n"


def _read(places: list[tuple[str, str, Path]]) -> list[_File]:
    """The files, read by two processes where they are large. What is read does not depend on it."""
    large = sum(path.stat().st_size for _, _, path in places if path.suffix in SUFFIXES) >= _LARGE
    if (
        not large
        or not all(path.suffix in SUFFIXES for _, _, path in places)
        or len(places) < 2
        or sys.platform != "linux"
        or len(os.sched_getaffinity(0)) < 2
    ):
        return [_File(*place) for place in places]
    readers = [_start_reader(places) for _ in range(2)]
    try:
        made = _gather(len(places), [connection for _, connection in readers])
    except (EOFError, OSError):  # of the ways to the readers: one was killed, by chance in the middle of an answer
        names = ", ".join(str(path) for _, _, path in places)
        raise DataError(
            f"a process that read {names} was killed: probably out of memory. Nothing was written; the same command begins again"
        ) from None
    finally:  # asked to stop, too: nobody waits for a large file to be read to its end
        for reader, connection in readers:
            reader.kill()
            reader.join()
            connection.close()
    if isinstance(made, Exception):
        raise made
    return made


def _gather(count: int, readers: list[Connection]) -> list[_File] | Exception:
    """Hand the numbers of the files to whichever reader is free; the files, in order, or the first error of reading one."""
    made: list[Any] = [None] * count
    numbers = iter(range(count))
    for connection in readers:
        connection.send(next(numbers))
    busy = list(readers)
    while busy:
        for reader in wait(busy):
            assert isinstance(reader, Connection)
            number, file = reader.recv()
            if isinstance(file, Exception):
                return file
            made[number] = file
            if (following := next(numbers, None)) is None:
                busy.remove(reader)
            else:
                reader.send(following)
    return made


def _start_reader(places: list[tuple[str, str, Path]]) -> tuple[BaseProcess, Connection]:
    """A process that reads the files whose numbers it is sent, and the way to it. Nobody else holds its end: when it dies, that is seen."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    reader = fork.Process(target=_answer, args=(places, there, os.getpid()), daemon=True)
    reader.start()
    there.close()
    return reader, here


def _answer(places: list[tuple[str, str, Path]], asked: Connection, parent: int) -> None:
    """A reader's life. It ends with the command, and is stopped by itself: the command's own handlers of signals are not for it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    die_with(parent)
    while True:
        number = asked.recv()
        try:
            file: Any = _File(*places[number])
        except Exception as error:  # the command raises it
            file = error
        asked.send((number, file))


class Records(Sequence):
    """Records of a combination, read from their files one by one when asked for."""

    def __init__(self, files: list[_File], which: np.ndarray, rows: np.ndarray):
        self._files, self._which, self._rows = files, which, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Records(self._files, self._which[place], self._rows[place])
        return self._files[self._which[place]].record(int(self._rows[place]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    def origin(self, place: int) -> str:
        """`old` or `new`."""
        return self._files[self._which[place]].source

    def lines(self) -> Iterator[bytes]:
        """The records as lines of JSON."""
        for which, row in zip(self._which.tolist(), self._rows.tolist(), strict=True):
            yield self._files[which].line(row)


@dataclass(frozen=True)
class CombinedDataset(Mapping):
    """What `combine_datasets` gives: ``["train"]`` and ``["validation"]`` are sequences of records; `report` says what was done."""

    train: Records
    validation: Records
    report: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, split: str) -> Records:
        return {"train": self.train, "validation": self.validation}[split]

    def __iter__(self) -> Iterator[str]:
        return iter(("train", "validation"))

    def __len__(self) -> int:
        return 2

    def fingerprint(self) -> str:
        """SHA-256 over both parts' lines."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation):
            for line in part.lines():
                digest.update(line)
            digest.update(b"\0")
        return digest.hexdigest()


def combine_datasets(
    old_dataset_path: Path | str | None,
    new_dataset_path: Path | str | None,
    strategy: str = "combined",
    validation_ratio: float = 0.1,
    random_seed: int = 42,
    *,
    create_new_validation: bool = True,
    replay: float | None = None,
    output_dir: Path | str | None = None,
) -> CombinedDataset:
    """Combine datasets by the rules above; with `output_dir`, write ``train.jsonl``, ``validation.jsonl``, ``report.json`` and the manifest there.

    A folder that an earlier call wrote, and that is still as it was, is replaced; no other is.

    Args:
        strategy: `new_only`, `combined` (shuffled) or `append` (order kept).
        validation_ratio: share of records for a new validation set, between 0 and 1, both excluded.
        replay: share of the old training records to keep, in (0, 1]; None keeps all.

    Raises:
        ConfigError: an argument is wrong.
        DataError: a file is missing or damaged, or nothing is left to train on. Nothing is written then.
        OutputError: the output folder is an input, or holds something that is not from here.
    """
    folders = _checked(strategy, old_dataset_path, new_dataset_path, validation_ratio, random_seed, replay)
    inputs = [Path(path) for path in (old_dataset_path, new_dataset_path) if path]
    if output_dir is not None:
        check_output_folder(Path(output_dir), MAKER, inputs)
    named = {source: dataset_files(folder, f"{source}_dataset_path") for source, folder in folders.items()}
    files = _read([(source, split, path) for source, parts in named.items() for split, path in parts.items()])
    plan = _Plan(files, int(random_seed))
    plan.drop_tested()
    if create_new_validation:
        plan.split_off(validation_ratio)
    plan.replay(replay)
    plan.drop_leaks()
    plan.drop_duplicates()
    made = plan.result(strategy, shuffled=strategy == "combined")
    made.report.update(
        strategy=strategy,
        validation_ratio=validation_ratio,
        random_seed=random_seed,
        replay=replay,
        create_new_validation=create_new_validation,
    )
    if not len(made.train):
        read = ", ".join(str(parts["train"]) for parts in named.values())
        raise DataError(
            f"nothing is left to train on: {json.dumps(made.report['dropped'])} of {made.report['read']}, read from {read}"
        )
    if output_dir is not None:
        write_folder(Path(output_dir), MAKER, lambda folder: _write(made, folder), inputs)
    return made


def _checked(strategy: str, old: Any, new: Any, ratio: Any, seed: Any, replay: Any) -> dict[str, Path]:
    """The folders that are read, by source, after a check of all arguments."""
    problems = []
    if strategy not in STRATEGIES:
        problems.append(f"data.strategy: Invalid strategy {strategy!r}; use one of {', '.join(STRATEGIES)}")
    if strategy != "new_only" and not old:
        problems.append(f"data.old_dataset_path is needed for strategy {strategy!r}; it is {old!r}")
    if not new:
        problems.append(f"data.new_dataset_path is needed; it is {new!r}")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < 1:
        problems.append(f"data.validation_ratio must be a number between 0 and 1 (both excluded), not {ratio!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        problems.append(f"data.random_seed must be a whole number, not {seed!r}")
    if replay is not None and (isinstance(replay, bool) or not isinstance(replay, int | float) or not 0 < replay <= 1):
        problems.append(f"data.replay must be a share above 0 and at most 1, not {replay!r}")
    if replay is not None and strategy == "new_only":
        problems.append("data.replay keeps old records, and strategy 'new_only' reads none; use 'combined' or 'append'")
    if problems:
        raise ConfigError(problems)
    return {"new": Path(new)} if strategy == "new_only" else {"old": Path(old), "new": Path(new)}


class _Plan:
    """Where every record of all files goes: flat arrays over all records, in source and file order."""

    def __init__(self, files: list[_File], seed: int):
        self.files = files
        self.which = np.concatenate([np.full(len(f), i, np.int32) for i, f in enumerate(files)])
        self.rows = np.concatenate([np.arange(len(f), dtype=np.int64) for f in files])
        self.keys = np.concatenate([f.keys for f in files])
        _, self.text = np.unique(self.keys.view("V16").ravel(), return_inverse=True)
        self.rank = _mixed(self.keys, seed, b"order")
        self.draw = _mixed(self.keys, seed, b"split")
        split = (
            np.array([("train", "validation", "test").index(f.split) for f in files])[self.which]
            if len(self.which)
            else self.which
        )
        self.train, self.validation, self.test = split == 0, split == 1, split == 2
        self.old = np.array([f.source == "old" for f in files])[self.which] if len(self.which) else split.astype(bool)
        self.dropped: dict[str, int] = {"blank text": sum(len(f.blanks) for f in files)}
        self.dropped |= sum((f.seen.left_out for f in files), Counter())
        named = {
            "blank text": [f.place(n) for f in files for n in f.blanks[:5]],
            "overlapping annotations": [f.place(n) for f in files for n in f.tangled[:5]],
        }
        self.examples: dict[str, list[str]] = {why: places[:5] for why, places in named.items() if places}
        self.notes = [
            f"{f.source} {f.path.name}: {count} × {why}"
            for f in files
            for why, count in sorted(f.seen.notes.items())
            if count
        ]

    def _drop(self, mask: np.ndarray, why: str) -> None:
        self.dropped[why] = int(mask.sum())
        if mask.any():
            first = [(self.files[self.which[i]], int(self.rows[i])) for i in np.flatnonzero(mask)[:5]]
            self.examples[why] = [file.place(file.number(row)) for file, row in first]
        self.train &= ~mask
        self.validation &= ~mask

    def drop_tested(self) -> None:
        """Texts of a test file neither train nor validate."""
        tested = np.zeros(self.text.max(initial=-1) + 1, bool)
        tested[self.text[self.test]] = True
        self._drop(tested[self.text] & (self.train | self.validation), "text stands in a test file")

    def replay(self, share: float | None) -> None:
        """Keep a share of the old training records: those that come first by hash."""
        if share is None:
            return
        old = np.flatnonzero(self.train & self.old)
        keep = old[np.argsort(self.draw[old], kind="stable")][: max(1, round(len(old) * share))]
        gone = self.train & self.old
        gone[keep] = False
        self._drop(gone, "not drawn for replay")

    def split_off(self, ratio: float) -> None:
        """A new validation set out of the training records of sources that have no validation file."""
        without = {f.source for f in self.files} - {f.source for f in self.files if f.split == "validation"}
        pool = np.flatnonzero(self.train & np.array([f.source in without for f in self.files])[self.which])
        if not without or len(pool) < 2:
            if without:
                self.notes.append(f"{len(pool)} record(s): too few to split a validation set off")
            return
        unit = self._units(pool)
        wanted = max(1, int(len(pool) * ratio))
        sizes = np.bincount(unit)
        first = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(first, unit, self.draw[pool])
        chosen, taken = np.zeros(len(sizes), bool), 0
        for group in np.argsort(first, kind="stable"):
            if taken >= wanted:
                break
            if taken + sizes[group] <= max(wanted, 1) or taken == 0 and sizes[group] < len(pool):
                chosen[group] = True
                taken += int(sizes[group])
        moved = pool[chosen[unit]]
        self.train[moved] = False
        self.validation[moved] = True

    def _units(self, pool: np.ndarray) -> np.ndarray:
        """Connected groups of the pool: records that share a text, or an id in one file."""
        parent = np.arange(len(pool))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        named = np.array([f.groups[r] for f, r in ((self.files[self.which[i]], self.rows[i]) for i in pool)])
        ids = np.where(named < 0, -1, named * len(self.files) + self.which[pool])
        for values in (self.text[pool], ids):
            order = np.argsort(values, kind="stable")
            same = np.flatnonzero((values[order][1:] == values[order][:-1]) & (values[order][1:] >= 0))
            for i in same:
                parent[root(order[i + 1])] = root(order[i])
        roots = np.array([root(i) for i in range(len(pool))])
        return np.unique(roots, return_inverse=True)[1]

    def drop_leaks(self) -> None:
        """Texts of validation leave training."""
        held = np.zeros(self.text.max(initial=-1) + 1, bool)
        held[self.text[self.validation]] = True
        self._drop(held[self.text] & self.train, "training text stands in validation")

    def drop_duplicates(self) -> None:
        """Of exactly equal texts one stays (new before old, then the smaller record digest); near-duplicates stay and are counted."""
        self.near, self.conflicts = 0, 0
        for mask, name in ((self.train, "training"), (self.validation, "validation")):
            members = np.flatnonzero(mask)
            counts = np.bincount(self.text[members], minlength=1)
            again = members[counts[self.text[members]] > 1]
            gone = np.zeros(len(mask), bool)
            groups: dict[int, list[int]] = {}
            for i in again.tolist():
                groups.setdefault(int(self.text[i]), []).append(i)
            for group in groups.values():
                by_text: dict[str, list[tuple[bool, bytes, int, str]]] = {}
                for i in group:
                    record = self.files[self.which[i]].record(int(self.rows[i]))
                    spans = json.dumps(sorted(record["annotations"]))
                    digest = hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=8).digest()
                    by_text.setdefault(record["text"], []).append((bool(self.old[i]), digest, i, spans))
                self.near += len(by_text) - 1
                for same in by_text.values():
                    same.sort()
                    self.conflicts += sum(s[3] != same[0][3] for s in same[1:])
                    gone[[s[2] for s in same[1:]]] = True
            self._drop(gone, f"duplicate in {name}")

    def result(self, strategy: str, shuffled: bool) -> CombinedDataset:
        """Ordered records of both parts, and the report."""
        parts = {}
        for name, mask in (("train", self.train), ("validation", self.validation)):
            members = np.flatnonzero(mask)
            if shuffled:
                members = members[np.lexsort((self.old[members], self.rank[members]))]
            parts[name] = Records(self.files, self.which[members], self.rows[members])
        sources = list(dict.fromkeys(f.source for f in self.files))
        kept = {
            name: {s: int((mask & (self.old == (s == "old"))).sum()) for s in sources}
            for name, mask in (("train", self.train), ("validation", self.validation))
        }
        for source in sources:
            if not kept["validation"][source]:
                self.notes.append(f"the {source} domain is not validated: no validation record comes from it")
        labels = {
            s: dict(sorted(sum((f.labels for f in self.files if f.source == s), Counter()).items())) for s in sources
        }
        read = {s: {f.split: len(f) + len(f.blanks) for f in self.files if f.source == s} for s in sources}
        report = {
            "read": read,
            "kept": kept,
            "dropped": self.dropped,
            "examples": self.examples,
            "near_duplicates_kept": self.near,
            "duplicates_with_other_annotations": self.conflicts,
            "annotations": labels,
            "labels_of_source": _annotated(self.files),
            "left_out": sorted({why for f in self.files for why, count in f.seen.left_out.items() if count}),
            "files": {f"{f.source} {f.path.name}": f.seen.what for f in self.files},
            "overlapping_annotations": {s: sum(f.overlapping for f in self.files if f.source == s) for s in sources},
            "notes": self.notes,
        }
        return CombinedDataset(parts["train"], parts["validation"], report)


def _annotated(files: list[_File]) -> dict[str, list[str]]:
    """Source → labels that occur in its training and validation records, before anything was dropped."""
    found: dict[str, set[str]] = {}
    for file in files:
        if file.split != "test":
            for source, labels in file.annotated.items():
                found.setdefault(source, set()).update(labels)
    return {source: sorted(labels) for source, labels in sorted(found.items())}


def _mixed(keys: np.ndarray, seed: int, purpose: bytes) -> np.ndarray:
    """A 64-bit hash of (seed, purpose, key) for each 128-bit key: two rounds of splitmix64's finaliser."""
    salt = np.frombuffer(hashlib.blake2b(f"{seed}".encode(), digest_size=16, person=purpose).digest(), np.uint64)
    out = keys[:, 0] ^ salt[0]
    for other in (keys[:, 1] ^ salt[1], salt[0]):
        out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out = (out ^ (out >> np.uint64(31))) ^ other
    return out


def _write(made: CombinedDataset, folder: Path) -> None:
    """Write both parts and the report."""
    for name, part in made.items():
        if len(part):
            with (folder / f"{name}.jsonl").open("wb") as out:
                _stream(part.lines(), out)
    report = json.dumps(made.report, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "report.json").write_text(report, encoding="utf-8")


def _stream(lines: Iterator[bytes], out: BinaryIO) -> None:
    """Write lines, about a megabyte at once, while the next ones are read."""
    with ThreadPoolExecutor(1) as writer:
        before = writer.submit(int)
        while chunk := b"".join(itertools.islice(lines, 256)):
            before.result()
            before = writer.submit(out.write, chunk)
        before.result()
