"""What a worker is told to do: `stage.json`, which the training step writes and every rank reads. No torch here, for the step needs none."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from curricle.config.load import from_tree
from curricle.config.schema import StageConfig
from curricle.errors import CheckpointError, ConfigError
from curricle.registry import family
from curricle.store import layout, open_store, references, split_uri
from curricle.store.strict import read_json

FORMAT = 1


@dataclass(frozen=True)
class StageSpec:
    """Everything about one stage's training."""

    run_id: str
    stage: str
    digest: str
    family: str
    config: dict[str, Any]
    """The effective configuration as a tree (`config.load.to_tree`)."""
    start: str
    """``scratch`` or ``continued``."""
    data_uri: str
    data_digest: str
    parent_uri: str | None = None
    parent_digest: str | None = None
    tracking: dict[str, Any] = field(default_factory=dict)
    """Optional `experiment`, `run_name` and `tags` for MLflow, where the family wants other names than the common ones."""
    format: int = FORMAT

    def to_json(self, stage_uri: str) -> str:
        """The text of `stage.json` at a stage's URI: references into the stage's own store are relative."""
        tree = asdict(self)
        for name in ("data_uri", "parent_uri"):
            tree[name] = (
                references.refer(tree[name], stage_uri, layout.store_of(stage_uri)) if tree[name] else tree[name]
            )
        return json.dumps(tree, indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, stage_uri: str) -> StageSpec:
        """Read `stage.json` at a stage's URI, strictly.

        Raises:
            CheckpointError: it is missing, not JSON, of another format, or has other fields.
        """
        where = f"{stage_uri}/{layout.STAGE}"
        base, prefix = split_uri(stage_uri)
        text = open_store(base).read(f"{prefix}/{layout.STAGE}")
        if text is None:
            raise CheckpointError(f"there is no {where}; the training step writes it before it starts the job")
        try:
            spec = from_tree(cls, read_json(text))
            parent_uri = references.resolve(spec.parent_uri, stage_uri) or None
            data_uri = references.resolve(spec.data_uri, stage_uri)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{where} is damaged: {error}") from None
        if spec.format != FORMAT:
            raise CheckpointError(f"{where} has format {spec.format}; this version reads format {FORMAT}")
        if (spec.start == "continued") != (spec.parent_uri is not None):
            raise CheckpointError(
                f"{where} says start {spec.start!r} with parent {spec.parent_uri!r}: scratch has none, continued has one"
            )
        return replace(spec, data_uri=data_uri, parent_uri=parent_uri)

    def configuration(self, stage_uri: str, schema: type[StageConfig] | None = None) -> StageConfig:
        """The stage's configuration, as `schema` or its family's.

        Raises:
            CheckpointError: `stage.json` names an unknown family, or holds no configuration of this version.
        """
        try:
            return from_tree(schema or family(self.family).load("config"), self.config)
        except ConfigError as error:
            raise CheckpointError(
                f"{stage_uri}/{layout.STAGE} holds no configuration of this version: {error}"
            ) from None
