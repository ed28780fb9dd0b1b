"""The worker process with the toy family: what `python -m curricle.training.worker` is for real ones."""

import sys

from curricle.config.schema import StageConfig
from curricle.training import worker


def build(context):
    """The task; torch is imported only now, as the genuine worker does."""
    from tests.training.toy import Toy

    return Toy(context)


if __name__ == "__main__":
    sys.exit(worker.main(build=build, schema=StageConfig))
