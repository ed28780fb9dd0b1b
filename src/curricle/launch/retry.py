"""A job to its end, through what a retry may cure. It knows the `Launcher` protocol, no launcher."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from curricle.errors import JobError
from curricle.launch.job import Job, Launcher, Outcome, Reason

IDLE_ATTEMPTS = 2
"""So many attempts in a row that save no further step are a crash loop."""


def run_with_retries(
    launcher: Launcher,
    job: Job,
    *,
    max_attempts: int,
    retryable: Collection[Reason],
    advanced: Callable[[], bool],
    on_log: Callable[[str], None],
) -> Outcome:
    """Run a job to its end; all its processes start again from the last checkpoint when the cause allows it.

    Attempts end after `max_attempts`, after `IDLE_ATTEMPTS` in a row that did not advance, and at once for a cause that a retry cannot cure.

    Args:
        launcher: where the job runs.
        job: what runs.
        max_attempts: 1 or more.
        retryable: causes that a retry may cure.
        advanced: whether the training has saved a later step since it was last asked.
        on_log: gets the job's log lines, and ours between two attempts.

    Raises:
        JobError: the launcher refuses or has lost the job; `Interrupted` when this process was asked to stop.
        StoreUnavailable: `advanced` cannot be asked, for the store is away still.
    """
    attempt = idle = 0
    while True:
        attempt += 1
        outcome = _run_once(launcher, job, on_log)
        if outcome.state != "failed" or outcome.reason not in retryable:
            return outcome
        idle = 0 if advanced() else idle + 1
        if idle == IDLE_ATTEMPTS:
            return _given_up(outcome, f"given up: {idle} attempts in a row saved no further step")
        if attempt >= max_attempts:
            return _given_up(outcome, f"given up after {max_attempts} attempts")
        on_log(
            f"[launcher] attempt {attempt} of {max_attempts} ended: {outcome.reason} ({outcome.where}); starting again from the last checkpoint"
        )


def _run_once(launcher: Launcher, job: Job, on_log: Callable[[str], None]) -> Outcome:
    handle = launcher.submit(job)
    try:
        return launcher.wait(handle, on_log)
    except JobError:
        # SIGTERM (`Interrupted`) too: the launcher has deleted the job, or it goes on and can be attached to.
        raise
    except BaseException:
        launcher.cancel(handle)
        raise


def _given_up(outcome: Outcome, why: str) -> Outcome:
    return replace(outcome, message=f"{outcome.message} ({why})")
