"""The line family's training task, evaluation and use."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from curricle.errors import CheckpointError
from curricle.store import layout


def points(folder: Path) -> torch.Tensor:
    """[points, 2]: x and y."""
    rows = [[float(number) for number in line.split(",")] for line in (folder / "points.csv").read_text().split()]
    return torch.tensor(rows)


class Line:
    """y = slope · x + intercept, by gradient descent."""

    learning_rate = 0.1

    def __init__(self, context):
        self.config, self.points = context.config, points(context.data_dir)
        self.model = torch.nn.Linear(1, 1, bias=self.config.model.intercept)
        if context.parent_dir is not None:
            self.load_weights(load_file(context.parent_dir / layout.WEIGHTS))

    def parameter_groups(self):
        return [{"params": list(self.model.parameters()), "name": "line"}]

    def batches(self, epoch):
        return torch.randperm(len(self.points), generator=torch.Generator().manual_seed(epoch)).split(4)

    def losses(self, batch):
        chosen = self.points[batch]
        return {"loss": torch.nn.functional.mse_loss(self.model(chosen[:, :1]), chosen[:, 1:])}

    def records(self, batch):
        return [{"point": int(row)} for row in batch]

    def scalars(self):
        return {}

    def validate(self):
        loss = float(torch.nn.functional.mse_loss(self.model(self.points[:, :1]), self.points[:, 1:]))
        return {"val_loss": loss, "val/fit": 1 / (1 + loss)}

    def weights(self):
        return dict(self.model.state_dict())

    def load_weights(self, weights):
        self.model.load_state_dict(weights)

    def save_extras(self, folder):
        pass


class Reader:
    """The verb predict of one checkpoint."""

    def __init__(self, folder, data_dir):
        path = folder / layout.WEIGHTS
        if not path.is_file():
            raise CheckpointError(f"{folder} holds no {layout.WEIGHTS}")
        self.weights = load_file(path)

    def predict(self, texts):
        return [float(text) * float(self.weights["weight"]) + float(self.weights.get("bias", 0.0)) for text in texts]


def evaluate(checkpoint_dir: Path, data_dir: Path) -> dict[str, float]:
    """How well the line fits, in (0, 1]."""
    given, reader = points(data_dir), Reader(checkpoint_dir, None)
    values = torch.tensor(reader.predict([str(float(x)) for x, _ in given]))
    loss = float(torch.nn.functional.mse_loss(values, given[:, 1]))
    return {"test/loss": loss, "test/fit": 1 / (1 + loss)}
