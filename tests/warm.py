"""Imported once by the process that `tests.command` forks: the libraries that a command of training or measuring imports, and nothing of ours."""

import os
import warnings

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # as our commands do: it would start a thread
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers.models.bert.modeling_bert  # noqa: F401
