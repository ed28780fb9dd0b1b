"""Every number of every configuration has a range where it is declared; whatever lies outside, or is of another kind, names its key."""

import dataclasses
import types
import typing

import pytest
from click.testing import CliRunner

from curricle.cli import cli
from curricle.config.chain import Chain
from curricle.config.experiment import Experiment
from curricle.config.load import COMMAND_LINE, Layer, build, nest
from curricle.config.schema import Range, StageConfig
from curricle.config.search import Benchmark, Search
from curricle.errors import ConfigError, CurricleError
from curricle.launch.kubernetes.options import ClusterSettings
from curricle.registry import FAMILIES, family
from kfp_pipelines.recurring import Definition

SCHEMAS = {
    **{name: family(name).load("config") for name in FAMILIES},
    **{
        schema.__name__: schema
        for schema in (StageConfig, Chain, Experiment, Search, Benchmark, ClusterSettings, Definition)
    },
}


@dataclasses.dataclass(frozen=True)
class Number:
    """A number that a configuration may hold: its dotted key, whole or not, its range, and how a value is wrapped at the key."""

    schema: str
    key: str
    whole: bool
    range: Range | None
    listed: bool

    def layer(self, value) -> Layer:
        """A configuration that gives the value, and nothing else."""
        first, _, rest = self.key.partition("[]")
        inner = nest(rest.lstrip("."), value) if rest.strip(".") else value
        if "[]" in self.key:
            inner = [inner]
        elif self.listed:
            inner = [value]
        return Layer(nest(first, inner), {first: COMMAND_LINE})

    @property
    def shown(self) -> str:
        """The key as a message names it."""
        return self.key.replace("[]", "")


def numbers(schema, name, prefix="", seen=()) -> list[Number]:
    found = []
    for key, kind in typing.get_type_hints(schema, include_extras=True).items():
        found += of_kind(kind, name, f"{prefix}{key}", (*seen, schema))
    return found


def of_kind(kind, name, key, seen, rule=None, listed=False) -> list[Number]:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        rule = next((r for r in parts[1:] if isinstance(r, Range)), None)
        return of_kind(parts[0], name, key, seen, rule, listed)
    if origin in (typing.Union, types.UnionType):
        return [number for part in parts for number in of_kind(part, name, key, seen, rule, listed)]
    if origin is tuple:
        inner = next((p for p in parts if p is not Ellipsis), None)
        if dataclasses.is_dataclass(inner):
            return numbers(inner, name, f"{key}[].", seen)
        return of_kind(inner, name, key, seen, rule, True)
    if origin is dict and dataclasses.is_dataclass(parts[1]):
        return numbers(parts[1], name, f"{key}.x.", seen)
    if dataclasses.is_dataclass(kind):
        return numbers(kind, name, f"{key}.", seen)
    return [Number(name, key, kind is int, rule, listed)] if kind in (int, float) else []


NUMBERS = [number for name, schema in SCHEMAS.items() for number in numbers(schema, name)]
IDS = [f"{number.schema}:{number.key}" for number in NUMBERS]


def outside(rule: Range) -> list:
    """Numbers just outside of a range's ends, and far away."""
    low, high = (float(end) for end in rule.interval[1:-1].split(","))
    under = low if rule.interval[0] == "(" else low - max(1, abs(low))
    over = high if rule.interval[-1] == ")" else high + max(1, abs(high))
    return [under, over, -1e300, 1e300]


def refused(number: Number, value) -> str:
    with pytest.raises(ConfigError) as caught:
        build(SCHEMAS[number.schema], number.layer(value))
    blamed = [problem for problem in caught.value.problems if f"{number.shown}: must" in problem]
    assert blamed, (number, value, caught.value.problems)
    return blamed[0]


def test_there_are_as_many_as_are_written():
    assert len(NUMBERS) > 100
    assert {number.key for number in NUMBERS if number.schema == "codes"} >= {
        "seed", "curriculum.loss.leaf", "curriculum.anchor_level", "curriculum.n_negatives", "data.hidden_codes", "training.trainer.devices",
    }  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS, ids=IDS)
def test_a_number_has_a_range_and_what_lies_outside_is_refused(number):
    assert number.range is not None, f"{number.key} of {number.schema} declares no Range"
    for value in outside(number.range):
        value = int(value) if number.whole else value
        assert number.range.interval in refused(number, value)
    if number.whole:
        assert "must be" in refused(number, 1.5)
    for value in (float("nan"), float("inf"), float("-inf"), "nan", "inf", True, "many", [[1]], {"a": 1}, 10**400):
        refused(number, value)


@pytest.mark.parametrize("schema", [s for s in SCHEMAS.values()], ids=list(SCHEMAS))
def test_no_text_of_a_configuration_holds_control_characters_or_is_endless(schema):
    texts = [key for key, kind in typing.get_type_hints(schema).items() if kind is str]
    assert texts or schema in (Search, Benchmark)
    for key in texts:
        for value in ("a\0b", "a\nb", "\x1b[31m", "a\x7f", "\ud800", "x" * 5000):
            with pytest.raises(ConfigError, match=rf"{key}: must h(old no control|ave at most)"):
                build(schema, Layer({key: value}))


@pytest.mark.parametrize(
    "case",
    ["training.trainer.max_epochs=-1", "seed=.nan", "tracking.log_every_n_steps=true", "data_loader.batch_size=[1]"],
)
def test_the_command_names_the_key_and_ends_with_2(case):
    with pytest.raises(CurricleError, match=case.partition("=")[0]) as caught:
        CliRunner().invoke(cli, ["plan", case], catch_exceptions=False, standalone_mode=False)
    assert caught.value.exit_code == 2
