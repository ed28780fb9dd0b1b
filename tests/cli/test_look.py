"""What a person sees while a chain runs."""

from curricle.cli.look import Progress
from curricle.training.events import Warned


def test_a_warning_is_shown_as_it_stands(capsys):
    with Progress() as shown:
        shown(Warned("MLflow is left out from here on: [Errno 111] refused"))
    assert "warning: MLflow is left out from here on: [Errno 111] refused" in " ".join(capsys.readouterr().out.split())
