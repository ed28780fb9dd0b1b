"""Folders of work under way: what a killed process left goes with the next start, and what lives or is not ours stays."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from curricle.store import scratch
from curricle.store.process import Machine, machine, process_start
from curricle.store.scratch import leftovers, make_scratch


def test_a_folder_goes_with_its_block(tmp_path):
    with pytest.raises(KeyError), scratch.scratch("job-", tmp_path) as folder:
        (folder / "deep").mkdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_start(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom curricle.store.scratch import make_scratch\n"
        "(make_scratch('job-', Path(sys.argv[1])) / 'big').touch()\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    (left,) = tmp_path.iterdir()
    assert make_scratch("job-", tmp_path).exists() and left.exists(), "its process lives"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    make_scratch("other-", tmp_path)
    assert left.exists(), "it has another prefix"
    mine = make_scratch("job-", tmp_path)
    assert mine.exists() and not left.exists()


def test_what_is_not_surely_a_dead_ones_stays(tmp_path, dead, monkeypatch):
    left = dead(make_scratch("job-", tmp_path))
    (tmp_path / "job-of-mine").mkdir()
    (tmp_path / "away").mkdir()
    (tmp_path / left.name.replace("job-", "job-9")).touch()
    assert leftovers("job-", tmp_path) == [left]
    left.rename(tmp_path / "away" / left.name)
    left.symlink_to(tmp_path / "away" / left.name)
    assert leftovers("job-", tmp_path) == []
    left.unlink()
    (tmp_path / "away" / left.name).rename(left)
    here = machine()
    for there, judged in (
        (here._replace(host="other"), []),
        (here._replace(namespace="of a container"), []),
        (here._replace(boot="after the next start"), [left]),
        (Machine("other", "other", "other"), []),
    ):
        monkeypatch.setattr(scratch, "machine", lambda there=there: there)
        assert leftovers("job-", tmp_path) == judged


def test_a_number_that_was_given_again_is_another_process(tmp_path):
    folder = make_scratch("job-", tmp_path)
    start = process_start(os.getpid())
    assert leftovers("job-", tmp_path) == []
    again = folder.rename(folder.with_name(folder.name.replace(f"-{start}-", "-1-")))
    assert leftovers("job-", tmp_path) == [again]


def test_threads_that_make_and_remove_folders_at_once_do_not_stumble_over_each_other(tmp_path):
    def work(_: int) -> None:
        for _ in range(100):
            with scratch.scratch("curricle-x-", tmp_path) as folder:
                assert folder.is_dir()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_vanishes_while_it_is_looked_at_is_none_of_the_leftovers(tmp_path, dead, monkeypatch):
    left = dead(make_scratch("curricle-x-", tmp_path))
    listed = list(os.scandir(tmp_path))
    left.rmdir()

    class Listing(list):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", lambda parent: Listing(listed))
    assert leftovers("curricle-x-", tmp_path) == []
