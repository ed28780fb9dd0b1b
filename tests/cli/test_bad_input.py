"""Bad input: exit code 2, one readable message, no traceback, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from curricle import cli
from curricle.cli.options import Number

ROOT = Path(__file__).parents[2]


def curricle(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """The real command, from the repository's root."""
    code = "import sys; from curricle.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        timeout=120,
    )


CASES = {
    "unknown stage": (["train", "--curriculum", "09_stage"], "stages there: 01_stage"),
    "unknown chain": (["train-curriculum", "--chain", "chain_none"], "chain_none.yaml is not there"),
    "unknown key": (["plan", "training.learning_rat=1e-4"], "did you mean 'learning_rate'"),
    "wrong type": (["plan", "training.trainer.max_epochs=many"], "must be a whole number, not 'many'"),
    "no override": (["plan", "1e-4"], "not of the form section.key=value"),
    "missing base file": (["plan", "--config", "config/none.yaml"], "base configuration config/none.yaml is not there"),
    "no such checkpoint": (
        ["train-curriculum", "--curricula", "04_stage", "--from-checkpoint", "03_stage"],
        "no complete checkpoint of stage '03_stage'",
    ),
    "no such path": (["plan", "--from-checkpoint", "nowhere/x.ckpt"], "no complete checkpoint there"),
    "missing data": (["plan", "data.source=nowhere"], "nowhere"),
    "unknown scheme": (["plan", "paths.store_uri=ftp://x"], "scheme 'ftp' is not one of"),
    "empty stage name": (["plan", "--curricula", "01_stage,,02_stage"], "has an empty name"),
    "no model yet": (["search", "beer"], "holds no trained model that can search"),
    "empty texts alone": (["search", "", " "], "there is no text: what is given is empty"),
    "an export of another ending": (
        ["export", "-o", "nowhere/codes.parquet"],
        "ends in .parquet; --format parquet writes that",
    ),
    "run id that leads elsewhere": (["plan", "--run-id", "../x"], "run id '../x' holds '/'"),
    "an empty checkpoint": (["plan", "--from-checkpoint", ""], "is empty; leave the option out"),
    "an empty run id": (["plan", "--run-id", " "], "is empty; leave the option out"),
    "a run id that is a stage's name": (["plan", "--run-id", "01_stage"], "would stand for both"),
    "run id of a store's own folder": (
        ["train", "--curriculum", "01_stage", "--run-id", "data"],
        "a store's own folder",
    ),
    "tag in an override": (["plan", "seed=!!python/object/apply:os.getpid []"], "the value is not YAML"),
    "deep override": (["plan", "seed=" + "[" * 5000], "the value is not YAML"),
    "no run": (["show", "sequential_99"], "holds no run 'sequential_99'"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_message_and_exit_code_2(case, tmp_path):
    arguments, message = CASES[case]
    where = ["--store", str(tmp_path / "store")] if arguments[0] in ("search", "show") else []
    if arguments[0] in ("plan", "train", "train-curriculum") and not any("store_uri" in a for a in arguments):
        where = [f"paths.store_uri={tmp_path / 'store'}"]
    done = curricle(*arguments, *where)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_an_unreachable_store_says_so_with_the_code_of_what_may_pass(tmp_path):
    env = {"S3_ENDPOINT": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    env |= {"CURRICLE_STORE_PATIENCE": "1"}
    done = curricle("plan", "paths.store_uri=minio://bucket/x", env=env)
    assert done.returncode == 75 and "127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "in.csv: is empty"),
        ("a,b\n1,2\n", "its columns: a, b"),
    ],
)
def test_a_csv_without_its_column_is_refused_before_a_model_is_loaded(tmp_path, text, message):
    source = tmp_path / "in.csv"
    source.write_text(text)
    done = curricle(
        "assign", str(source), "--column", "text", "-o", str(tmp_path / "out.csv"), "--store", str(tmp_path / "store")
    )
    assert done.returncode == 2 and message in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv"]


def test_an_output_below_a_file_is_one_message_that_names_it(tmp_path):
    (tmp_path / "train.json").write_text('[{"text": "a b", "annotations": []}]')
    (tmp_path / "in.csv").write_text("text\nx\n")
    combine = ["combine", "--new", str(tmp_path), "--strategy", "new_only"]
    done = curricle(*combine, "-o", str(tmp_path / "in.csv/out"))
    below = tmp_path / "in.csv"
    assert done.returncode == 2 and done.stderr == f"error: {below / 'out'} cannot be written: {below} is no folder\n"
    done = curricle(*combine, "-o", str(tmp_path))
    assert done.returncode == 2 and f"{tmp_path} is the input {tmp_path}; nothing was written" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "train.json"]


def options(command, name=""):
    """Every option of a command and its verbs, by name."""
    for verb, inner in getattr(command, "commands", {}).items():
        yield from options(inner, f"{name} {verb}")
    yield from ((f"{name} {option.opts[0]}", option.type) for option in command.params)


def test_every_option_that_is_a_number_has_bounds_and_refuses_nan():
    verbs = {verb: cli.cli.get_command(None, verb) for verb in cli.VERBS}
    numbers = {
        name: kind
        for verb in verbs
        for name, kind in options(verbs[verb], verb)
        if kind.name.startswith(("float", "int"))
    }
    assert {"submit --timeout", "combine --replay", "ner predict --threshold", "search --top"} <= numbers.keys()
    assert [name for name, kind in numbers.items() if not isinstance(kind, Number | click.IntRange)] == []
    for text in ("nan", "inf", "-inf", "1e999"):
        with pytest.raises(click.BadParameter, match="no finite number"):
            Number(min=-1).convert(text, None, None)
