"""Every error that a user may meet, in one tree.

    CurricleError                exit 2: a retry cannot cure it (where nothing else is said)
    ├── ConfigError              a configuration file, an override or a chain is wrong (a ValueError too)
    ├── DataError                an input file is damaged or contradicts itself
    │   └── MissingDataError     an input file or folder is not there (a FileNotFoundError too)
    ├── CheckpointError          a checkpoint that was asked for is not there, or not whole
    │   └── MissingCheckpointError   its folder does not exist (a FileNotFoundError too)
    ├── OutputError              a place that is to be written holds what Curricle did not write
    ├── StoreError               a store refuses, or holds something else than its manifest says
    │   └── StoreUnavailable     its server is away: nothing is wrong with the work (exit 75: a retry may cure it)
    ├── PipelineError            a pipeline cannot be compiled, submitted or run
    └── JobError                 a training job failed; carries the job's own exit code and reason
        └── Interrupted          stopped on request; its state is saved (exit 128 + signal)

A message says what was looked for, where, what was found and what to do about it. It never shows a secret, and steers no
terminal, whoever put that in.
"""

from __future__ import annotations

from dataclasses import dataclass

from curricle.masking import masked, visible


class CurricleError(Exception):
    """A problem that the user can act on. `exit_code` is what the process ends with."""

    exit_code = 2

    def __str__(self) -> str:
        return visible(masked(super().__str__()))

    def __repr__(self) -> str:
        return masked(super().__repr__())


class ConfigError(CurricleError, ValueError):
    """The configuration is wrong. `problems` holds all that were found, not only the first."""

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.problems = [masked(problem) for problem in self.problems]
        if len(self.problems) == 1:
            text = self.problems[0]
        else:
            text = f"{len(self.problems)} problems:\n" + "\n".join(f"  - {p}" for p in self.problems)
        super().__init__(text)


class DataError(CurricleError):
    """An input file is missing, damaged or contradicts itself."""


class MissingDataError(DataError, FileNotFoundError):
    """An input file or folder is not there."""


class CheckpointError(CurricleError):
    """A checkpoint that was asked for is missing, incomplete or does not fit."""


class MissingCheckpointError(CheckpointError, FileNotFoundError):
    """The folder of a checkpoint does not exist."""


class OutputError(CurricleError):
    """What is to be written would delete or overwrite something that is not Curricle's own."""


class StoreError(CurricleError):
    """A store refuses, or holds something else than its manifest says."""


class StoreUnavailable(StoreError):
    """A store's server did not answer for as long as this process was willing to wait, or answered that it cannot now."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h
    reason = "store_away"
    """The word for it in `launch.job.Reason`."""


class PipelineError(CurricleError):
    """A pipeline cannot be compiled, submitted or run."""


class JobError(CurricleError):
    """A training job failed.

    Args:
        message: what the job said of itself.
        reason: one word from `launch.job.Reason` (for example ``oom_killed``).
        exit_code: the failing process's own exit code (128 + signal for a signal).
    """

    def __init__(self, message: str, *, reason: str = "error", exit_code: int = 1):
        super().__init__(message)
        self.reason = reason
        self.exit_code = exit_code


class Interrupted(JobError):
    """A job was asked to stop and has saved its state; the same command goes on from there."""

    def __init__(self, message: str, *, signal: int = 15):
        super().__init__(message, reason="interrupted", exit_code=128 + signal)


@dataclass(frozen=True)
class Finding:
    """One thing that was tried before it is needed: what happened, and what to do where it failed (or could not be seen)."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
