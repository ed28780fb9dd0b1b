"""The training step with the toy family, as a process of its own: ``python -m tests.steps.toy_stage FOLDER DIGEST``."""

import sys
from pathlib import Path

from curricle.config.load import to_tree
from curricle.errors import CurricleError
from curricle.launch.local import LocalLauncher
from curricle.planning import ChainPlan, StagePlan
from curricle.steps.train import train_stage
from curricle.training.events import sentence
from tests.training.toy import make_config, make_data


class ToyStage(StagePlan):
    """A stage that the toy family's worker trains."""

    @property
    def argv(self) -> tuple[str, ...]:
        return ("-m", "tests.training.toy_worker", "--stage-uri", self.uri, "--digest", self.digest)


def make_plan(folder: Path, digest: str, *, resume: bool = True, store_uri: str = "", **trainer: int) -> ChainPlan:
    """A chain of one toy stage, always at the same place of the store, which is a folder under `folder` unless named."""
    store_uri = store_uri or f"{folder}/store"
    place = f"{store_uri}/r/01_stage"
    stage = ToyStage(
        name="01_stage",
        start="scratch",
        reason="first stage",
        digest=digest,
        uri=place,
        parent_uri="",
        parent_digest="",
        data_uri=make_data(folder, store_uri),
        data_digest="x",
        job_name="toy-job",
        config=to_tree(make_config(folder, **trainer)),
        origins={},
    )
    return ChainPlan("toy", "r", store_uri, resume, (stage,))


if __name__ == "__main__":
    try:
        plan = make_plan(Path(sys.argv[1]), sys.argv[2])
        outcome = train_stage(plan, 0, "", LocalLauncher(), lambda event: print(sentence(event), flush=True))
        print("DIGEST", outcome.manifest.digest)
    except CurricleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
