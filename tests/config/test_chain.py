"""The shipped chains, the YAML that the user's guide prints, and the messages of bad chains."""

from dataclasses import replace
from pathlib import Path

import pytest

from curricle.config.chain import adhoc_chain, list_chains, list_curricula, load_chain, load_stage
from curricle.errors import ConfigError

CONFIG = Path(__file__).parents[2] / "config"

SEED_STAGE = """\
name: 01_stage

# Anchor filtering
anchor_level: [2, 3]
relation_margin: null
distance_margin: null

# Positive filtering
positive_level: [2, 3]
positive_relation: [1, 2]
positive_distance: null

# Negative sampling
negative_level: null
negative_relation: null
negative_distance: null

# Sample counts
n_positives: 64
n_negatives: 24
"""

SEED_CHAIN = """\
chain_name: progressive_difficulty

stages:
  - name: 01_stage
    max_epochs: 5
    learning_rate: 2e-4
  - name: 02_stage  
    max_epochs: 8
    learning_rate: 1e-4
"""


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    folder = tmp_path / "text_curriculum"
    folder.mkdir()
    (tmp_path / "config.yaml").write_text("family: naics\ntraining:\n  learning_rate: 3e-3\n  weight_decay: 0.1\n")
    (folder / "01_stage.yaml").write_text(SEED_STAGE)
    (folder / "02_stage.yaml").write_text(SEED_STAGE.replace("01_", "02_") + "training:\n  weight_decay: 0.2\n")
    (folder / "chain_default.yaml").write_text(SEED_CHAIN)
    return tmp_path


def test_the_guides_own_yaml_loads(guide):
    source = load_chain("chain_default", guide)
    assert [(s.name, s.max_epochs, s.learning_rate) for s in source.chain.stages] == [
        ("01_stage", 5, 2e-4),
        ("02_stage", 8, 1e-4),
    ]
    config = load_stage(guide / "config.yaml", "01_stage", [], source.layers["01_stage"]).config
    assert config.curriculum.anchor_level == (2, 3) and config.curriculum.n_negatives == 24
    assert config.curriculum.objective == "contrastive"
    assert (config.training.trainer.max_epochs, config.training.learning_rate) == (5, 2e-4)


def test_the_last_layer_wins(guide):
    source = load_chain("chain_default", guide)
    plain = load_stage(guide / "config.yaml", "02_stage", []).config.training
    assert (plain.learning_rate, plain.weight_decay) == (3e-3, 0.2)
    chained = load_stage(guide / "config.yaml", "02_stage", [], source.layers["02_stage"]).config.training
    assert chained.learning_rate == 1e-4
    loaded = load_stage(guide / "config.yaml", "02_stage", ["training.learning_rate=1e-5"], source.layers["02_stage"])
    assert loaded.config.training.learning_rate == 1e-5
    assert loaded.origins["training.weight_decay"].endswith("02_stage.yaml:22")


def test_every_shipped_stage_and_chain_loads():
    stages = [name for name, _ in list_curricula(CONFIG)]
    chains = [name for name, _ in list_chains(CONFIG)]
    assert {"01_stage", "02_stage", "03_stage", "04_stage", "05_stage"} <= set(stages)
    assert {"chain_default", "chain_smoke", "chain_demo"} <= set(chains)
    for name in stages:
        load_stage(CONFIG / "config.yaml", name, [])
    for name in chains:
        source = load_chain(name, CONFIG)
        for stage in source.chain.stages:
            load_stage(CONFIG / "config.yaml", stage.name, [], source.layers[stage.name])


def test_an_unknown_stage_names_the_nearest_and_all(guide):
    with pytest.raises(ConfigError, match=r"did you mean 01_stage\?\); stages there: 01_stage, 02_stage"):
        load_stage(guide / "config.yaml", "01_stge", [])


def test_an_unknown_chain_names_what_is_there(guide):
    with pytest.raises(ConfigError, match="chain .*chain_defalt.yaml is not there; .* holds 01_stage.yaml"):
        load_chain("chain_defalt", guide)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chain_name: x\nstages: []", "at least one stage"),
        ("chain_name: x\nstages:\n  - name: a\n  - name: a", "lists a more than once"),
        ("stages:\n  - name: a", "chain_name: is required"),
        ("chain_name: x\nstages:\n  - name: a\n    max_epochs: 0", "max_epochs: must lie in \\[1, 100000\\], not 0"),
        ("chain_name: x\nstages:\n  - name: a\n    learning_rate: 2", "learning_rate: must lie in \\(0, 1\\), not 2"),
        ("chain_name: x\nstages:\n  - nam: a", "did you mean 'name'"),
        ("chain_name: x\nstages: 01_stage", "must be a list"),
    ],
)
def test_a_bad_chain_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "chain_bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_chain(str(path), tmp_path)


def test_a_stage_cannot_be_listed_twice_on_the_command_line():
    with pytest.raises(ConfigError, match="more than once"):
        adhoc_chain(["a", "b", "a"])


def test_the_former_name_of_a_family_means_the_same_configuration_and_digest(tmp_path):
    from curricle.planning import stage_digest

    (tmp_path / "text_curriculum").mkdir()
    (tmp_path / "text_curriculum" / "a.yaml").write_text("objective: geometry\n")
    made = {}
    for name in ("naics", "codes"):
        (tmp_path / "config.yaml").write_text(f"family: {name}\nmodel: {{dim: 8}}\n")
        made[name] = load_stage(tmp_path / "config.yaml", "a", []).config
    assert made["naics"] == made["codes"] and made["codes"].family == "codes"
    assert stage_digest(made["codes"], "d", "") == stage_digest(replace(made["codes"], family="naics"), "d", "")


def test_files_that_a_configuration_names_are_relative_to_it_and_those_of_the_command_line_are_not(tmp_path):
    (tmp_path / "text_curriculum").mkdir()
    (tmp_path / "text_curriculum" / "a.yaml").write_text("objective: geometry\n")
    (tmp_path / "config.yaml").write_text("data: {classification: codes.csv, labelled: [a/*.csv, 's3://b/c']}\n")
    data = load_stage(tmp_path / "config.yaml", "a", []).config.data
    assert data.classification == str(tmp_path / "codes.csv") and data.files == (str(tmp_path / "a/*.csv"), "s3://b/c")
    data = load_stage(tmp_path / "config.yaml", "a", ["data.labelled=mine.csv"]).config.data
    assert data.files == ("mine.csv",)
    with pytest.raises(ConfigError, match="both name a classification"):
        load_stage(tmp_path / "config.yaml", "a", ["data.source=/census"])
    with pytest.raises(ConfigError, match="go together"):
        load_stage(tmp_path / "config.yaml", "a", ["data.labelled=[]"])
