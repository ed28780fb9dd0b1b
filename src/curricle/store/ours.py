"""What is Curricle's own, and may therefore be deleted or replaced; what a user owns never is.

A folder of results may be replaced only when its manifest stands, this very command wrote it, and it holds exactly the manifest's files, unchanged.
Inputs, the working folder, the home folder, whatever holds one of them, links and mount points are refused whatever they hold.
In a store, an artifact loses the files that its manifest names; of an upload that was not finished, those that the layout or a complete
checkpoint beside it names. Everything else stays, and is named to whoever asked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from curricle.errors import CurricleError, OutputError, StoreError, StoreUnavailable
from curricle.store import Store, layout
from curricle.store.folder import FolderStore
from curricle.store.keys import manifests_first
from curricle.store.layout import MANIFEST
from curricle.store.local import folders_above, of_output
from curricle.store.manifest import FileEntry, Manifest, differences, read_manifest, sha256_of
from curricle.store.scratch import leftovers, scratch

_MADE_BY = "made_by"
"""The key of a manifest's `info` that says which command wrote the folder."""


def check_output_file(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse a file that may not be written: an input, a link, a folder, a device, a file of a store. Whether another plain file of that name
    may be replaced, `check_replaced` says.

    Raises:
        OutputError: says why.
    """
    if path.is_symlink():
        raise OutputError(f"the output {path} is a link, which is never overwritten; name the file itself")
    here = Path(os.path.realpath(path)).parent
    if any(_is_of_a_store(folder) for folder in (here, *here.parents)):
        raise OutputError(f"the output {path} lies in a run or an artifact of a store; choose another place")
    if not path.exists():
        return
    if any(path.samefile(other) for other in inputs if other.exists()):
        raise OutputError(f"the output {path} is the input itself, which is never overwritten; choose another name")
    if not path.is_file():
        raise OutputError(f"the output {path} is {'a folder' if path.is_dir() else 'no plain file'}; name a file")
    if any((here / name).is_file() for name in _RECORDS):
        raise OutputError(
            f"the output {path} lies beside a record of a run or an artifact of a store; choose another place"
        )


HEAD = 1 << 20
"""Bytes of a file by whose beginning it is told who wrote it."""


def check_replaced(path: Path, maker: str, is_own: Callable[[bytes], bool]) -> None:
    """Refuse to replace a file that another program, a person or another command wrote. An empty one holds nothing that could be lost.

    Args:
        maker: the command that writes, for the message.
        is_own: whether a file that begins so (`HEAD` bytes at most) is what this very command writes.

    Raises:
        OutputError: another file is there.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head and not is_own(head):
        raise OutputError(
            f"the output {path} is there already, and by what it holds `{maker}` did not write it; choose another name, or move it away"
        )


_RECORDS = {
    layout.MANIFEST: {"kind", "digest", "files"},
    layout.STAGE: {"digest", "config"},
    layout.PLAN: {"run_id", "stages"},
}
"""Files that a run, a stage or an artifact is known by, and keys that they have."""


def _is_of_a_store(folder: Path) -> bool:
    """Whether a run, a stage or an artifact lies in a folder; other programs have files of these names too."""
    for name, keys in _RECORDS.items():
        with suppress(OSError):
            if (folder / name).is_file() and keys <= layout.read_record((folder / name).read_bytes()).keys():
                return True
    return False


def check_output_folder(folder: Path, maker: str, inputs: Iterable[Path] = ()) -> Manifest | None:
    """Refuse a folder that may not be written; the manifest of what `maker` wrote there before, None where nothing is there.

    Args:
        maker: the command that writes, as `write_folder` notes it.
        inputs: what is read: neither it nor what holds it may be replaced.

    Raises:
        OutputError: names the first thing that is not Curricle's, or says why the place itself is refused.
    """

    def refused(problem: str) -> OutputError:
        return OutputError(
            f"the output folder {folder} {problem}; nothing was written. Choose a new or an empty folder"
        )

    here = Path(os.path.abspath(folder))
    if here.is_symlink():
        raise refused("is a link")
    if here.exists() and not here.is_dir():
        raise refused("is a file")
    real = Path(os.path.realpath(here))
    if real.is_mount():
        raise refused("is a mount point")
    kept = [(Path(other), f"the input {other}") for other in inputs] + [(Path.cwd(), "the working folder")]
    with suppress(RuntimeError):  # no home folder is known
        kept.append((Path.home(), "the home folder"))
    for other, what in kept:
        if real == (place := Path(os.path.realpath(other))) or real in place.parents:
            raise refused(f"is {what}" if real == place else f"holds {what}")
    if not here.is_dir() or not any(here.iterdir()):
        return None
    try:
        manifest = read_manifest(FolderStore(str(here)), "")
    except StoreError as error:
        raise refused(f"holds a {MANIFEST} that is damaged ({error})") from None
    if manifest is None:
        first = min(path.name for path in here.iterdir())
        raise refused(
            f"holds {first}, and no {MANIFEST} that proves it to be Curricle's (earlier versions wrote none: "
            "if all in it is theirs, delete it yourself)"
        )
    if manifest.info.get(_MADE_BY) != maker:
        raise refused(f"holds something else than `{maker}` wrote, by its {MANIFEST}")
    if strangers := _strangers(here, manifest):
        raise refused(f"holds {strangers[0]}, which Curricle did not write")
    if changed := differences(FolderStore(str(here)), "", manifest):
        raise refused(f"was changed since it was written: {'; '.join(changed)}")
    return manifest


def write_folder(folder: Path, maker: str, fill: Callable[[Path], object], inputs: Iterable[Path] = ()) -> None:
    """Write a folder of results with its manifest, all or nothing; what the same command wrote there before is replaced.

    The new folder is written beside the place. The old one is moved away, the new one moved in, and only then is the old one deleted; what
    stops in between is put back, after a kill by the next call.

    Args:
        fill: writes the files into the empty folder that it is given.

    Raises:
        OutputError: see `check_output_folder`.
        OSError: the place cannot be written to.
    """
    inputs = list(inputs)
    with folders_above(folder):
        _write_folder(folder, maker, fill, inputs)


def _write_folder(folder: Path, maker: str, fill: Callable[[Path], object], inputs: list[Path]) -> None:
    prefix = f".{folder.name[:40]}.writing-"
    for left in leftovers(prefix, folder.parent):
        if (left / "old").is_dir() and not os.path.lexists(folder):
            (left / "old").rename(folder)
    with _beside(folder, prefix) as place:
        fresh, old = place / "new", place / "old"
        fresh.mkdir()
        fill(fresh)
        _seal(fresh, maker)
        former = check_output_folder(folder, maker, inputs)
        if former is None:
            fresh.rename(folder)
            return
        folder.rename(old)
        try:
            if strangers := _strangers(old, former):
                raise OutputError(
                    f"{folder / strangers[0]} was put there just now and is not Curricle's; nothing was written"
                )
            fresh.rename(folder)
        except BaseException:
            old.rename(folder)
            raise


@contextmanager
def _beside(folder: Path, prefix: str) -> Iterator[Path]:
    """`scratch` beside a folder; what the system says of it is said of `folder`."""
    try:
        with scratch(prefix, folder.parent) as place:
            yield place
    except CurricleError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        raise of_output(error, folder, folder.parent / prefix) from None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder` when the block ends well: whole or not at all. Nothing is replaced.

    Raises:
        OutputError: something is there.
        OSError: the place cannot be written to.
    """
    require_free(folder)
    with folders_above(folder), _beside(folder, f".{folder.name[:40]}.new-") as place:
        fresh = place / "new"
        fresh.mkdir()
        yield fresh
        require_free(folder)
        fresh.rename(folder)


def retire(store: Store, prefix: str) -> list[str]:
    """Delete an artifact, its manifest first; the keys of what stays at its place, since it is not Curricle's.

    Without a manifest it is an upload that was not finished: what the layout, or a complete checkpoint beside it, names is deleted.

    Raises:
        StoreError: the store refuses.
    """
    keys = [entry.key for entry in store.list(f"{prefix}/")]
    if not keys:
        return []
    manifest = _manifest(store, prefix)
    names = set(manifest.files) | {MANIFEST} if manifest else _names_of_checkpoints(store, prefix.rpartition("/")[0])
    return _delete(store, prefix, keys, {f"{prefix}/{name}" for name in names})


def retire_stage(store: Store, prefix: str) -> list[str]:
    """Delete a stage, its manifest first, with its checkpoints, and without the claim on its place; the keys of what stays, since it is not
    Curricle's.

    Raises:
        StoreError: the store refuses.
    """
    skip = len(prefix) + 1
    keys = [entry.key for entry in store.list(f"{prefix}/") if entry.key[skip:] != layout.CLAIM]
    files = [key for key in keys if "/" not in key[skip:]]
    own = {f"{prefix}/{name}" for name in layout.STAGE_FILES}
    stays = [key for key in files if key not in own]
    for key in [key for part in manifests_first(files) for key in part if key in own]:
        store.delete(key)
    folders = sorted({key[skip:].partition("/")[0] for key in keys if key not in files})
    known = _names_of_checkpoints(store, prefix)
    for name in folders:
        place = f"{prefix}/{name}"
        inside = [key for key in keys if key.startswith(f"{place}/")]
        manifest = _manifest(store, place) if layout.is_checkpoint(name) else None
        names = set(manifest.files) | {MANIFEST} if manifest else known if layout.is_checkpoint(name) else set()
        stays += _delete(store, place, inside, {f"{place}/{own_name}" for own_name in names})
    return sorted(stays)


def _delete(store: Store, prefix: str, keys: list[str], own: set[str]) -> list[str]:
    """Delete those of the keys under `prefix` that are our own, at once where all are; the others."""
    others = [key for key in keys if key not in own]
    if not others:
        store.delete(prefix)
    else:
        for key in [key for part in manifests_first(keys) for key in part if key in own]:
            store.delete(key)
    return others


def _manifest(store: Store, prefix: str) -> Manifest | None:
    """The manifest at a place; None where there is none, or one that is damaged and proves nothing."""
    try:
        return read_manifest(store, prefix)
    except StoreUnavailable:
        raise
    except StoreError:
        return None


def _names_of_checkpoints(store: Store, stage: str) -> set[str]:
    """Names that a checkpoint's files have at a stage's place: the layout's, and those of the complete checkpoints that are there."""
    names = set(layout.CHECKPOINT_FILES)
    for entry in store.list(f"{stage}/" if stage else ""):
        place, _, name = entry.key.rpartition("/")
        above, _, folder = place.rpartition("/")
        if name == MANIFEST and above == stage and layout.is_checkpoint(folder):
            manifest = _manifest(store, place)
            names |= set(manifest.files) if manifest else set()
    return names


def _seal(folder: Path, maker: str) -> None:
    """Write the manifest of a folder's files: their sizes and digests, and who made them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {p.relative_to(folder).as_posix(): FileEntry(p.stat().st_size, sha256_of(p)) for p in paths}
    digest = hashlib.sha256("".join(f"{name} {entry.sha256}\n" for name, entry in files.items()).encode()).hexdigest()
    manifest = Manifest(kind="dataset", digest=digest, files=files, info={_MADE_BY: maker})
    FolderStore(str(folder)).write(MANIFEST, manifest.to_json().encode())


def _strangers(folder: Path, manifest: Manifest) -> list[str]:
    """What lies in a folder beside the manifest's files, the manifest and their folders: links too, and empty folders."""
    own = {MANIFEST, *manifest.files}
    own |= {above.as_posix() for name in manifest.files for above in Path(name).parents}
    return sorted(
        name
        for path in folder.rglob("*")
        if (name := path.relative_to(folder).as_posix()) not in own or path.is_symlink()
    )


def require_free(place: Path, *, for_file: bool = False) -> None:
    """Refuse a place where anything is but an empty folder; for a file that too.

    Raises:
        OutputError: something is there.
    """
    empty = place.is_dir() and not place.is_symlink() and not any(place.iterdir())
    if for_file and empty:
        raise OutputError(f"{place} is a folder, and a file is written; name the file: {place / 'NAME'}")
    if os.path.lexists(place) and not empty:
        raise OutputError(f"{place} is there already, and is not overwritten; name another one, or move it away")
