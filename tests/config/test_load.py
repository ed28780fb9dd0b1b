"""Composition, conversion and the messages of wrong values."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from curricle.config.load import (
    COMMAND_LINE,
    DEFAULT,
    Layer,
    build,
    compose,
    from_tree,
    leaves,
    parse_yaml,
    read_overrides,
    read_yaml,
    to_tree,
)
from curricle.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    mode: Literal["a", "b"] = "a"
    levels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate must be 0 or more, not {self.rate}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    count: int | Literal["all"] = "all"
    flag: bool = False
    inner: Inner = field(default_factory=Inner)
    own: Inner = field(default_factory=lambda: Inner(rate=0.25, levels=(1,)))


def load(*overrides: str, **tree):
    return build(Outer, compose([Layer({"name": "x"} | tree), read_overrides(list(overrides))]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e-4", 1e-4), ("5e-6", 5e-6), ("8", 8.0), (".5", 0.5), ("1E-3", 1e-3)],
)
def test_numbers_are_read_as_people_write_them(text, expected):
    value = load(f"inner.rate={text}").config.inner.rate
    assert value == expected and isinstance(value, float)


def test_null_lists_booleans_and_words_are_typed():
    config = load("inner.levels=[2, 3]", "flag=true", "count=7", "inner.mode=b").config
    assert (config.inner.levels, config.flag, config.count, config.inner.mode) == ((2, 3), True, 7, "b")
    assert load("inner.levels=null").config.inner.levels is None


def test_a_section_named_in_part_keeps_the_rest_of_its_owners_default():
    config = load("own.mode=b", "inner.mode=b").config
    assert (config.own, config.inner) == (Inner(rate=0.25, levels=(1,), mode="b"), Inner(mode="b"))
    with pytest.raises(ConfigError, match="own.rate: rate must be 0 or more"):
        load("own.rate=-1")


def test_every_leaf_knows_where_it_came_from(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text("name: x\ninner:\n  mode: b\n")
    loaded = build(Outer, compose([read_yaml(path), read_overrides(["inner.rate=1"])]))
    assert loaded.origins["inner.mode"] == f"{path}:3"
    assert loaded.origins["inner.rate"] == COMMAND_LINE
    assert loaded.origins["inner.levels"] == DEFAULT
    assert set(loaded.origins) == set(leaves(loaded.config))


def test_all_problems_come_at_once_with_the_nearest_known_key(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text("name: x\ninner:\n  rat: 1\n  mode: c\ncount: many\n")
    with pytest.raises(ConfigError) as caught:
        build(Outer, read_yaml(path))
    text = str(caught.value)
    assert "3 problems" in text
    assert f"{path}:3: inner.rat: unknown key; did you mean 'rate'?" in text
    assert f"{path}:4: inner.mode: must be one of a, b" in text
    assert f"{path}:5: count: must be a whole number or one of all" in text


def test_a_failed_check_names_its_own_line(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text("name: x\ninner:\n  rate: -1\n")
    with pytest.raises(ConfigError, match=rf"{path}:3: inner\.rate: rate must be 0 or more"):
        build(Outer, read_yaml(path))


@pytest.mark.parametrize("value", ["1", "yes please", "null"])
def test_a_flag_takes_only_true_and_false(value):
    with pytest.raises(ConfigError, match="flag: must be true or false"):
        load(f"flag={value}")


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("name: x\nflag: true\nname: y\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml:3: key 'name' stands twice \(first at .*:1\)"):
        read_yaml(path)


def test_a_missing_file_names_what_is_there(tmp_path):
    (tmp_path / "other.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="is not there; .* holds other.yaml"):
        read_yaml(tmp_path / "base.yaml")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "\t"])
def test_a_file_that_is_no_mapping_is_an_error(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="bad.yaml"):
        read_yaml(path)


@pytest.mark.parametrize("item", ["lr", "=3", "a b=1"])
def test_an_override_without_key_or_value_is_an_error(item):
    with pytest.raises(ConfigError, match=r"not of the form section\.key=value"):
        read_overrides([item])


@pytest.mark.parametrize("pair", [
    ("inner.rate=1", "inner.rate=2"), ("inner={rate: 1}", "inner.rate=2"), ("inner=null", "inner.rate=1"), ("rate=1", "inner.rate=1"),
])  # fmt: skip
def test_two_overrides_of_one_setting_are_an_error_that_names_both(pair):
    with pytest.raises(ConfigError) as error:
        read_overrides(list(pair), {"rate": "inner.rate"})
    assert all(repr(item) in str(error.value) for item in pair)
    assert read_overrides(["inner={rate: 1}", "inner.names=[a]", "inn=1"]).tree["inner"] == {"rate": 1, "names": ["a"]}


def test_a_required_value_that_is_nowhere_given_is_named():
    with pytest.raises(ConfigError, match="name: is required"):
        build(Outer, Layer({}))


def test_a_configuration_survives_the_way_to_a_tree_and_back():
    config = load("inner.levels=[2, 3]", "count=7").config
    assert from_tree(Outer, to_tree(config)) == config


@dataclass(frozen=True, kw_only=True)
class Pairs:
    one: tuple[str, int] = ("a", 1)
    named: dict[str, tuple[str, str]] = field(default_factory=dict)


def test_a_list_of_a_fixed_length_has_a_type_for_each_item():
    layer = parse_yaml("one: [b, 2]\nnamed: {x: [c, d]}", "here")
    assert build(Pairs, layer).config == Pairs(one=("b", 2), named={"x": ("c", "d")})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one: [b]", r"here:1: one: must be a list of 2 \(\[text, a whole number\]\), not \['b'\]"),
        ("one: [b, 2, 3]", "one: must be a list of 2"),
        ("one: [2, b]", "one: must be a list of 2"),
        ("named: {x: c}", r"named: must be a mapping \(key: value\), each value a list of 2 \(\[text, text\]\)"),
        ("named: [c, d]", "named: must be a mapping"),
        ("one: 1\none: 2", r"here:2: key 'one' stands twice \(first at here:1\)"),
        ("named: {}\none: [{a: 1}, {b: 1,\nb: 2}]", r"here:3: key 'b' stands twice \(first at here:2\)"),
    ],
)
def test_what_is_no_such_list_is_told_what_one_is(text, words):
    with pytest.raises(ConfigError, match=words):
        build(Pairs, parse_yaml(text, "here"))


STRANGE = {
    "a tag of Python's": (
        "a: 1\nb: !!python/object/apply:os.system ['touch ran']\n",
        ":2 is not YAML: .*python/object",
    ),
    "an unknown tag": ("a: !mine 1\n", ":1 is not YAML: .*!mine"),
    "an alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{c}: &{c} [{', '.join([f'*{b}'] * 10)}]\n" for b, c in zip("abcdefghi", "bcdefghij", strict=True)),
        "more than 100,000 values",
    ),
    "an alias within itself": ("a: &a {b: *a}\n", "within what it stands for"),
    "a list within itself": ("a: &a [*a]\n", "within what it stands for"),
    "deep brackets": ("a: " + "[" * 60 + "]" * 60, "nested deeper than 50 levels"),
    "very deep brackets": ("a: " + "[" * 30_000, "nested too deeply|not YAML"),
    "very deep blocks": ("".join(" " * i + "a:\n" for i in range(1500)), "nested"),
    "a long stair of aliases": (
        "a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 99)),
        "nested deeper than 50 levels",
    ),
    "a list as key": ("? [a, b]\n: 1\n", "a key that is a list or a mapping"),
    "a mapping as key": ("? {a: b}\n: 1\n", "a key that is a list or a mapping"),
    "a whole number of 5000 digits": ("a: " + "9" * 5000, "is not YAML that can be read"),
    "control characters": ("a: \x01\n", "is not YAML"),
    "two documents": ("a: 1\n---\na: 2\n", "is not YAML"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_yaml_that_is_more_than_data_is_one_error(case, tmp_path, monkeypatch):
    text, message = STRANGE[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "here.yaml")
    if "\n" not in text.strip():
        with pytest.raises(ConfigError, match="the value is not YAML"):
            read_overrides([f"x={text}"])
    assert list(tmp_path.iterdir()) == []


def test_aliases_that_stand_for_little_are_read():
    layer = parse_yaml("a: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  y: 2\n", "here.yaml")
    assert layer.tree == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


def test_an_override_with_a_key_twice_is_an_error():
    with pytest.raises(ConfigError, match="key 'a' stands twice"):
        read_overrides(["named={a: 1, a: 2}"])


def test_a_secret_of_the_environment_is_refused_wherever_it_was_typed(monkeypatch):
    """Not in a stored configuration: what was trained elsewhere stays readable."""
    monkeypatch.setenv("MY_API_TOKEN", "hunter2hunter2")
    for text in ("name: run of hunter2hunter2", "pair: [{x: a-hunter2hunter2}]", "pair: {hunter2hunter2: x}"):
        with pytest.raises(ConfigError, match="secret of the environment variable MY_API_TOKEN") as error:
            build(Pairs, parse_yaml(text, "here"))
        assert "hunter2" not in str(error.value).replace("named", ""), error.value
    assert from_tree(Pairs, {"named": {"x": ["a", "hunter2hunter2"]}}).named
