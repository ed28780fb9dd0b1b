"""What a family is told of one of its models for report and card, and what it hands to the report: sections, and what a reader should worry about. Plain data; how it
looks stands in templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a report."""

    key: str
    """Its anchor: letters, digits and hyphens."""
    title: str
    template: str
    """Where its body stands: ``package:path`` of a Jinja2 template among the package's data. It may import `macros.html` of the report."""
    data: Mapping[str, Any]
    """What the template is given. Texts are escaped, whatever they hold."""


@dataclass(frozen=True)
class Part:
    """A family's part of a report."""

    sections: Sequence[Section] = ()
    worries: Sequence[str] = ()
    """A sentence each, for people."""


@dataclass(frozen=True)
class Seen:
    """What is known of a model, as a family's parts of report and card are given it."""

    name: str
    """``RUN/STAGE``; empty for one that another program wrote."""
    metrics: Mapping[str, float]
    """Of the validation records."""
    data: Mapping[str, Any]
    """The facts of the prepared data (`FamilyEntry.prepare`)."""
    config: Mapping[str, Any]
    """The effective configuration, flat."""
    findings: Mapping[str, Any] = field(default_factory=dict)
    """What `FamilyEntry.findings` gave; empty where nobody asked."""
    digest: str = ""
    """Of the stage."""
    parent_digest: str = ""
    """Of the stage that it continues; empty for scratch."""
    data_digest: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    """What the manifests of stage and checkpoint say beside: epochs, steps, versions ..."""
    files: Callable[[str], bytes | None] = lambda name: None
    """A file of the checkpoint, by its name; None for none."""
    data_files: Callable[[str], bytes | None] = lambda name: None
    """A file of the prepared data."""
    store_uri: str = ""
    """Where `name` lies, for the commands that a report prints."""
