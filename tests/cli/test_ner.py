"""The NER verbs on small files, by the real command."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curricle.store import open_store
from curricle.store.manifest import publish

ROOT = Path(__file__).parents[2]


def curricle(*arguments: str, stdin: Any = None, **env: str) -> subprocess.CompletedProcess:
    code = "from curricle.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdin=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        timeout=120,
    )


def dataset(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    (folder / "train.json").write_text(
        json.dumps([{"text": f"{n} knows Go", "annotations": [[0, len(n), "NAME"]]} for n in names])
    )
    return folder


def test_two_datasets_become_one_without_a_text_in_both_parts(tmp_path):
    old, new = (
        dataset(tmp_path / "old", [f"Ann{i}" for i in range(10)]),
        dataset(tmp_path / "new", [f"Bob{i}" for i in range(10)]),
    )
    done = curricle(
        "combine",
        "--old",
        str(old),
        "--new",
        str(new),
        "--strategy",
        "combined",
        "--validation-ratio",
        "0.1",
        "-o",
        str(tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    train, validation = (
        [json.loads(line)["text"] for line in (tmp_path / f"out/{part}.jsonl").read_text().splitlines()]
        for part in ("train", "validation")
    )
    assert (len(train), len(validation)) == (18, 2) and not set(train) & set(validation)
    assert json.loads(done.stdout)["strategy"] == "combined"


def test_a_missing_dataset_is_one_message_and_nothing_is_written(tmp_path):
    new = dataset(tmp_path / "new", ["Bob"])
    done = curricle("combine", "--old", str(tmp_path / "none"), "--new", str(new), "-o", str(tmp_path / "out"))
    assert done.returncode == 2 and str(tmp_path / "none") in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_explicit_checkpoint_that_is_not_there_is_an_error(tmp_path):
    config = tmp_path / "train_continued.yaml"
    config.write_text("checkpoint:\n  source_path: outputs/{backbone}_{run_id}/checkpoint\n  validate: true\n")
    done = curricle(
        "resolve-checkpoint", "--config", str(config), "--backbone", "distilbert", "--run-id", "20251227_220407"
    )
    assert done.returncode == 2 and "distilbert_20251227_220407" in done.stderr
    other = curricle("resolve-checkpoint", "--config", str(config), CHECKPOINT_PATH=str(tmp_path / "nowhere"))
    assert other.returncode == 2 and "nowhere" in other.stderr


@pytest.mark.parametrize(("content", "message"), [
    (b"Ann knows Go\ncaf\xe9\n", "input line 2 (byte 16): not UTF-8 text"), (b'{"text": 1}\n', "input line 1: text must be a string"),
    (b'\n{"text": "a", "id": "\\ud800"}\n', "input line 2 holds half a surrogate pair"), (b'{"text"\n', "input line 1 begins with { and is not JSON"),
])  # fmt: skip
def test_a_wrong_line_of_a_file_is_named_before_anything_is_tagged(tmp_path, content, message):
    (tmp_path / "in.txt").write_bytes(content)
    with (tmp_path / "in.txt").open("rb") as stdin:
        done = curricle("ner", "predict", "--model", str(tmp_path), stdin=stdin)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr and not done.stdout


def test_of_a_stage_or_a_run_the_best_checkpoint_is_the_model(tmp_path):
    """It holds no weights here, and is named for that; the run's plan is no plan, and is named for that."""
    best = "tickets-epoch=01-val_loss=0.1000.ckpt"
    store, held = open_store(str(tmp_path)), {"digest": "d1", "info": {"family": "ner", "best": best}}
    publish(store, f"run/tickets/{best}", None, kind="checkpoint", digest="d1")
    publish(store, "run/tickets", None, kind="stage", **held)
    done = curricle("ner", "predict", "--model", str(tmp_path / "run/tickets"), stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and f"run/tickets/{best} holds no config.json" in done.stderr
    store.write("run/plan.json", b"{}")
    done = curricle("ner", "predict", "--model", str(tmp_path / "run"), stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "run/plan.json" in done.stderr


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_model_that_differs_from_its_manifest_is_refused_before_it_is_opened(tmp_path, file):
    from click.testing import CliRunner

    from curricle.cli import cli
    from curricle.errors import CurricleError

    (tmp_path / "made").mkdir()
    (tmp_path / "made/config.json").write_text("{}")
    publish(open_store(str(tmp_path)), "model", tmp_path / "made", kind="checkpoint", digest="d1")
    (tmp_path / "model" / file).write_text("[]")
    for verb in ("predict", "evaluate", "export"):
        more = {"evaluate": ["--data", str(tmp_path)], "export": ["-o", str(tmp_path / "out")]}.get(verb, [])
        done = CliRunner().invoke(cli, ["ner", verb, "--model", str(tmp_path / "model"), *more])
        assert isinstance(done.exception, CurricleError) and done.exception.exit_code == 2
        assert f"{tmp_path}/model" in str(done.exception) and file in str(done.exception)


def test_convert_says_what_it_read_and_what_was_lost_and_refuses_what_is_wrong(tmp_path):
    from curricle.cli.ner import convert as verb
    from curricle.families.ner.convert import TARGETS

    assert tuple(next(option for option in verb.params if option.name == "target").type.choices) == TARGETS
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "Bo left.", "label": [[0, 2, "PER"]]}\n{"text": "Oslo", "label": [[0, 4, "LOC"]]}\n')
    done = curricle("convert", str(source), "-o", str(tmp_path / "out.conll"), "--to", "conll")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out.conll'}\n")
    assert done.stderr == "read as JSON Lines, doccano (text, label): 2 records, 2 annotations\n"
    assert (tmp_path / "out.conll").read_text() == "Bo\tB-PER\nleft.\tO\n\nOslo\tB-LOC\n\n"
    again = curricle("convert", str(source), "-o", str(source), "--to", "conll")
    assert again.returncode == 2 and "is there already" in again.stderr
    source.write_text(source.read_text() + '{"text": "x", "label": [[0, 4, "LOC"]]}\n')
    wrong = curricle("convert", str(source), "-o", str(tmp_path / "out"), "--to", "brat")
    assert (
        wrong.returncode == 2 and "in.jsonl, record 3: annotation 1" in wrong.stderr and not (tmp_path / "out").exists()
    )


def test_select_takes_a_number_of_texts_and_checks_its_input_as_predict_does(tmp_path):
    for count, message in (("0", "0 is not in the range x>=1"), ("2", "input line 1: text must be a string")):
        (tmp_path / "in.txt").write_text('{"text": 1}\n')
        with (tmp_path / "in.txt").open("rb") as stdin:
            done = curricle("ner", "select", "--model", str(tmp_path), "--uncertain", count, stdin=stdin)
        assert done.returncode == 2 and message in done.stderr and not done.stdout
