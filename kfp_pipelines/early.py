"""What can be seen of a run before anything is sent: what its tasks would refuse after minutes is refused by the same rules here. Imports no kfp.

Nothing is judged that only the cluster knows: a chain, stage or experiment that is not among the files here, and what is wrong with the files themselves, is left to
the plan task, whose image has its own.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from curricle.config.chain import load_chain, load_stage
from curricle.config.defaults import config_file
from curricle.config.load import COMMAND_LINE, read_overrides
from curricle.errors import ConfigError, CurricleError, PipelineError
from curricle.launch import check_launcher
from curricle.masking import masked, variable_within
from curricle.steps.gate import parse_rule
from curricle.steps.register import check as check_registry
from curricle.store import check_uri, layout
from kfp_pipelines.parameters import overrides_of, split_overrides
from kfp_pipelines.shape import constants_of, stages_of

LONGEST_EXPERIMENT, LONGEST_RUN = 128, 255
"""Bytes of the names that a server keeps."""
_ACCOUNT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def check_names(*, experiment: str, run_name: str, service_account: str) -> None:
    """Refuse names that Kubeflow or Kubernetes would.

    Raises:
        PipelineError: names the option.
    """
    for option, name, most in (("--experiment", experiment, LONGEST_EXPERIMENT), ("--run-name", run_name, LONGEST_RUN)):
        if masked(name) != name or variable_within(name):
            raise PipelineError(
                f"{option} {masked(name)!r} holds a password or token, and Kubeflow shows and keeps names"
            )
        unseen = [letter for letter in name if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")]
        if (name or option == "--experiment") and (not name.strip() or unseen):
            raise PipelineError(f"{option} {name!r} is no name: it needs a visible character, and no line break or tab")
        if len(name.encode()) > most:
            raise PipelineError(f"{option} {name[:40]!r}... has {len(name.encode())} bytes; Kubeflow keeps {most}")
    if service_account and not _ACCOUNT.fullmatch(service_account):
        raise PipelineError(
            f"--service-account {service_account!r} cannot be one's name: at most 253 of a-z, 0-9, '-' and '.', with a letter or digit at both ends "
            "(`kubectl get serviceaccounts` lists those of the namespace)"
        )


def check_values(spec: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Refuse parameters that a task of the compiled pipeline would.

    Args:
        spec: of the pipeline.
        values: of its parameters, those with their defaults too.

    Raises:
        PipelineError: names every parameter that is wrong, and what it must be.
    """
    problems: list[str] = []

    def tried(name: str, check: Callable[[], object]) -> None:
        try:
            check()
        except CurricleError as error:
            told = error.problems if isinstance(error, ConfigError) else [str(error)]
            problems.extend(f"{name}: {text}" if name else text for text in told)

    def text(name: str) -> str:
        return str(values.get(name) or "")

    tried("gate_rule", lambda: parse_rule(text("gate_rule")))
    tried("", lambda: layout.check_run_id(text("run_id") or "r"))
    if registry := text("registry"):
        tried("registry, model_name", lambda: check_registry(registry, str(values.get("model_name", "model"))))
    if launcher := text("launcher"):
        tried("launcher", lambda: check_launcher(launcher))
    if store := text("store_uri"):
        tried("store_uri", lambda: check_uri(store, written=True))
        if "://" not in store and not store.startswith(("/", "file:")):
            problems.append(
                f"store_uri: {store!r} is a folder that every pod would look for in its own home or working directory; name "
                "minio://bucket/prefix or s3://bucket/prefix, or the absolute path of a volume that all pods mount"
            )
    for name in ("min_gain", "max_drop"):
        if (bound := values.get(name)) is not None and not -1 <= bound <= 1:
            problems.append(f"{name} is a difference of two scores in [0, 1], not {values[name]}")
    problems += _stages(spec, text("stages"))
    try:
        read_overrides(split_overrides(text("overrides")))
    except ConfigError as error:
        problems += error.problems
    else:
        problems += _overrides(spec, values)
    if "shards" in values:
        tried("", lambda: _table(values))
    if problems:
        raise PipelineError("; ".join(dict.fromkeys(problems)))


def _stages(spec: dict[str, Any], asked: str) -> list[str]:
    known = stages_of(spec)
    problems = []
    for name in [] if asked in ("", "all") or not known else asked.split(","):
        if name.strip() not in known:
            near = difflib.get_close_matches(name.strip(), known, 1, 0.4)
            hint = f"did you mean {near[0]!r}? It" if near else "it"
            problems.append(
                f"stages: {name.strip()!r} is no stage of this pipeline; {hint} has {', '.join(known)} (or all)"
            )
    return problems


def _overrides(spec: dict[str, Any], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings of the parameter `overrides` by the files that are here. Problems of the files are theirs."""
    judged: list[Callable[[], object]] = []
    store, given = str(values.get("store_uri") or "runs"), str(values.get("overrides") or "")
    plan = constants_of(spec, "plan-chain")
    try:
        if plan:
            base = config_file(Path("config") / str(plan["config"]))
            named = load_chain(str(plan["chain"]), base.parent)
            settings = overrides_of(str(plan.get("data_key", "")), str(values.get("data_source", "")), given, store)
            asked = str(values.get("stages") or "all").replace(" ", "").split(",")
            chosen = [stage.name for stage in named.chain.stages if stage.name in asked]
            judged = [
                partial(load_stage, base, stage, settings, named.layers.get(stage)) for stage in chosen or named.layers
            ]
        elif constants_of(spec, "plan-continued") and (name := str(values.get("experiment") or "")):
            from kfp_pipelines.doors_continued import Setting

            which = {key: str(values.get(key) or "") for key in Setting.__dataclass_fields__}
            path = config_file(Path("config/experiment") / f"{name}.yaml")
            judged = [lambda: Setting(**which).composed(path)]
    except ConfigError:  # the chain is not here, or not as it is there
        return []
    problems: list[str] = []
    for judge in judged:
        try:
            judge()
        except ConfigError as error:
            problems += [text for text in error.problems if text.startswith(f"{COMMAND_LINE}: ")]
        except CurricleError:
            continue
    return [text.replace(f"{COMMAND_LINE}: ", "overrides: ", 1) for text in problems]


def _table(values: Mapping[str, Any]) -> None:
    from kfp_pipelines.doors_assign import order_of

    order_of(
        **{name: values[name] for name in ("column", "top", "max_error", "review_below", "explain", "prefix", "shards")}
    )
