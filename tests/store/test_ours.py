"""Only what Curricle wrote is replaced or deleted: in folders of results, and in every store."""

import gc
import os
from pathlib import Path

import pytest

from curricle.errors import OutputError
from curricle.store import Store, layout, open_store
from curricle.store.manifest import publish, read_manifest
from curricle.store.ours import (
    check_output_file,
    check_output_folder,
    new_folder,
    require_free,
    retire,
    retire_stage,
    write_folder,
)
from curricle.store.scratch import make_scratch

MAKER = "curricle test"


def fill(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "sub/b.txt").write_text("b")


def write(folder: Path, **given) -> None:
    write_folder(folder, MAKER, given.pop("fill", fill), **given)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def written(tmp_path):
    """A folder as it was written."""
    write(tmp_path / "out")
    return tmp_path / "out"


def test_what_was_written_and_is_unchanged_is_replaced_whole(written):
    assert set(tree(written)) == {"a.txt", "sub/b.txt", layout.MANIFEST}
    write(written, fill=lambda folder: (folder / "c.txt").write_text("c"))
    assert set(tree(written)) == {"c.txt", layout.MANIFEST}
    assert [p.name for p in written.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_filled_with_the_usual_permissions(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "plain").mkdir()
    write(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


SPOILT = {
    "a file more": (lambda out: (out / "thesis.txt").write_text("x"), "holds thesis.txt, which Curricle did not write"),
    "a hidden file more": (lambda out: (out / "sub/.notes").write_text("x"), "holds sub/.notes"),
    "an empty folder more": (lambda out: (out / "mine").mkdir(), "holds mine"),
    "a link for a file": (
        lambda out: ((out / "a.txt").rename(out.parent / "a"), (out / "a.txt").symlink_to(out.parent / "a")),
        "holds a.txt",
    ),
    "a file changed": (lambda out: (out / "a.txt").write_text("b"), "a.txt was altered"),
    "a file lost": (lambda out: (out / "a.txt").unlink(), "a.txt is missing"),
    "no manifest": (
        lambda out: (out / layout.MANIFEST).unlink(),
        "holds a.txt, and no manifest.json.*earlier versions",
    ),
    "a damaged manifest": (lambda out: (out / layout.MANIFEST).write_text("[" * 5000), "manifest.json that is damaged"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_folder_that_is_not_as_it_was_written_is_left_alone_and_the_first_strange_thing_named(written, case):
    spoil, message = SPOILT[case]
    spoil(written)
    before = tree(written)
    gc.collect()  # what is collected at the bottom of a deep recursion fails there, which pytest takes for a failure of this test
    with pytest.raises(OutputError, match=message):
        write(written)
    assert tree(written) == before


def test_another_commands_folder_is_left_alone(written):
    with pytest.raises(OutputError, match="something else than `curricle other` wrote"):
        check_output_folder(written, "curricle other")


def test_places_that_are_more_than_an_output_are_refused_whatever_they_hold(written, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(written)
    (tmp_path / "file").touch()
    (tmp_path / "home/below").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home/below"))
    cases = [
        (tmp_path / "link", "is a link"),
        (tmp_path / "file", "is a file"),
        (Path("/"), "is a mount point"),
        (tmp_path / "home", "holds the home folder"),
        (tmp_path / "home/below", "is the home folder"),
        (written.parent / "home/../out", "is the input"),
    ]
    for place, message in cases:
        with pytest.raises(OutputError, match=message):
            write(place, inputs=[written])
    with pytest.raises(OutputError, match="holds the input"):
        write(written, inputs=[written / "sub"])
    monkeypatch.chdir(written / "sub")
    for place, message in (
        (Path(), "is the working"),
        (Path(".."), "holds the working"),
        (written, "holds the working"),
    ):
        with pytest.raises(OutputError, match=message):
            write(place)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["old", "out"])
def test_a_stop_at_any_rename_leaves_the_old_folder(written, name, monkeypatch):
    before, rename = tree(written), Path.rename

    def stopping(self, target):
        if Path(target).name == name and self.name != "old":
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopping)
    with pytest.raises(Killed):
        write(written)
    assert tree(written) == before and [p.name for p in written.parent.iterdir()] == ["out"]


def test_after_a_kill_between_the_renames_the_next_call_puts_the_old_folder_back(written, dead):
    before = tree(written)
    place = dead(make_scratch(".out.writing-", written.parent))
    written.rename(place / "old")

    def failing(folder):
        raise Killed

    with pytest.raises(Killed):
        write(written, fill=failing)
    assert tree(written) == before and not place.exists()


def test_a_file_that_comes_while_the_folder_is_moved_is_kept(written, monkeypatch):
    rename = Path.rename

    def late(self, target):
        if self == written:
            (self / "late.txt").write_text("mine")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(OutputError, match=r"late.txt was put there just now"):
        write(written)
    assert (written / "late.txt").read_text() == "mine" and (written / "a.txt").read_text() == "a"


def test_a_new_folder_is_whole_or_not_there_and_replaces_nothing(tmp_path):
    with pytest.raises(Killed), new_folder(tmp_path / "deep/out") as folder:
        fill(folder)
        raise Killed
    assert not (tmp_path / "deep").exists(), "a folder that was made for it goes too"
    with new_folder(tmp_path / "deep/out") as folder:
        fill(folder)
    assert set(tree(tmp_path / "deep/out")) == {"a.txt", "sub/b.txt"}
    (tmp_path / "dangling").symlink_to("nowhere")
    for place in ("deep/out", "dangling"):
        with pytest.raises(OutputError, match="is there already"), new_folder(tmp_path / place):
            pass


def test_a_plain_file_is_replaced_and_nothing_else(tmp_path):
    for name in ("in", "out"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.link(tmp_path / "in", tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    for name in ("out", "new"):
        check_output_file(tmp_path / name, [tmp_path / "in"])
    for record in (layout.MANIFEST, layout.STAGE, layout.PLAN):
        (tmp_path / record[:4]).mkdir()
        for name in (record, "other.csv"):
            (tmp_path / record[:4] / name).touch()
            with pytest.raises(OutputError, match="a run or an artifact of a store"):
                check_output_file(tmp_path / record[:4] / name)
    cases = {"in": "never overwritten", "hard": "never overwritten", "link": "is a link", "dangling": "is a link"}
    for name, message in (cases | {"pipe": "no plain file", ".": "a folder"}).items():
        with pytest.raises(OutputError, match=message):
            check_output_file(tmp_path / name, [tmp_path / "in"])


def test_a_file_is_not_written_anywhere_inside_of_an_artifact_and_other_programs_have_manifests_too(tmp_path):
    made = tmp_path / "made"
    (made / "tokenizer").mkdir(parents=True)
    (made / "tokenizer/tokenizer.json").write_text("x")
    publish(open_store(str(tmp_path / "s")), "r/01/best.ckpt", made, kind="checkpoint", digest="d")
    for name in ("tokenizer/tokenizer.json", "tokenizer/new.csv", "tokenizer/deep/new.csv", "new.csv"):
        with pytest.raises(OutputError, match="a run or an artifact of a store"):
            check_output_file(tmp_path / "s/r/01/best.ckpt" / name)
    (tmp_path / "web/sub").mkdir(parents=True)
    (tmp_path / "web/manifest.json").write_text('{"name": "a page"}')
    check_output_file(tmp_path / "web/sub/out.csv")


@pytest.fixture
def stage(store: Store, tmp_path) -> Store:
    """A store with a stage's place: a complete checkpoint, half a one, and the stage's own files."""
    made = tmp_path / "made"
    (made / "adapter").mkdir(parents=True)
    for name in (layout.WEIGHTS, "adapter/a.json"):
        (made / name).write_text("x")
    publish(store, "r/01/last.ckpt", made, kind="checkpoint", digest="d")
    for name in (layout.WEIGHTS, layout.STATE, "adapter/a.json"):
        store.write(f"r/01/{layout.SPARE}/{name}", b"half")
    for name in (layout.STAGE, layout.FAILURE, layout.CLAIM):
        store.write(f"r/01/{name}", b"{}")
    publish(store, "r/01", None, kind="stage", digest="d")
    return store


def keys(store: Store) -> list[str]:
    return [entry.key for entry in store.list("")]


def test_a_retired_artifact_is_gone_and_its_neighbours_are_not(stage):
    publish(stage, "r/01/last.ckpt2", None, kind="checkpoint", digest="d")
    assert retire(stage, "r/01/last.ckpt") == [] and retire(stage, "r/01/nothing") == []
    assert retire(stage, f"r/01/{layout.SPARE}") == [f"r/01/{layout.SPARE}/adapter/a.json"]
    assert read_manifest(stage, "r/01/last.ckpt") is None and read_manifest(stage, "r/01/last.ckpt2") is not None
    assert not [key for key in keys(stage) if key.startswith("r/01/last.ckpt/")]


def test_half_an_upload_is_known_by_a_whole_checkpoint_beside_it(stage):
    assert retire(stage, f"r/01/{layout.SPARE}") == []
    assert not [key for key in keys(stage) if layout.SPARE in key]


@pytest.mark.parametrize("place", ["r/01/last.ckpt", f"r/01/{layout.SPARE}"])
def test_a_users_file_beside_an_artifacts_own_stays_however_often_it_is_retired(stage, place):
    stage.write(f"{place}/notes.txt", b"mine")
    for _ in range(2):
        assert retire(stage, place) == [f"{place}/notes.txt"]
    assert [key for key in keys(stage) if key.startswith(f"{place}/")] == [f"{place}/notes.txt"]


def test_a_retired_stage_leaves_its_claim_and_what_a_user_put_there(stage):
    mine = ["r/01/notes.txt", "r/01/plots/loss.png", "r/01/last.ckpt/notes.txt", "r/01/old/manifest.json"]
    for key in mine:
        stage.write(key, b"mine")
    assert retire_stage(stage, "r/01") == sorted(mine)
    assert keys(stage) == sorted([*mine, f"r/01/{layout.CLAIM}"])


def test_a_stage_of_ours_alone_goes_whole(stage):
    stage.delete(f"r/01/{layout.CLAIM}")
    assert retire_stage(stage, "r/01") == [] and keys(stage) == []


def test_a_full_disk_names_the_folder_that_was_asked_for(tmp_path):
    def fill(folder):
        raise OSError(28, "No space left on device", str(folder / "x"))

    with pytest.raises(OSError, match="No space left on device on the disk at") as error:
        write_folder(tmp_path / "out", "curricle combine", fill)
    assert error.value.filename == str(tmp_path / "out") and not list(tmp_path.iterdir())
    with (
        pytest.raises(OSError, match="No space left on device on the disk at") as error,
        new_folder(tmp_path / "new") as fresh,
    ):
        fill(fresh)
    assert error.value.filename == str(tmp_path / "new") and not list(tmp_path.iterdir())


def test_an_empty_folder_is_free_for_a_folder_and_not_for_a_file(tmp_path):
    (tmp_path / "empty").mkdir()
    require_free(tmp_path / "empty")
    with pytest.raises(OutputError, match="empty is a folder, and a file is written"):
        require_free(tmp_path / "empty", for_file=True)
