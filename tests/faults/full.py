"""A full disk, as far as a test can make one without rights."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes: writes fail as on a full disk. Python keeps no bytecode meanwhile: it would keep a part of it."""
    before, sys.dont_write_bytecode, kept = resource.getrlimit(resource.RLIMIT_FSIZE), True, sys.dont_write_bytecode
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = kept
