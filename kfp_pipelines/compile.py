"""Chains to committed YAML, byte for byte the same on every machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from curricle.config.chain import list_chains, load_chain
from curricle.errors import PipelineError
from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE


def compile_all(
    out_dir: Path, *, config_dir: Path = Path("config"), image: str = CONTROL_IMAGE, trainer_image: str = TRAINER_IMAGE
) -> list[Path]:
    """Compile a pipeline for every ``chain_*.yaml`` of the configuration, and the continued training of NER; the written files, sorted.

    Args:
        out_dir: where the YAML goes; made when missing.
        config_dir: holds `text_curriculum/`.
        image: the components' image.
        trainer_image: the image of the training jobs and of the evaluation.

    Raises:
        ConfigError: a chain is not valid.
        PipelineError: no chain, or one is too long.
    """
    from kfp_pipelines.continued_training import continued_training
    from kfp_pipelines.curriculum import build

    chains = list_chains(config_dir)
    if not chains:
        raise PipelineError(f"nothing to compile: {config_dir}/text_curriculum holds no chain_*.yaml")
    names = {name: [stage.name for stage in load_chain(name, config_dir).chain.stages] for name, _ in chains}
    pipelines = {name: build(name, stages) for name, stages in names.items()} | {
        "continued_training": continued_training
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    return [
        write(pipeline, out_dir / f"{name}.yaml", image=image, trainer_image=trainer_image)
        for name, pipeline in sorted(pipelines.items())
    ]


def write(
    pipeline: Callable[..., Any], path: Path, *, image: str = CONTROL_IMAGE, trainer_image: str = TRAINER_IMAGE
) -> Path:
    """Compile one pipeline to `path`."""
    from kfp import compiler

    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = Path(scratch, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, str(raw))
        text = raw.read_text(encoding="utf-8")
    path.write_text(with_images(text, image, trainer_image), encoding="utf-8")
    return path


def with_images(text: str, image: str, trainer_image: str) -> str:
    """A pipeline that was compiled with the default images, with others."""
    return text.replace(f": {CONTROL_IMAGE}\n", f": {image}\n").replace(f": {TRAINER_IMAGE}\n", f": {trainer_image}\n")
