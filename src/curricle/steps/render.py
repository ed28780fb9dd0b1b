"""What a plan would send to a cluster, as YAML; sends nothing."""

from __future__ import annotations

import os

import yaml

from curricle.launch.pytorchjob.render import render
from curricle.launch.pytorchjob.settings import from_environment
from curricle.plan import ChainPlan
from curricle.steps.train import job_of


def render_jobs(plan: ChainPlan) -> str:
    """The PyTorchJob of every stage that would be trained, one YAML document each.

    Raises:
        ConfigError: no worker image is named, or a stage asks for what a PyTorchJob cannot be.
    """
    options = from_environment(os.environ)
    jobs = [render(job_of(plan, stage), options) for stage in plan.stages if stage.start in ("scratch", "continued")]
    return yaml.safe_dump_all(jobs, sort_keys=False, explicit_start=True) if jobs else ""
