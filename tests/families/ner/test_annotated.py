"""Partial annotation: what a source does not annotate is unknown there, in losses, scores, prepared data and earlier combinations."""

import json
from dataclasses import replace

import pytest
import torch

from curricle.errors import ConfigError, DataError
from curricle.families.ner.annotated import FILE, cross_entropy, left_open, read_annotated, resolve
from curricle.families.ner.combine import combine_datasets
from curricle.families.ner.config import NerConfig, NerData, NerModel
from curricle.families.ner.evaluate import evaluate
from curricle.families.ner.prepare import fingerprint, prepare
from curricle.families.ner.task import build
from curricle.planning import stage_digest
from tests.families.ner.test_task import context, dataset, train

SMALL = NerModel(max_tokens=32, stride=8)


def folder(place, records, **splits):
    place.mkdir(parents=True)
    for split, found in {"train": records, **splits}.items():
        lines = [
            {"text": text, "annotations": [[text.index(w), text.index(w) + len(w), label] for w, label in marked]}
            for text, *marked in found
        ]
        (place / f"{split}.json").write_text(json.dumps(lines))
    return place


@pytest.fixture
def pair(tmp_path):
    old = folder(
        tmp_path / "old",
        [(f"Ann {i} is here", ("Ann", "NAME")) for i in range(20)] + [("Bonn is a town", ("Bonn", "TOWN"))],
        validation=[("Hue was there", ("Hue", "NAME"))],
        test=[("Kim knows Go", ("Kim", "NAME"))],
    )
    new = folder(
        tmp_path / "new",
        [(f"Bo {i} knows Rust", ("Rust", "SKILL")) for i in range(20)],
        validation=[("Cem knows SQL", ("SQL", "SKILL"))],
        test=[("Eva knows Lisp", ("Lisp", "SKILL"))],
    )
    return NerData(strategy="combined", old_dataset_path=str(old), new_dataset_path=str(new))


def prepared(data, place):
    facts = prepare(NerConfig(data=data), place)
    assert facts["labels_of_source"] == {s: sorted(own) for s, own in read_annotated(place).items()}
    return facts["labels_of_source"]


def test_an_o_costs_nothing_between_o_and_what_is_unknown_and_is_plain_cross_entropy_without():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    tags = torch.tensor([0, 0, 1, 3])
    plain = torch.nn.functional.cross_entropy(logits, tags, reduction="sum")
    none = torch.zeros(4, 5, dtype=torch.bool)
    assert torch.allclose(cross_entropy(logits, tags, 0), plain) and torch.allclose(
        cross_entropy(logits, tags, 0, none), plain
    )
    unknown = none.clone()
    unknown[:, 3:] = True
    p = logits.softmax(-1)
    wanted = -(p[0, [0, 3, 4]].sum().log() + p[1, [0, 3, 4]].sum().log() + p[2, 1].log() + p[3, 3].log())
    loss = cross_entropy(logits, tags, 0, unknown)
    assert torch.allclose(loss, wanted)
    loss.backward()
    assert (logits.grad[:2, [0, 3, 4]] < 0).all() and (logits.grad[:2, [1, 2]] > 0).all()


def test_an_o_is_open_to_what_its_source_does_not_annotate_where_the_model_is_sure_of_it():
    logits = torch.tensor([[0.0, 0, 0, 3.0], [0, 0, 0, 0.5], [0, 3.0, 0, 0], [3.0, 0, 0, 0]])
    unknown = torch.tensor([False, False, True, True]).expand(4, 4)
    assert left_open(logits, unknown).tolist() == [[False, False, True, True]] + [[False] * 4] * 3
    before = torch.tensor([False, True, False, False])
    assert left_open(logits, unknown, before).tolist() == [[False, False, True, True]] * 2 + [[False] * 4] * 2


@pytest.mark.parametrize(("strategy", "replay"), [("combined", None), ("append", 0.05), ("new_only", None)])
def test_a_source_annotates_what_occurs_in_all_of_its_records_whichever_are_read(pair, tmp_path, strategy, replay):
    found = prepared(replace(pair, strategy=strategy, replay=replay), tmp_path / "data")
    assert found == {"new": ["SKILL"], "old": ["NAME", "TOWN"]}


@pytest.mark.parametrize(
    ("setting", "new"),
    [
        ({"new": ("NAME",)}, ["NAME", "SKILL"]),
        ({"new": "all"}, ["NAME", "SKILL", "TOWN"]),
        ("all", ["NAME", "SKILL", "TOWN"]),
    ],
)
def test_the_setting_adds_labels_that_were_looked_for_and_not_found(pair, tmp_path, setting, new):
    found = prepared(replace(pair, labels_of_source=setting), tmp_path / "data")
    assert found["new"] == new and found["old"] == (["NAME", "SKILL", "TOWN"] if setting == "all" else ["NAME", "TOWN"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"odl": "all"}, "source 'odl', which is not in the data; its sources are new, old"),
        ({"old": ("TWON",)}, "old annotates TWON, which is no label of the head"),
    ],
)
def test_a_source_or_label_that_is_not_there_is_an_error_before_anything_is_written(pair, tmp_path, setting, said):
    with pytest.raises(ConfigError, match=said):
        prepared(replace(pair, labels_of_source=setting), tmp_path / "data")
    with pytest.raises(ConfigError, match=said):  # as `curricle plan` asks
        fingerprint(NerConfig(data=replace(pair, labels_of_source=setting)))
    assert not list(tmp_path.glob("data/labels*"))


