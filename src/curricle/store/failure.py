"""Why something failed, as a small record in the store: Kubeflow keeps no reason, and a pod is gone before anybody asks.

A stage's record lies at the stage's place, that of a pipeline's other tasks at the run's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

from curricle.masking import masked
from curricle.store import Store, layout
from curricle.store.strict import read_json


@dataclass(frozen=True)
class Failure:
    """One failure. Text that nobody knows is empty."""

    message: str
    """What went wrong, in the words of whoever failed."""
    exit_code: int = 1
    cause: str = ""
    """One word from `launch.job.Reason`."""
    run_id: str = ""
    stage: str = ""
    """The stage that failed, or empty: then it is `task`."""
    task: str = ""
    """A task of a pipeline that trains no stage (`plan`, `preflight`)."""
    where: str = ""
    """Which rank, pod or launcher failed first."""
    attempt: str = ""
    """What tells one try of the job from the next."""
    time: str = field(default_factory=layout.now)
    """When, in UTC: ``2026-01-31T12:00:00Z``."""

    def write(self, store: Store, place: str = "", *, keep_first: bool = False) -> None:
        """Write the record at a place (a key prefix) of the store; `keep_first` leaves a record alone that stands there.

        Raises:
            StoreError: the store refuses.
        """
        if keep_first and store.read(_key(place)) is not None:
            return
        known = {name: value for name, value in asdict(self).items() if value != ""} | {"message": masked(self.message)}
        store.write(_key(place), layout.write_record(known))

    @classmethod
    def read(cls, store: Store, place: str = "") -> Failure | None:
        """The record at a place, or None where there is none. Records of earlier versions, which had fewer keys, are read too.

        A damaged record becomes a failure that says so: whoever asks why something failed is not helped by a second error.

        Raises:
            StoreError: the store cannot be read.
        """
        data = store.read(_key(place))
        if data is None:
            return None
        try:
            record = read_json(data)
            values = {f.name: record[f.name] for f in fields(cls) if record.get(f.name) is not None}
            texts = {name: str(value) for name, value in values.items() if name != "exit_code"}
            return cls(**{"message": "", "time": ""} | texts, exit_code=int(values.get("exit_code", 1)))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return cls(f"its record at {store.uri} ({_key(place)}) is damaged", time="")

    @property
    def why(self) -> str:
        """Cause and message: ``oom_killed: the worker used more than 8Gi``."""
        said = self.message or "no message"
        return f"{self.cause}: {said}" if self.cause else said

    def sentence(self) -> str:
        """The failure for a person: ``stage 02_stage failed (oom_killed): the worker used more than 8Gi``."""
        what = f"stage {self.stage}" if self.stage else self.task or "the run"
        cause = f" ({self.cause})" if self.cause else ""
        return f"{what} failed{cause}: {self.message or 'no message'}"


def _key(place: str) -> str:
    return f"{place}/{layout.FAILURE}" if place else layout.FAILURE
