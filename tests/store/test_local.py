"""A file that is written whole: at once there, or not at all."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE

import numpy
import pytest

from curricle.errors import OutputError
from curricle.store.local import folders_above, is_open_pipe, is_part, of_output, what_else, write_whole
from tests.faults.full import file_size_limit


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path):
    for content in (b"one", b"two"):
        write_whole(tmp_path / "k", lambda out, content=content: out.write(content))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("k", b"two")]


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_what_fails_half_way_leaves_the_old_file_and_no_part(tmp_path, stop):
    (tmp_path / "k").write_bytes(b"old")

    def fill(out):
        out.write(b"half")
        assert sorted(is_part(p.name) for p in tmp_path.iterdir()) == [False, True]
        raise stop

    with pytest.raises(type(stop)):
        write_whole(tmp_path / "k", fill)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("k", b"old")]


def test_an_error_names_the_file_and_not_its_part(tmp_path):
    def full(out):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as error:
        write_whole(tmp_path / "k", full)
    assert error.value.filename == str(tmp_path / "k")
    with (
        pytest.raises(OSError, match=r"only a part could be written .*is the disk full.*/k'") as error,
        file_size_limit(1000),
    ):
        write_whole(tmp_path / "k", lambda out: numpy.save(out, numpy.zeros(5000)))
    with pytest.raises(FileNotFoundError) as error:
        write_whole(tmp_path / "none" / "k", full)
    assert error.value.strerror == "No such file or directory"


def test_writers_of_one_file_at_the_same_time_do_not_meet(tmp_path):
    contents = [bytes([65 + i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_whole(tmp_path / "k", lambda out: out.write(content)), contents * 5))
    assert (tmp_path / "k").read_bytes() in contents and len(list(tmp_path.iterdir())) == 1


def test_a_new_file_has_the_mode_that_the_umask_gives_and_the_longest_name_fits(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / ("商" * 85), lambda out: out.write(b"x"))
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_killed_writers_left_goes_with_the_next_write_and_other_parts_stay(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom curricle.store.local import write_whole\n"
        "write_whole(Path(sys.argv[1]), lambda out: (print('ready', flush=True), time.sleep(60)))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / name], stdout=PIPE) for name in ("k", "other")]
    for writer in writers:
        assert writer.stdout.readline()
    strange = tmp_path / f".k.{'0' * 32}.part"  # of an earlier version, or anybody's
    strange.touch()
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 3 and all(is_part(name) for name in names)
    write_whole(tmp_path / "k", lambda out: out.write(b"x"))
    assert {path.name for path in tmp_path.iterdir()} == {*names, "k"}, "they live"
    for writer in writers:
        writer.kill()
        writer.communicate()
    write_whole(tmp_path / "k", lambda out: out.write(b"x"))
    left = {path.name for path in tmp_path.iterdir()} - {"k", strange.name}
    assert strange.exists() and len(left) == 1 and left.pop().startswith(".other.")


def test_folders_that_were_made_for_a_file_go_with_it_and_others_stay(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError), folders_above(tmp_path / "a/b/c/k"):
        raise ValueError
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    with pytest.raises(ValueError), folders_above(tmp_path / "a/b/c/k"):
        (tmp_path / "a/b/mine").write_text("x")
        raise ValueError
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "mine"]
    with folders_above(tmp_path / "d/k"):
        pass
    assert (tmp_path / "d").is_dir()


def test_what_is_neither_a_file_nor_a_folder_is_told_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    reader, writer = os.pipe()
    names = {
        "fifo": "a pipe",
        "s": "a socket",
        ".": "",
        "none": "",
        "/dev/zero": "a device",
        f"/dev/fd/{reader}": "a pipe",
    }
    assert {name: what_else(tmp_path / name) for name in names} == names
    assert [name for name in names if is_open_pipe(tmp_path / name)] == [f"/dev/fd/{reader}"]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"), OSError(28, "No space left on device", "in.txt", None, ".out.new-1/x"),
    OSError(122, "Disk quota exceeded", ".out.new-1/x"), shutil.Error([("a", ".out.new-1/x", "[Errno 28] No space left on device: 'a'")]),
])  # fmt: skip
def test_a_full_disk_names_what_was_asked_for_and_the_disk_and_no_hidden_file(error, tmp_path):
    told = of_output(error, tmp_path / "out", Path(".out.new-"))
    disk = next(str(folder) for folder in tmp_path.parents if folder.is_mount())
    assert (
        told.filename == str(tmp_path / "out")
        and f"on the disk at {disk} (" in told.strerror
        and ".out.new" not in str(told)
    )


def test_an_error_of_a_hidden_file_names_what_was_asked_for_and_another_files_its_own():
    denied = of_output(PermissionError(13, "Permission denied", ".out.new-1/x"), Path("out"), Path(".out.new-"))
    assert (denied.errno, denied.filename) == (13, "out")
    read = PermissionError(13, "Permission denied", "in.txt")
    assert of_output(read, Path("out"), Path(".out.new-")) is read


def test_a_file_where_a_folder_would_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="file/a/out cannot be written: .*file is no folder"),
        folders_above(tmp_path / "file/a/out"),
    ):
        pass
