"""The worker process with the toy family: what `python -m curricle.train.worker` is for real ones."""

import sys

from curricle.config.schema import StageConfig
from curricle.train import worker
from tests.train.toy import Toy

if __name__ == "__main__":
    sys.exit(worker.main(build=Toy, schema=StageConfig))
