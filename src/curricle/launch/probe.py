"""The one line of a log by which a probe tells its findings to the launcher that started it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from curricle.errors import Finding

_MARK = "CURRICLE-PREFLIGHT "


def findings_line(findings: Sequence[Finding]) -> str:
    """What a probe prints last, on a line of its own."""
    return _MARK + json.dumps([asdict(finding) for finding in findings])


def read_findings(lines: Sequence[str]) -> list[Finding] | None:
    """The findings in a probe's log, whatever stands before them on their line; None when it ended before it printed them."""
    for line in reversed(lines):
        _, mark, rows = line.partition(_MARK)
        if mark:
            return [Finding(**row) for row in json.loads(rows)]
    return None
