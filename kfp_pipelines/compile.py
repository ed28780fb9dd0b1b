"""Chains to committed YAML, byte for byte the same on every machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import yaml

from curricle.config.chain import list_chains, load_chain, load_stage
from curricle.errors import PipelineError
from curricle.launch import LAUNCHERS
from curricle.planning import StartMode
from curricle.registry import family
from curricle.store.local import folders_above, write_whole
from curricle.store.ours import check_output_file, check_replaced
from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE
from kfp_pipelines.parameters import read_documents
from kfp_pipelines.shape import add_choices, flatten_branches

CHOICES: dict[str, list[Any]] = {
    "launcher": list(LAUNCHERS),
    "start_mode": list(get_args(StartMode)),
    "strategy": ["experiment", "combined", "new_only", "append"],
}
"""Parameters of pipelines that are one of a few words: select boxes in Kubeflow's form, as booleans are."""
SHORT = ("chain_default", "continued_training")
"""Pipelines that ship in a short form too: a form that asks only for what everybody sets."""


def compile_all(
    out_dir: Path,
    *,
    config_dir: Path = Path("config"),
    image: str = CONTROL_IMAGE,
    trainer_image: str = TRAINER_IMAGE,
    minimal: bool = False,
    plain_form: bool = False,
) -> list[Path]:
    """Compile a pipeline for every ``chain_*.yaml`` of the configuration, continued training, and the coding of tables; the written files, sorted.

    Args:
        out_dir: where the YAML goes; made when missing.
        config_dir: holds `config.yaml` with `text_curriculum/` beside it; folders in it may hold further ones.
        image: the components' image.
        trainer_image: the image of the training jobs and of the evaluation.
        minimal: whether each is written in its short form too, ``<name>_minimal``; False does so for `SHORT`.
        plain_form: no select boxes, as a server of 2.15 wants it.

    Raises:
        ConfigError: a chain is not valid.
        PipelineError: no chain, or one is too long.
        OutputError: a file in the way is no compiled pipeline. Nothing is written then.
    """
    from kfp_pipelines.assign import assign
    from kfp_pipelines.continued_training import continued_training, continued_training_minimal
    from kfp_pipelines.curriculum import build

    pipelines: dict[str, Callable[..., Any]] = {"assign": assign, "continued_training": continued_training}
    own = len(pipelines)
    short = {"continued_training": continued_training_minimal}
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
            made = partial(build, name, stages, config=config, data=entry.data_parameter, gate_rule=chain.gate)
            pipelines[name], short[name] = made(), made(minimal=True)
    if len(pipelines) == own:
        raise PipelineError(f"nothing to compile: {config_dir}/text_curriculum holds no chain_*.yaml")
    pipelines |= {f"{name}_minimal": made for name, made in short.items() if minimal or name in SHORT}
    for name in pipelines:
        _require_replaceable(out_dir / f"{name}.yaml")
    files = {out_dir / f"{name}.yaml": pipeline for name, pipeline in sorted(pipelines.items())}
    with folders_above(next(iter(files))):
        return [
            write(pipeline, path, image=image, trainer_image=trainer_image, plain_form=plain_form)
            for path, pipeline in files.items()
        ]


def write(
    pipeline: Callable[..., Any],
    path: Path,
    *,
    image: str = CONTROL_IMAGE,
    trainer_image: str = TRAINER_IMAGE,
    plain_form: bool = False,
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
        text = _shaped(raw, plain_form)
    text = with_images(text, image, trainer_image)
    write_whole(path, lambda out: out.write(text.encode()))
    return path


def _shaped(raw: Path, plain_form: bool) -> str:
    """What the compiler wrote, in the shape that we want, below its own head of comments."""
    documents = read_documents(raw)
    flatten_branches(documents[0])
    if not plain_form:
        add_choices(documents[0], CHOICES)
    head = "".join(
        takewhile(lambda line: line.startswith("#"), raw.read_text(encoding="utf-8").splitlines(keepends=True))
    )
    return head + "---\n".join(yaml.safe_dump(document, sort_keys=True) for document in documents)


def _require_replaceable(path: Path) -> None:
    """Refuse to write over what is no compiled pipeline: a chain's own file is called as its pipeline."""
    check_output_file(path)
    check_replaced(path, "curricle pipeline compile", lambda head: head.startswith(b"# PIPELINE DEFINITION\n"))


def with_images(text: str, image: str, trainer_image: str) -> str:
    """A pipeline that was compiled with the default images, with others."""
    return text.replace(f": {CONTROL_IMAGE}\n", f": {image}\n").replace(f": {TRAINER_IMAGE}\n", f": {trainer_image}\n")
