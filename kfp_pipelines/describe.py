"""A compiled pipeline in words, as Markdown for Kubeflow's pages: what it does, what people set, examples. Imports no kfp."""

from __future__ import annotations

import json
import re
from pathlib import Path

from kfp_pipelines.parameters import KINDS, Parameter, read_documents, read_parameters

LONGEST = 8000
"""Characters of a description that Kubeflow keeps."""
_NAMES = re.compile(r"(?<![\w`])(?:\w+://[^\s,;)]*[\w/]|[\w./-]*\w[_=]\w(?:[\w./=:-]*\w)?)(?![\w`])")
"""Words with an underscore or an equals sign, and URIs."""
_EXAMPLES = (
    ({"new_dataset_path": "minio://mlpipeline/data/new"}, "the same training with data of your own"),
    ({"max_drop": 0.02}, "a model is held back that loses more than two points on the old domain"),
    ({"overrides": "training.learning_rate=1e-4 data_loader.batch_size=64"}, "other settings for every stage"),
    ({"run_id": "nightly"}, "a place of that name: what is complete there is reused, what was interrupted goes on"),
    ({"gate_rule": "val_loss <= 0.6"}, "the result is promoted only if it is as good as that"),
    ({"max_error": "0.05"}, "rows are marked for review so that at most one in twenty of the others is wrong"),
    ({"shards": 32}, "the table is cut into so many parts, which are coded side by side"),
    ({"launcher": "trainjob"}, "stages as TrainJobs of Kubeflow Trainer"),
    ({"store_uri": "s3://team-bucket/curricle"}, "another store"),
)


def describe(package: Path) -> str:
    """The description of a compiled pipeline. Names stand in backticks: Markdown reads the underscores of others as italics."""
    parameters = read_parameters(package)
    spec = read_documents(package)[0]
    lines = [in_backticks(str(spec["pipelineInfo"].get("description", "")).strip()), "", "**Parameters**", ""]
    lines += [_line(parameter) for parameter in parameters.values()]
    fitting = [(given, why) for given, why in _EXAMPLES if given.keys() <= parameters.keys()][:3]
    if fitting:
        lines += ["", "**Examples**", ""]
        for given, why in fitting:
            lines.append(f"- {' '.join(f'`{name}` = `{value}`' for name, value in given.items())}: {why}")
    text = "\n".join(lines).strip()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def in_backticks(text: str) -> str:
    """The text with names, settings and URIs in backticks."""
    return _NAMES.sub(r"`\g<0>`", text)


def _line(parameter: Parameter) -> str:
    default = json.dumps(parameter.default) if not isinstance(parameter.default, str) else parameter.default
    said = "required" if parameter.required else f"`{default}` unless set" if default else "empty unless set"
    if len(parameter.choices) > 2:
        said = f"one of {', '.join(f'`{choice}`' for choice in parameter.choices)}; {said}"
    words = in_backticks(" ".join(parameter.description.split()))
    return (
        f"- `{parameter.name}` ({KINDS[parameter.kind]}; {said}): {words}"
        if words
        else f"- `{parameter.name}` ({said})"
    )
