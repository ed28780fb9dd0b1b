"""Cards of both families: the Hugging Face hub's own reader takes them, and what users wrote is text in them."""

import json
import re

import pytest
from huggingface_hub import ModelCard

from curricle.cards.card import OURS, licence, said_in, text_of
from curricle.registry import FAMILIES, family
from curricle.report.build import write_reports
from curricle.steps.card import card_of, card_text
from curricle.store import layout
from tests.report import made_up
from tests.report.made_up import RUN

KNOWN = [name for name in FAMILIES if family(name).card]


@pytest.fixture(scope="module", params=KNOWN)
def stage(request, tmp_path_factory):
    """(family, the place of a stage with findings, published as training does it, and its run's folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    store = getattr(made_up, request.param)(folder)
    made_up.checkpoints(folder, request.param)
    return request.param, f"{store}/{RUN}/two", folder / RUN


def test_the_hub_reads_head_and_model_index(stage):
    name, uri, _ = stage
    card = ModelCard(card_text(uri))
    assert card.data.library_name == "transformers" and card.data.pipeline_tag and "curricle" in card.data.tags
    results = card.data.eval_results
    assert results and {result.dataset_split for result in results} == {"test"}
    assert {result.dataset_revision for result in results} == {"d0"}
    wanted = {"codes": ("accuracy", "test/top1", 0.6), "ner": ("precision", "test/precision", 135 / 161)}[name]
    found = {(r.metric_type, r.metric_name): r.metric_value for r in results}
    assert found[wanted[:2]] == pytest.approx(wanted[2], abs=1e-5)


def test_it_says_licences_base_data_training_scores_use_limits_and_three_ways(stage):
    text = card_text(stage[1])
    for words in ("base model", "licence of the base model", "## Data", "d0", "## Training", "digest0", "## Scores", "## Intended use", "## Limits"):  # fmt: skip
        assert words in text
    assert [number for number in "123" if f"\n### {number}. " in text] == ["1", "2", "3"] and text.count("```") == 6
    assert len(re.findall(r"^\|.*\|$", text, re.MULTILINE)) > 12


def test_what_users_wrote_is_text(stage):
    text = card_text(stage[1])
    assert "<script" not in text.partition(OURS)[2] and "<img" not in text.partition(OURS)[2]


def test_a_part_of_a_card_ends_between_sections(stage):
    made = card_of(stage[1])
    whole = text_of(made).partition(OURS)[2].strip()
    part = said_in(made, len(whole) - 1)
    assert (
        said_in(made, 10**6) == whole
        and whole.startswith(part)
        and "\n## Limits" not in part
        and "\n## Training" in part
    )


def test_a_store_has_the_card_beside_the_report_and_a_strangers_file_stays(stage):
    from curricle.errors import OutputError

    name, uri, run = stage
    write_reports(str(run.parent), RUN)
    card = run / "two" / layout.CARD
    assert card.read_text() == card_text(uri) and 'href="model_card.md"' in (run / "two/report.html").read_text()
    assert 'href="two/model_card.md"' in (run / "report.html").read_text()
    card.write_text("mine")
    with pytest.raises(OutputError, match=r"model_card\.md was not written by curricle"):
        write_reports(str(run.parent), RUN)
    assert card.read_text() == "mine"
    card.unlink()


def test_damaged_findings_cost_the_card_and_are_said(stage, caplog):
    _, uri, run = stage
    place = run / "two" / layout.FINDINGS
    before = place.read_bytes()
    damaged = json.loads(before)
    damaged["content"] |= {"domains": 3, "ways": 3}
    place.write_text(json.dumps(damaged))
    assert card_of(uri) is None and "what it is made of is damaged" in caplog.text
    place.write_bytes(before)
    assert card_of(uri) is not None


@pytest.mark.parametrize(("text", "said"), [("---\nlicense: mit\n---\n", "mit"), ("---\nlicense: [a]\n---\n", ""), ("", "")])  # fmt: skip
def test_a_licence_is_what_the_head_states(text, said):
    assert licence(text) == said
