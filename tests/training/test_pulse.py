"""Whoever waits is told now and then what goes on, of every phase, and by one voice alone."""

import pytest

from curricle.training import pulse
from curricle.training.events import Working
from curricle.training.pulse import Pulse, heard_by, silent, working


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    return now


def test_a_phase_is_told_every_thirty_seconds_and_nothing_of_a_fast_one(clock):
    lines = []
    told = Pulse(lines.append)
    with working("curricle evaluate"):
        with working("opening the model"):
            clock[0] += 29
            told.beat()
        assert lines == []
        with working("encoding texts") as phase:
            phase.count(0, 600)
            for _ in range(60):
                clock[0] += 1
                phase.count(phase.done + 5, 600)
                told.beat()
        clock[0] += 30
        told.beat()
    clock[0] += 300
    told.beat()
    assert lines == [
        "encoding texts: 5 of 600",
        "encoding texts: 155 of 600, 31 s so far, 89 s left",
        "curricle evaluate, 2 min so far",
    ]


def test_the_innermost_voice_speaks_alone_and_bars_silence_all(clock):
    outer, inner = [], []
    first, second = Pulse(outer.append), Pulse(inner.append)
    first._run = second._run = lambda: None
    with working("waiting"), first:
        with second, silent():
            clock[0] += 60
            first.beat(), second.beat()
        assert (outer, inner) == ([], [])
        clock[0] += 29
        first.beat()
        assert outer == [], "who spoke last is waited for"
        clock[0] += 1
        first.beat(), second.beat()
    assert (outer, inner) == (["waiting, 2 min so far"], [])


def test_the_thread_tells_by_itself(monkeypatch):
    said = []
    monkeypatch.setattr(pulse, "EVERY", 0.0)
    told = Pulse(said.append)
    monkeypatch.setattr(told._ended, "wait", lambda seconds: bool(said))
    with working("making ready"), told:
        told._thread.join(10)
    assert said == ["making ready"]


def test_a_worker_makes_events_of_its_phases():
    heard = []
    with heard_by(heard.append), working("encoding texts") as phase:
        phase.count(3, 6)
    with working("nobody hears"):
        pass
    assert heard == [Working("encoding texts", 0, 0), Working("encoding texts", 3, 6)]
