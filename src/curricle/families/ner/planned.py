"""What a stage's configuration asks of folders on this machine and cannot get, known when it is planned: by their small files, without torch.

What no such file tells is found before training: `model.check` and the task itself.
"""

from __future__ import annotations

from pathlib import Path

from curricle.errors import CheckpointError, ConfigError
from curricle.families.embedded import EMBEDDED, embedded_folder
from curricle.families.ner.checkpoint import WHOLE, check_checkpoint, read_object, require_positions
from curricle.families.ner.config import NerConfig

_FIRST_POSITION = {"bert": 0, "distilbert": 0, "electra": 0, "roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2}
"""Of encoders with a table of positions: how many of its rows no token has."""


def check_planned(config: NerConfig, from_scratch: bool) -> None:
    """Refuse windows beyond the encoder's positions, more frozen layers than it has, and a teacher that is no tagger, where folders here tell.

    Args:
        from_scratch: the stage starts from `model.encoder`; else only the teacher is looked at.

    Raises:
        ConfigError: names the key, and what would do.
    """
    teacher = Path(config.forgetting.teacher)
    if config.forgetting.teacher and teacher.is_dir():
        _check_teacher(teacher)
    encoder = config.model.encoder
    folder = embedded_folder() if encoder == EMBEDDED else Path(encoder)
    if not from_scratch or folder is None or not (folder / "config.json").is_file():
        return
    try:
        said = read_object(folder / "config.json")
    except CheckpointError as error:
        raise ConfigError(f"model.encoder: {error}") from None
    kind = said.get("model_type")
    if kind not in _FIRST_POSITION:
        return
    rows = said.get("max_position_embeddings")
    if type(rows) is int and said.get("position_embedding_type", "absolute") == "absolute":
        require_positions(config.model.max_tokens, rows - _FIRST_POSITION[kind], encoder)
    layers = said.get("n_layers" if kind == "distilbert" else "num_hidden_layers")
    if type(layers) is int and config.model.frozen_layers > layers:
        raise ConfigError(f"model.frozen_layers is {config.model.frozen_layers}, and {encoder} has {layers} layers")


def _check_teacher(folder: Path) -> None:
    try:
        facts = check_checkpoint(folder / WHOLE if (folder / WHOLE).is_dir() else folder, to_run=True)
    except CheckpointError as error:
        raise ConfigError(f"forgetting.teacher: {error}") from None
    if not facts.trained:
        raise ConfigError(f"forgetting.teacher: {folder} has no token-classification head; name a tagger's folder")