def test_records_of_an_earlier_combination_keep_their_sources_and_are_all_of_the_old_domain(pair, tmp_path):
    combine_datasets(pair.old_dataset_path, pair.new_dataset_path, output_dir=tmp_path / "both")
    third = folder(
        tmp_path / "third",
        [(f"Oslo {i} has snow", ("Oslo", "CITY")) for i in range(9)],
        validation=[("Rome has sun", ("Rome", "CITY"))],
    )
    data = replace(pair, old_dataset_path=str(tmp_path / "both"), new_dataset_path=str(third))
    for strategy in ("combined", "new_only"):
        place = tmp_path / strategy
        facts = prepare(NerConfig(data=replace(data, strategy=strategy)), place)
        assert facts["labels_of_source"] == {"new": ["CITY"], "old/new": ["SKILL"], "old/old": ["NAME", "TOWN"]}
        lines = [json.loads(line) for path in place.glob("*.jsonl") for line in path.read_text().splitlines()]
        assert {line["origin"] for line in lines} == {"new", "old/new", "old/old"} and facts["scored"] == {
            "val": ["new", "old"] if strategy == "combined" else ["new"]
        }
    assert resolve({"old/old": [], "old/new": [], "new": []}, {"old": ("A",)}, ["A"]) == {
        "new": [], "old/new": ["A"], "old/old": ["A"],
    }  # fmt: skip
    whole = prepared(
        replace(data, strategy="new_only", old_dataset_path="", new_dataset_path=str(tmp_path / "both")),
        tmp_path / "again",
    )
    assert whole == {"new": ["SKILL"], "old": ["NAME", "TOWN"]}


def test_what_was_trained_before_there_was_the_setting_is_found(pair, tmp_path):
    place = folder(tmp_path / "fixed", [("Ann x Go", ("Ann", "NAME"))])
    config = NerConfig(data=NerData(new_dataset_path=str(place)))
    assert fingerprint(config) == "28bb1a68eb10cd1eb86595a320b476c2173503d0db8be997a120c42c3a1b110c"
    assert stage_digest(config, "d", "p") == "1b4d568b0942de20dbb2d38d96f5d613aead7521d3e99c3fdd6d4f028d834543"
    changed = replace(config, data=replace(config.data, labels_of_source="all"))
    assert fingerprint(changed) != fingerprint(config)
    assert stage_digest(replace(config, model=NerModel(frozen_layers=1)), "d", "p") != stage_digest(config, "d", "p")


def test_prepared_data_of_earlier_versions_tell_it_by_their_records(pair, tmp_path):
    found = prepared(pair, tmp_path / "data")
    (tmp_path / "data" / FILE).unlink()
    assert {s: sorted(own) for s, own in read_annotated(tmp_path / "data").items()} == found
    (tmp_path / "data" / FILE).write_text('{"old": "NAME"}')
    with pytest.raises(DataError, match="labels_of_source.json is damaged: it must hold a list"):
        read_annotated(tmp_path / "data")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of NAME and SKILL."""
    tmp = tmp_path_factory.mktemp("model")
    data = NerData(new_dataset_path=str(dataset(tmp / "first", "knows")))
    return train(build(context(tmp, NerConfig(data=data, model=SMALL))), tmp / "model")


def test_a_label_that_nobody_annotates_is_open_where_the_checkpoint_knows_it_and_o_elsewhere(model, tmp_path):
    names = folder(tmp_path / "names", [("Ann is", ("Ann", "NAME"))] * 3, validation=[("Bo is", ("Bo", "NAME"))])
    data = NerData(new_dataset_path=str(names), labels=("NAME", "SKILL", "TOWN"))
    config = NerConfig(data=data, model=SMALL)
    first, continued = build(context(tmp_path, config)), build(context(tmp_path, config, model))
    assert first.unknown is None
    tags = {tag for tag, unknown in zip(continued.tags, continued.unknown[0].tolist(), strict=True) if unknown}
    assert tags == {"B-SKILL", "I-SKILL"}


def test_scores_and_losses_are_of_the_labels_of_the_source_with_the_full_count_beside(model, tmp_path):
    skills = dataset(tmp_path / "skills", "knows")
    for path in skills.iterdir():
        records = json.loads(path.read_text())
        path.write_text(json.dumps([r | {"annotations": r["annotations"][1:]} for r in records]))
    data = NerData(new_dataset_path=str(skills), labels=("NAME", "SKILL"))
    own = evaluate(model, context(tmp_path, NerConfig(data=data)).data_dir)
    assert own["test/f1"] == own["test/precision"] == 1.0 and own["test/f1_full"] == pytest.approx(2 / 3)
    assert "test/f1/NAME" not in own
    assert evaluate(model, skills) == own
    data = replace(data, labels_of_source="all")
    counted = evaluate(model, context(tmp_path, NerConfig(data=data), name="all").data_dir)
    assert counted["test/f1"] == counted["test/f1_full"] == own["test/f1_full"]
    assert counted["test/loss"] > own["test/loss"] + 0.5
