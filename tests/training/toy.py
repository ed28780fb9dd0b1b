"""A family small enough for tests: two layers with dropout on numbers made from the seed."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy
import torch

from curricle.config.load import to_tree
from curricle.config.schema import (
    DataLoaderConfig,
    PathsConfig,
    StageConfig,
    TrackingConfig,
    TrainerConfig,
    TrainingConfig,
)
from curricle.store import open_store
from curricle.store.manifest import publish, read_manifest
from curricle.training.spec import StageSpec
from curricle.training.task import StageContext

ROWS = 48


class Toy:
    def __init__(self, context: StageContext):
        self.config, self.ranks = context.config, context.ranks
        self.model = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1)
        )
        draw = numpy.random.default_rng(5)
        self.x = torch.tensor(draw.normal(size=(ROWS, 6)), dtype=torch.float32)
        self.y = self.x[:, :1] * self.x[:, 1:2] + 0.1
        self.steps_seen = 0

    def parameter_groups(self):
        return [
            {"params": list(self.model[0].parameters()), "name": "first", "lr_scale": 0.5},
            {"params": list(self.model[3].parameters()), "name": "last", "weight_decay": 0.0},
        ]

    def batches(self, epoch):
        size, world = self.config.data_loader.batch_size, self.ranks.world_size
        order = numpy.random.default_rng([self.config.seed, epoch]).permutation(ROWS)
        return [order[i + self.ranks.rank : i + size : world] for i in range(0, ROWS, size)]

    def losses(self, batch):
        sys.audit("curricle.moment", "step")  # where tests/faults may hold the process
        self.steps_seen += 1
        behaviour = os.environ.get("TOY", "")
        if behaviour.startswith("slow"):
            time.sleep(float(behaviour.removeprefix("slow")))
        if behaviour == f"term@{self.steps_seen}" and self.ranks.rank == self.ranks.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if behaviour == f"kill@{self.steps_seen}" and self.ranks.rank == self.ranks.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = torch.nn.functional.mse_loss(self.model(self.x[batch]).float(), self.y[batch])
        spoilt = self.ranks.rank == self.ranks.world_size - 1
        if behaviour == f"nan@{self.steps_seen}" and spoilt:
            loss = loss * float("nan")
        if behaviour == f"nan-gradient@{self.steps_seen}" and spoilt:
            loss = loss + (0 * self.model[3].bias).abs().sqrt().sum()  # 0, whose slope is 0 / 0
        if behaviour == f"memory@{self.steps_seen}" and spoilt:
            torch.empty(10**15)
        if behaviour.startswith(f"says@{self.steps_seen} "):
            raise RuntimeError(f"cannot reach {behaviour.split()[1]} with {os.environ['AWS_SECRET_ACCESS_KEY']}")
        return {"loss": loss, "twice": 2 * loss.detach()}

    def records(self, batch):
        return [{"row": int(row)} for row in batch]

    def scalars(self):
        return {"train/global_batch/rows": float(self.config.data_loader.batch_size)}

    def validate(self):
        sys.audit("curricle.moment", "validation")
        return {
            "val_loss": float(torch.nn.functional.mse_loss(self.model(self.x).float(), self.y)),
            "val_rows": float(ROWS),
        }

    def weights(self):
        return dict(self.model.state_dict())

    def load_weights(self, weights):
        self.model.load_state_dict(weights)

    def save_extras(self, folder: Path):
        (folder / "labels.json").write_text(json.dumps(["a", "b"]))


def make_config(folder: Path, **trainer) -> StageConfig:
    """A stage of three epochs with six steps each, everything under `folder`."""
    return StageConfig(
        family="toy",
        paths=PathsConfig(
            store_uri=str(folder / "store"), outputs_dir=str(folder / "outputs"), cache_dir=str(folder / "cache")
        ),
        training=TrainingConfig(
            learning_rate=0.02,
            warmup_steps=2,
            trainer=TrainerConfig(**{"max_epochs": 3, "accelerator": "cpu", "precision": "32-true", **trainer}),
        ),
        data_loader=DataLoaderConfig(batch_size=8),
        tracking=TrackingConfig(tensorboard=False, mlflow=False),
    )


def make_data(folder: Path, store_uri: str = "") -> str:
    """Publish the data of a stage, which are none, where they are not there yet; their URI. The store is a folder under `folder` unless named."""
    store_uri = store_uri or f"{folder}/store"
    data, store = folder / "data", open_store(store_uri)
    if read_manifest(store, "data/toy-1") is None:
        data.mkdir(parents=True, exist_ok=True)
        (data / "rows.txt").write_text("none")
        publish(store, "data/toy-1", data, kind="dataset", digest="x", metrics={}, lineage={}, info={})
    return f"{store_uri}/data/toy-1"


def make_stage(
    folder: Path,
    config: StageConfig | None = None,
    *,
    digest: str = "d1",
    stage: str = "01_stage",
    store_uri: str = "",
) -> str:
    """Write `stage.json` and its data; the stage's URI. The store is a folder under `folder` unless named."""
    config = config or make_config(folder)
    store_uri = store_uri or f"{folder}/store"
    spec = StageSpec(
        run_id="sequential_01",
        stage=stage,
        digest=digest,
        family="toy",
        config=to_tree(config),
        start="scratch",
        data_uri=make_data(folder, store_uri),
        data_digest="x",
    )
    open_store(store_uri).write(
        f"sequential_01/{stage}/stage.json", spec.to_json(f"{store_uri}/sequential_01/{stage}").encode()
    )
    return f"{store_uri}/sequential_01/{stage}"
