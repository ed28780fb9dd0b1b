import threading

from hypothesis import given
from hypothesis import strategies as st

from curricle.errors import JobError
from curricle.launch.kubernetes.logs import Lines, PodLog, tail_of

LOG = [f"2026-01-01T00:00:{i // 2:02d}.{i % 2}Z line {i}" for i in range(40)]


def source(lines):
    return "".join(x + "\n" for x in lines).encode()


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), max_size=6), st.integers(1, 17))
def test_every_line_comes_once_however_often_the_connection_breaks(cuts, size):
    """Each connection starts again somewhere before what was seen, and breaks after some bytes."""
    lines, got, seen = Lines(), [], 0
    for back, much in [*cuts, (40, 10**6)]:
        start = max(0, seen - back)
        lines.restart()
        data = source(LOG[start:])[: much * 7]
        for i in range(0, len(data), size):
            got += lines.feed(data[i : i + size])
        seen = len(got)
    got += lines.finish()
    assert got == [x.split(" ", 1)[1] for x in LOG]


def test_equal_lines_of_one_instant_are_kept_apart():
    lines = Lines()
    same = b"2026-01-01T00:00:00Z tick\n"
    assert lines.feed(same * 2) == ["tick", "tick"]
    lines.restart()
    assert lines.feed(same * 3) == ["tick"]


def test_a_line_a_little_out_of_order_is_not_lost():
    lines = Lines()
    assert lines.feed(b"2026-01-01T00:00:00.2Z out\n2026-01-01T00:00:00.1Z err\n") == ["out", "err"]


def test_the_last_line_needs_no_newline():
    lines = Lines()
    assert lines.feed(b"2026-01-01T00:00:00Z the end") == []
    assert lines.finish() == ["the end"]


class Flaky:
    """Breaks twice in the middle, then gives everything once the container has ended."""

    def __init__(self):
        self.calls = 0
        self.broken = threading.Event()

    def read_log(self, pod, *, since_seconds, follow):
        self.calls += 1
        yield source(LOG[:10])[:-5]
        if self.calls <= 2:
            raise OSError("connection reset")
        self.broken.set()
        if not follow:
            yield source(LOG)[len(source(LOG[:10])) - 5 : -1]


def test_a_pods_log_is_read_to_its_end_over_broken_connections():
    flaky, got = Flaky(), []
    log = PodLog(flaky, "p", got.append, pause=0.01)
    assert flaky.broken.wait(5)
    log.end()
    log.join(5)
    assert got == [x.split(" ", 1)[1] for x in LOG] == list(log.tail)


def test_a_log_that_may_not_be_read_says_so_once():
    class Refused:
        def read_log(self, pod, *, since_seconds, follow):
            raise JobError("pods/log is forbidden")

    got = []
    log = PodLog(Refused(), "p", got.append, pause=0.01)
    log.join(5)
    assert got == ["(this pod's log cannot be read: pods/log is forbidden)"]


def test_lines_carry_role_and_index():
    assert tail_of("hello", "job-1-worker-3", "job-1") == "[worker-3] hello"
