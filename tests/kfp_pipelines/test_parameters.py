"""Parameters of the compiled pipelines, checked before anything runs."""

from pathlib import Path

import pytest
import yaml

from curricle.errors import PipelineError
from kfp_pipelines.parameters import compiled, over, parse, read_documents, read_parameters
from kfp_pipelines.shape import graph

COMPILED = Path(__file__).parents[2] / "kfp_pipelines/compiled"


@pytest.fixture
def known():
    return read_parameters(COMPILED / "chain_smoke.yaml")


REQUIRED = {"new_dataset_path", "table_uri", "column", "output_uri"}
"""What nobody can fill in for a person."""


def test_every_parameter_of_every_pipeline_is_described_and_has_a_default():
    for package in COMPILED.glob("*.yaml"):
        for parameter in read_parameters(package).values():
            assert parameter.description and (not parameter.required or parameter.name in REQUIRED), (
                f"{package.name}: {parameter.name}"
            )


def test_values_get_the_pipelines_types(known):
    assert parse(["resume=false", "stages=01_stage", "run_id=01"], known) == {
        "resume": False,
        "stages": "01_stage",
        "run_id": "01",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stagse=x", "did you mean 'stages'"),
        ("resume=maybe", "resume must be true or false, not 'maybe'"),
        ("stages", "not of the form name=value"),
        (
            "start_mode=continue",
            "start_mode must be one of auto, scratch, continued, not 'continue'; did you mean 'continued'",
        ),
        ("launcher=elsewhere", "launcher must be one of local, .*, not 'elsewhere'"),
    ],
)
def test_a_wrong_parameter_is_named(known, text, message):
    with pytest.raises(PipelineError, match=message):
        parse([text], known)


def test_a_file_that_is_no_pipeline_says_so(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1")
    with pytest.raises(PipelineError, match="no compiled pipeline"):
        read_parameters(tmp_path / "x.yaml")
    with pytest.raises(PipelineError, match="holds x.yaml"):
        read_parameters(tmp_path / "y.yaml")


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.pop("components"),
        lambda spec: spec["root"].pop("dag"),
        lambda spec: spec.update(pipelineInfo={}),
        lambda spec: spec["root"]["dag"].update(tasks=[]),
        lambda spec: spec["root"]["dag"].update(tasks={}),
        lambda spec: next(iter(spec["root"]["dag"]["tasks"].values())).update(componentRef={"name": "no"}),
        lambda spec: spec["root"]["dag"]["tasks"].update(more=None),
        lambda spec: next(iter(spec["root"]["dag"]["tasks"].values())).update(dependentTasks=["no"]),
    ],
)
def test_a_pipeline_that_lacks_something_is_none(tmp_path, change):
    documents = read_documents(COMPILED / "chain_smoke.yaml")
    change(documents[0])
    (tmp_path / "x.yaml").write_text(yaml.safe_dump_all(documents))
    with pytest.raises(PipelineError, match="no compiled pipeline"):
        read_parameters(tmp_path / "x.yaml")


def test_a_shipped_pipeline_is_found_by_its_printed_name_where_no_such_folder_is(tmp_path, monkeypatch):
    printed = Path("kfp_pipelines/compiled/chain_smoke.yaml")
    monkeypatch.chdir(tmp_path)
    assert compiled(printed).samefile(COMPILED / printed.name) and compiled(printed.parent).samefile(COMPILED)
    assert compiled(printed.with_name("no.yaml")) == printed.with_name("no.yaml")
    printed.parent.mkdir(parents=True)
    assert compiled(printed) == printed


def test_a_parameter_that_is_given_twice_is_named_with_both(known):
    with pytest.raises(PipelineError, match="run_id is given twice .'run_id=a' and 'run_id=b'."):
        parse(["run_id=a", "run_id=b"], known)


def test_what_several_parameters_set_counts_from_the_last(known):
    assert over(["a=1", "b=1"], ["b=2", "c=2"], ["c=3"]) == ["a=1", "b=2", "c=3"]


def test_the_form_has_select_boxes_whose_default_is_among_the_choices():
    for package in COMPILED.glob("*.yaml"):
        for parameter in read_parameters(package).values():
            if parameter.kind == "BOOLEAN" or parameter.name in ("launcher", "start_mode", "strategy"):
                assert parameter.default in parameter.choices, f"{package.name}: {parameter.name}"
            else:
                assert not parameter.choices


@pytest.mark.parametrize("name", ["chain_default", "continued_training"])
def test_the_short_form_asks_for_less_and_runs_the_same_graph(name):
    full, short = (read_documents(COMPILED / f"{name}{suffix}.yaml")[0] for suffix in ("", "_minimal"))
    asked = [set(spec["root"]["inputDefinitions"]["parameters"]) for spec in (short, full)]
    assert asked[0] < asked[1] and len(asked[0]) <= 6
    told = [[line for line in graph(spec).text.splitlines() if "register" not in line] for spec in (short, full)]
    assert told[0] == told[1] and len(told[0]) > 10
