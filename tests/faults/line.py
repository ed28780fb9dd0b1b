"""The line family of the laws, which tells of its moments as audit events. Imports no torch."""

import sys
from dataclasses import replace

from tests.laws import line

ENTRY = replace(line.ENTRY, build="tests.faults.line:build", evaluate="tests.faults.line:evaluate")


def build(context):
    """The line family's task."""
    from tests.laws.line.task import Line

    class Watched(Line):
        def losses(self, batch):
            sys.audit("curricle.moment", "step")
            return super().losses(batch)

        def validate(self):
            sys.audit("curricle.moment", "validation")
            return super().validate()

    return Watched(context)


def evaluate(checkpoint_dir, data_dir):
    """How well the line fits."""
    from tests.laws.line import task

    sys.audit("curricle.moment", "evaluation")
    return task.evaluate(checkpoint_dir, data_dir)
