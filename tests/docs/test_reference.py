"""The references are whole: every setting, verb, option and public name that the code has stands on its page, with its meaning."""

import dataclasses
import re

import click
import pytest

import curricle
import curricle.ner
from curricle.cli import cli
from curricle.config.chain import list_chains, load_stage
from curricle.config.load import leaves, to_tree
from curricle.registry import FAMILIES
from docs._ext import commands, configuration, pages, python
from tests.printed import ROOT


@pytest.fixture(scope="module")
def settings() -> str:
    return pages.fill((ROOT / "docs/reference/configuration.md").read_text())


@pytest.mark.parametrize(("base", "stage"), [("config", "02_stage"), ("config/ner", "business")])
def test_every_value_of_a_loaded_configuration_is_a_setting_with_a_meaning(base: str, stage: str, settings: str):
    """Against what the loader itself makes of a stage, which knows nothing of the page."""
    config = load_stage(ROOT / base / "config.yaml", stage, []).config
    rows = dict(re.findall(r"^\| `([^`]+)` \| .+ \| .+ \| (.+) \|$", settings, re.MULTILINE))
    for key in leaves(to_tree(config)):
        assert rows[key].endswith("."), key
    shown = settings.partition(f"## Family `{config.family}`")[2].partition("\n## ")[0]
    assert len(shown) > 1000


def test_types_ranges_and_defaults_are_those_of_the_dataclasses(settings: str):
    for row in (
        "| `training.learning_rate` | number in `(0, 1)` | `0.001` |",
        "| `training.learning_rate` | number in `(0, 1)` or null | `null` |",  # of ner
        "| `training.trainer.max_epochs` | whole number in `[0, 100000]` | `3` |",  # of ner, from its default instance
        "| `curriculum.name` | text, not empty | required |",
        "| `stages[].max_epochs` | whole number in `[1, 100000]` or null | `null` |",
        "| `search_space.<name>.type` | `choice` \\| `uniform` \\| `loguniform` | required |",
        "| `elastic.max_restarts` |",
    ):
        assert row in settings, row
    assert set(re.findall(r"^## Family `(\w+)`", settings, re.MULTILINE)) == set(FAMILIES)


def test_a_link_to_a_files_settings_leads_somewhere_in_the_repository_too():
    """The headings stand in the page itself, with the dataclass that holds what the table is made from."""
    page = (ROOT / "docs/reference/configuration.md").read_text()
    for name, cls in configuration.FILES.items():
        section = page.partition(f"<!-- made: {name} -->")[0].rpartition("\n## ")[2]
        source = ROOT / re.findall(r"`(src/[^`]+)`", section)[-1]
        assert f"`{cls.__name__}` in" in section and f"class {cls.__name__}" in source.read_text(), name
    assert page.count("\n## Cluster settings\n") == 1


def test_a_field_without_a_docstring_is_an_error():
    @dataclasses.dataclass
    class Bare:
        one: int = 1
        """It."""
        two: int = 2

    with pytest.raises(KeyError, match="two"):
        list(configuration.settings(Bare))


def test_every_verb_stands_there_with_all_options_and_an_example():
    page, paths = commands.page(), [path for path, _, _ in commands.verbs()]
    assert {path.split()[1] for path in paths} == set(cli.list_commands(click.Context(cli)))
    for path, command, _ in commands.verbs():
        section = page.partition(f"## {path}\n")[2].partition("\n## ")[0]
        assert section and command.help and command.help.split()[0] in section, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"`{parameter.opts[0]}`" in section and parameter.help, (path, parameter.name)
        assert commands.examples(path), f"no page shows {path}"


def test_every_public_name_stands_there():
    page = python.page()
    for module in (curricle, curricle.ner):
        for name in module.__all__:
            assert f":: {module.__name__}.{name}\n" in page or f"`{name}`" in page, name


def test_a_mark_that_no_part_fills_is_an_error_and_files_beside_docs_lead_to_their_pages():
    with pytest.raises(KeyError, match="weather"):
        pages.fill("<!-- made: weather -->")
    text = "[a](../SECURITY.md#secrets) [b](CONTRIBUTING.md) [c](faults.md)"
    assert pages.lead(text, "../") == "[a](../security.md#secrets) [b](../contributing.md) [c](faults.md)"


def test_every_chain_is_listed_where_pages_name_it():
    known = {name for folder in ("config", "config/ner") for name, _ in list_chains(ROOT / folder)}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        named = set(re.findall(r"--chain (chain_\w+)", page.read_text(encoding="utf-8")))
        assert named <= known, page
