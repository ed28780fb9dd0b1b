"""A file that is written whole: at once there, or not at all."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from subprocess import PIPE

import numpy
import pytest

from curricle.store.local import is_part, write_whole
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
