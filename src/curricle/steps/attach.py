"""Follow a stage's job that was started elsewhere: its log and how it ends. Whoever stops following leaves it running."""

from __future__ import annotations

from curricle.errors import JobError
from curricle.launch.job import Launcher, Outcome
from curricle.planning import StagePlan
from curricle.steps.source import read_plan
from curricle.store import open_store
from curricle.store.manifest import read_manifest
from curricle.training.events import Listener, read_line


def attach_stage(
    run: str, stage: str, store_uri: str, launcher: Launcher, listen: Listener
) -> tuple[StagePlan, Outcome]:
    """Follow the job of a run's stage to its end.

    Args:
        run: id of the run.
        stage: name of the stage; empty takes the one that is under way: the first that is to be trained and is not complete.

    Raises:
        JobError: there is no such run or stage, or no job of it.
    """
    plan = read_plan(store_uri, run)
    if plan is None:
        raise JobError(
            f"{store_uri} holds no run {run!r} (`curricle show` lists those there are)", reason="lost", exit_code=2
        )
    trained = [planned for planned in plan.stages if planned.trains]
    going = [planned for planned in trained if read_manifest(open_store(planned.uri), "") is None]
    wanted = [planned for planned in trained if planned.name == stage] if stage else going[:1]
    if not wanted:
        names = ", ".join(planned.name for planned in trained) or "none"
        said = f"trains no stage {stage!r}; it trains {names}" if stage else f"has nothing under way; it trains {names}"
        raise JobError(f"run {run} {said}", reason="lost", exit_code=2)
    handle = launcher.attach(wanted[0].job_name)
    return wanted[0], launcher.wait(handle, lambda line: listen(read_line(line)))
