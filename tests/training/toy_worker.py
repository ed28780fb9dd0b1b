"""The worker process with the toy family: what `python -m curricle.training.worker` is for real ones."""

import sys

from curricle.config.schema import StageConfig
from curricle.training import worker
from tests.training.toy import Toy

if __name__ == "__main__":
    sys.exit(worker.main(build=Toy, schema=StageConfig))
