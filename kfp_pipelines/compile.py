"""Chains to committed YAML, byte for byte the same on every machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from curricle.config.chain import list_chains, load_chain, load_stage
from curricle.errors import OutputError, PipelineError
from curricle.registry import family
from curricle.store.local import write_whole
from curricle.store.ours import check_output_file
from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE


def compile_all(
    out_dir: Path, *, config_dir: Path = Path("config"), image: str = CONTROL_IMAGE, trainer_image: str = TRAINER_IMAGE
) -> list[Path]:
    """Compile a pipeline for every ``chain_*.yaml`` of the configuration, and continued training; the written files, sorted.

    Args:
        out_dir: where the YAML goes; made when missing.
        config_dir: holds `config.yaml` with `text_curriculum/` beside it; folders in it may hold further ones.
        image: the components' image.
        trainer_image: the image of the training jobs and of the evaluation.

    Raises:
        ConfigError: a chain is not valid.
        PipelineError: no chain, or one is too long.
        OutputError: a file in the way is no compiled pipeline. Nothing is written then.
    """
    from kfp_pipelines.continued_training import continued_training
    from kfp_pipelines.curriculum import build

    pipelines: dict[str, Callable[..., Any]] = {"continued_training": continued_training}
    bases = [base for base in (config_dir / "config.yaml", *sorted(config_dir.glob("*/config.yaml"))) if base.is_file()]
    for base in bases:
        for name, path in list_chains(base.parent):
            if name in pipelines:
                raise PipelineError(
                    f"{path}: there is another chain {name}; a pipeline is called as its chain, so give it another name"
                )
            chain = load_chain(name, base.parent).chain
            stages = [stage.name for stage in chain.stages]
            entry = family(load_stage(base, stages[0], []).config.family)
            config = base.relative_to(config_dir).as_posix()
            pipelines[name] = build(name, stages, config=config, data=entry.data_parameter, gate_rule=chain.gate)
    if len(pipelines) == 1:
        raise PipelineError(f"nothing to compile: {config_dir}/text_curriculum holds no chain_*.yaml")
    for name in pipelines:
        _require_replaceable(out_dir / f"{name}.yaml")
    out_dir.mkdir(parents=True, exist_ok=True)
    return [
        write(pipeline, out_dir / f"{name}.yaml", image=image, trainer_image=trainer_image)
        for name, pipeline in sorted(pipelines.items())
    ]


def write(
    pipeline: Callable[..., Any], path: Path, *, image: str = CONTROL_IMAGE, trainer_image: str = TRAINER_IMAGE
) -> Path:
    """Compile one pipeline to `path`.

    Raises:
        OutputError: what is there is no compiled pipeline.
    """
    from kfp import compiler

    _require_replaceable(path)
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = Path(scratch, "pipeline.yaml")
        compiler.Compiler().compile(pipeline, str(raw))
        text = raw.read_text(encoding="utf-8")
    text = with_images(text, image, trainer_image)
    write_whole(path, lambda out: out.write(text.encode()))
    return path


def _require_replaceable(path: Path) -> None:
    """Refuse to write over what is no compiled pipeline: a chain's own file is called as its pipeline."""
    check_output_file(path)
    if path.exists() and not path.read_bytes().startswith(b"# PIPELINE DEFINITION\n"):
        raise OutputError(
            f"{path} is no compiled pipeline, and is not overwritten; name another folder, or move it away"
        )


def with_images(text: str, image: str, trainer_image: str) -> str:
    """A pipeline that was compiled with the default images, with others."""
    return text.replace(f": {CONTROL_IMAGE}\n", f": {image}\n").replace(f": {TRAINER_IMAGE}\n", f": {trainer_image}\n")
