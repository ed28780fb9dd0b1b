"""Models side by side, in any width."""

import pytest
from rich.console import Console

from curricle.cli import compare as module
from curricle.registry import family
from curricle.steps.compare import Comparison, Side

NAMES = (
    "sequential_01-02-03-04-05",
    "sequential_classic_01-classic_02-classic_03-classic_04-classic_05",
    "[red]a third[/]/one",
)


def comparison() -> Comparison:
    entry = family("codes")
    sides = tuple(Side(n, f"checkpoints/{n}", ("01_stage", "02_stage"), {}, {}, "d", entry) for n in NAMES)
    settings = {"curriculum.trainable": [[], ["encoder", "head"], None], "training.learning_rate": [1e-3, 1e-4, 1e-3]}
    metrics = {"val/top1": [0.5, 0.75, None], "structure/pearson": [0.5, 0.25, 0.5]}
    return Comparison(sides, settings, metrics, ())


@pytest.mark.parametrize("width", [80, 100, 160])
def test_figures_stand_whole_in_their_lines_at_any_width(width, monkeypatch, capsys):
    monkeypatch.setattr(module, "console", Console(width=width, emoji=False))
    module._tables(comparison())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["val/top1"] == ["0.5000", "0.7500", "-", "+0.2500"]
    assert rows["structure/pearson"] == ["0.5000", "0.2500", "0.5000", "-0.2500", "+0.0000"]
    assert rows["curriculum.trainable"] == ["none", "encoder,", "head", "-"] and rows["A"][0] == NAMES[0]
    assert "[red]a third[/]/one" in "\n".join(lines)


def test_more_models_than_letters_have_names_of_their_own():
    assert [module._letter(number) for number in (0, 25, 26, 53)] == ["A", "Z", "A1", "B2"]
