"""The reconciler against recorded answers: idempotent, switches over, prunes only what it made, ends nothing."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from fake_kfp import FakeKfp

from curricle.cli.submit import recurring
from curricle.errors import CurricleError
from kfp_pipelines.parameters import read_parameters

SMOKE = Path(__file__).parents[2] / "kfp_pipelines" / "compiled" / "chain_smoke.yaml"
DEFAULTS = {name: parameter.default for name, parameter in read_parameters(SMOKE).items()}
TEXT = "name: nightly\npipeline: chain_smoke.yaml\nschedule: {cron: '0 0 2 * * *'}\nparameters: {launcher: local}\n"


@pytest.fixture
def fake(shared):
    made = FakeKfp(shared / "data" / "kfp-api")
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nightly.yaml").write_text(TEXT)
    return tmp_path


def apply(fake, folder, *options):
    done = CliRunner().invoke(recurring, ["apply", str(folder), "--endpoint", fake.url, *options])
    code = done.exception.exit_code if isinstance(done.exception, CurricleError) else done.exit_code
    return code, done.output + (str(done.exception) if isinstance(done.exception, CurricleError) else "")


def test_a_definition_becomes_an_enabled_recurring_run_and_stays_as_it_is(fake, folder):
    assert apply(fake, folder)[0] == 0
    (run,) = fake.recurring.values()
    assert (
        run["status"] == "ENABLED"
        and fake.bodies[0]["mode"] == "DISABLE"
        and run["runtime_config"]["parameters"] == DEFAULTS | {"launcher": "local"}
    )
    before = len(fake.bodies)
    code, text = apply(fake, folder)
    assert code == 0 and "1 recurring run as defined" in text and len(fake.bodies) == before


def test_a_changed_definition_is_switched_over_and_no_run_is_ended(fake, folder):
    apply(fake, folder)
    (old,) = fake.recurring
    (folder / "nightly.yaml").write_text(TEXT.replace("2 * * *", "3 * * *"))
    code, text = apply(fake, folder, "--diff")
    assert code == 2 and "would create nightly: changed" in text and list(fake.recurring) == [old]
    assert apply(fake, folder)[0] == 0
    (run,) = fake.recurring.values()
    assert run["recurring_run_id"] != old and run["status"] == "ENABLED" and fake.deleted_with == ["ORPHAN"]
    assert apply(fake, folder, "--diff")[0] == 0


def test_what_a_person_made_is_never_touched(fake, folder):
    theirs = {"recurring_run_id": "theirs", "display_name": "nightly", "description": "by hand", "status": "ENABLED"}
    fake.recurring["theirs"] = dict(theirs)
    apply(fake, folder)
    (folder / "nightly.yaml").unlink()
    code, _ = apply(fake, folder, "--prune")
    assert code == 0 and fake.recurring == {"theirs": theirs}


def test_enabled_is_kept_as_defined(fake, folder):
    apply(fake, folder)
    (ident,) = fake.recurring
    fake.recurring[ident]["status"] = "DISABLED"
    assert "enable nightly" in apply(fake, folder)[1] and fake.recurring[ident]["status"] == "ENABLED"
    (folder / "nightly.yaml").write_text(TEXT + "enabled: false\n")
    assert "disable nightly" in apply(fake, folder)[1] and fake.recurring[ident]["status"] == "DISABLED"


def test_one_bad_file_is_named_and_the_others_are_done(fake, folder):
    (folder / "bad.yaml").write_text(
        "name: bad\npipeline: chain_smoke.yaml\nschedule: {cron: often}\nparameters: {resume: 1}\n"
    )
    (folder / "late.yaml").write_text(
        "name: late\npipeline: chain_smoke.yaml\nschedule: {interval_seconds: 60}\nparameters: {start_mode: zzz}\n"
    )
    code, text = apply(fake, folder, "--prune")
    assert (
        code == 2
        and "bad.yaml" in text
        and "cron must have" in text
        and "parameters.start_mode must be one of auto" in text
        and "nothing is pruned" in text
    )
    assert [run["display_name"] for run in fake.recurring.values()] == ["nightly"]


def test_bad_files_are_named_also_where_no_server_answers(folder):
    nobody = type("Nobody", (), {"url": "http://127.0.0.1:9"})
    (folder / "late.yaml").write_text("name: late\npipeline: chain_smoke.yaml\nschedule: {cron: 0 2 * * *}\n")
    code, text = apply(nobody, folder, "--dry-run")
    assert code == 2 and "nobody answers" in text and "late.yaml: " in text and 'write "0 0 2 * * *"' in text
    (folder / "nightly.yaml").unlink()
    code, text = apply(nobody, folder, "--dry-run")
    assert code == 2 and 'write "0 0 2 * * *"' in text and "nobody" not in text, (
        "without a good file no server is asked"
    )


def test_one_that_the_server_refuses_is_named_and_the_others_are_done(fake, folder):
    fake.refused_crons.add("0 0 4 * * *")
    (folder / "a-bad.yaml").write_text(TEXT.replace("nightly", "bad").replace("0 0 2 * * *", "0 0 4 * * *"))
    code, text = apply(fake, folder, "--prune")
    assert code == 2 and "a-bad.yaml" in text and "not a supported format" in text
    assert [run["display_name"] for run in fake.recurring.values()] == ["nightly"]


def test_a_dry_run_only_says(fake, folder):
    code, text = apply(fake, folder, "--dry-run")
    assert code == 0 and "would create nightly: new" in text and fake.recurring == {}


IMAGES = ("--image", "registry.local/control:2", "--trainer-image", "registry.local/trainer:2")


def test_other_images_are_another_definition_and_whoever_names_none_agrees(fake, folder):
    apply(fake, folder)
    assert "create nightly: other images" in apply(fake, folder, *IMAGES)[1]
    assert apply(fake, folder, *IMAGES, "--diff")[0] == 0
    assert apply(fake, folder, "--diff")[0] == 0, "a person who names no images wants none of them changed"
    assert apply(fake, folder, *[text.replace(":2", ":3") for text in IMAGES], "--diff")[0] == 2


def test_a_changed_definition_without_images_keeps_those_that_ran(fake, folder):
    apply(fake, folder, *IMAGES)
    before = dict(fake.uploads)
    (folder / "nightly.yaml").write_text(TEXT.replace("2 * * *", "3 * * *"))
    assert apply(fake, folder)[0] == 0
    (run,) = fake.recurring.values()
    assert "registry.local/control:2" in run["description"] and fake.uploads == before, (
        "the same content, so no new version"
    )


def test_a_recurring_run_says_in_words_what_it_is_and_when_it_fires(fake, folder):
    _, text = apply(fake, folder)
    (run,) = fake.recurring.values()
    assert "CRON_SCHEDULE_TIMEZONE" in text and "CRON_SCHEDULE_TIMEZONE" in run["description"]
    assert run["description"].startswith("Runs chain_smoke at `0 0 2 * * *`") and "nightly.yaml" in run["description"]


def test_the_shipped_definitions_are_good():
    from kfp_pipelines.recurring import load_definitions

    good, bad = load_definitions(Path(__file__).parents[2] / "config" / "recurring-runs")
    assert good and bad == []
