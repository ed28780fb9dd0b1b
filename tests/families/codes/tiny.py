"""A NAICS task small enough for tests: a tiny encoder, little workbooks, everything trained."""

import torch

from curricle.config.schema import DataLoaderConfig, TrainerConfig
from curricle.families.codes.config import CodesConfig, CodesData, CodesModel, CodesTraining
from curricle.families.codes.prepare import prepare
from curricle.families.codes.task import build
from curricle.training.distributed import Ranks
from curricle.training.task import StageContext

PARTS = ("encoder", "fusion", "head", "table", "temperature", "radius")
BATCH = 16


def config(source, encoder, curriculum, *, fusion="gate", hidden=0, table="adamw", **trainer) -> CodesConfig:
    return CodesConfig(
        family="naics",
        data=CodesData(source=str(source), hidden_codes=hidden),
        curriculum=curriculum,
        data_loader=DataLoaderConfig(batch_size=BATCH),
        model=CodesModel(encoder=str(encoder), dim=6, fusion=fusion, max_tokens=24),
        training=CodesTraining(
            table_optimizer=table, trainer=TrainerConfig(accelerator="cpu", precision="32-true", **trainer)
        ),
    )


def task_of(config, place, ranks=None):
    """The task with all parts moved off their starting points, where gradients would vanish; nothing is dropped at random."""
    data = place / f"data-{config.data.hidden_codes}"
    if not data.exists():
        prepare(config, data)
    torch.manual_seed(0)
    task = build(StageContext(config, data, None, place, torch.device("cpu"), ranks or Ranks()))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in task.weights().values():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=draw))
    task.model.eval()
    return task
