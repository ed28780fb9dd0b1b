"""Parameters of the compiled pipelines, checked before anything runs."""

from pathlib import Path

import pytest

from curricle.errors import PipelineError
from kfp_pipelines.parameters import compiled, parse, read_parameters

COMPILED = Path(__file__).parents[2] / "kfp_pipelines/compiled"


@pytest.fixture
def known():
    return read_parameters(COMPILED / "chain_smoke.yaml")


def test_every_parameter_of_every_pipeline_is_described_and_has_a_default():
    for package in COMPILED.glob("*.yaml"):
        for parameter in read_parameters(package).values():
            assert parameter.description and (not parameter.required or parameter.name == "new_dataset_path"), (
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


def test_a_shipped_pipeline_is_found_by_its_printed_name_where_no_such_folder_is(tmp_path, monkeypatch):
    printed = Path("kfp_pipelines/compiled/chain_smoke.yaml")
    monkeypatch.chdir(tmp_path)
    assert compiled(printed).samefile(COMPILED / printed.name) and compiled(printed.parent).samefile(COMPILED)
    assert compiled(printed.with_name("no.yaml")) == printed.with_name("no.yaml")
    printed.parent.mkdir(parents=True)
    assert compiled(printed) == printed
