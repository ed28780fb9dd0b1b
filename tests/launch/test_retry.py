"""Attempts at a job: which causes are tried again, when it is given up, and what becomes of a job that nobody waits for any more."""

import pytest

from curricle.errors import Interrupted, JobError
from curricle.launch.job import RETRYABLE, Job, Outcome
from curricle.launch.local import LocalLauncher
from curricle.launch.retry import run_with_retries

JOB = Job("r-1", ("-c", "pass"), 1, 1, digest="d")


class Script:
    """A launcher whose attempts end as told: by a reason, or by an exception while it is waited for."""

    def __init__(self, *ends):
        self.ends, self.submitted, self.cancelled = list(ends), 0, []

    def submit(self, job):
        assert job is JOB
        self.submitted += 1
        return str(self.submitted)

    def wait(self, handle, on_log):
        end = self.ends[int(handle) - 1]
        if isinstance(end, BaseException):
            raise end
        return Outcome("succeeded" if end == "succeeded" else "failed", end, 0, end)

    def cancel(self, handle):
        self.cancelled.append(handle)


def run(script, *advanced, lines=None):
    steps = iter(advanced)
    lines = [] if lines is None else lines
    return run_with_retries(
        script, JOB, max_attempts=3, retryable=RETRYABLE, advanced=lambda: next(steps), on_log=lines.append
    )


@pytest.mark.parametrize(
    ("ends", "advanced", "submitted", "reason"),
    [
        (["succeeded"], [], 1, "succeeded"),
        (["evicted", "succeeded"], [True], 2, "succeeded"),
        (["lost", "interrupted", "preempted", "succeeded"], [True, True, True], 3, "preempted"),
        (["evicted", "succeeded"], [False], 2, "succeeded"),
        (["evicted", "evicted", "succeeded"], [False, False], 2, "evicted"),
        (["store_away", "succeeded"], [True], 2, "succeeded"),
        (["store_away", "store_away", "succeeded"], [False, False], 2, "store_away"),
        (["oom_killed", "succeeded"], [], 1, "oom_killed"),
        (["configuration", "succeeded"], [], 1, "configuration"),
        (["error", "succeeded"], [], 1, "error"),
    ],
)
def test_only_what_a_retry_may_cure_is_tried_again(ends, advanced, submitted, reason):
    script = Script(*ends)
    outcome = run(script, *advanced)
    assert (script.submitted, outcome.reason, script.cancelled) == (submitted, reason, [])


@pytest.mark.parametrize("reason", sorted(RETRYABLE))
def test_a_launcher_may_try_again_after_fewer_causes(reason):
    """On one machine a job that was stopped or killed is left to the person who did it."""
    script = Script(reason, "succeeded")
    outcome = run_with_retries(
        script, JOB, max_attempts=3, retryable=LocalLauncher.retryable, advanced=lambda: True, on_log=lambda line: None
    )
    assert (outcome.state == "succeeded") == (reason == "store_away")


def test_what_was_tried_and_why_it_ended_is_said():
    lines = []
    assert (
        run(Script("lost", "lost", "lost"), True, True, True, lines=lines).message == "lost (given up after 3 attempts)"
    )
    assert len(lines) == 2 and "attempt 2 of 3 ended: lost" in lines[1]
    assert "2 attempts in a row saved no further step" in run(Script("lost", "lost"), False, False).message


@pytest.mark.parametrize(
    ("error", "cancelled"), [(KeyboardInterrupt(), ["1"]), (Interrupted("SIGTERM"), []), (JobError("unreachable"), [])]
)
def test_a_job_is_cancelled_unless_its_launcher_has_decided_what_becomes_of_it(error, cancelled):
    script = Script(error)
    with pytest.raises(type(error)):
        run(script)
    assert script.cancelled == cancelled
