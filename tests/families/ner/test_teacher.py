"""Distillation from a teacher of another architecture, tokenizer and label scheme."""

import json
from dataclasses import replace

import pytest
import torch

from curricle.config.load import from_tree, to_tree
from curricle.errors import CheckpointError, ConfigError
from curricle.families.ner.config import NerConfig, NerData, NerForgetting, NerModel
from curricle.families.ner.labels import Scheme, tags_of
from curricle.families.ner.task import build
from curricle.families.ner.teacher import groups_of
from curricle.planning import stage_digest
from tests.families.ner.test_export import tiny
from tests.families.ner.test_task import context

OURS = Scheme(tags_of(["CITY", "NAME"]))
PLAIN = ("CITY", "O", "NAME")
TEXTS = [
    "anna knows berlin",
    "Dr. José García-López (Madrid, 1962)",
    "berlin and the Nile",
    "the European Space Agency",
]


@pytest.mark.parametrize(
    ("tags", "groups"),
    [
        (OURS.tags, [([0], [0]), ([1], [1]), ([2], [2]), ([3], [3]), ([4], [4])]),
        (PLAIN, [([1], [0]), ([0], [1, 2]), ([2], [3, 4])]),
        (("O", "I-NAME", "I-CITY"), [([0], [0]), ([2], [1, 2]), ([1], [3, 4])]),
        (("O", "B-NAME", "I-NAME", "E-NAME", "S-NAME"), [([0], [0, 1, 2]), ([1, 4], [3]), ([2, 3], [4])]),
        (("O", "B-AGE", "I-AGE", "B-NAME", "I-NAME"), [([0, 1, 2], [0, 1, 2]), ([3], [3]), ([4], [4])]),
    ],
    ids=["same", "plain", "iob1", "iobes", "unknown on both sides"],
)
def test_tags_are_matched_by_meaning_in_groups_that_both_tell_apart(tags, groups):
    assert groups_of(Scheme(tags), OURS) == groups
    for side in (0, 1):
        assert sorted(row for group in groups for row in group[side]) == list(range(len((tags, OURS.tags)[side])))


def test_a_teacher_that_shares_no_label_is_refused():
    with pytest.raises(ConfigError, match="teacher knows AGE, and the head is for CITY, NAME: no label is the same"):
        groups_of(Scheme(("O", "AGE")), OURS)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A configuration of a tiny student without an old model, and its data's folder."""
    folder = tmp_path_factory.mktemp("student")
    (folder / "data").mkdir()
    for split in ("train", "validation"):
        rows = [{"text": text, "annotations": [[0, len(text.split()[0].strip(".")), "NAME"]]} for text in TEXTS]
        (folder / "data" / f"{split}.json").write_text(json.dumps([r | {"text": f"{r['text']} {split}"} for r in rows]))
    data = NerData(new_dataset_path=str(folder / "data"), labels=("NAME", "CITY"))
    return NerConfig(data=data, model=NerModel(encoder=str(tiny(folder / "encoder", "bert")), max_tokens=24, stride=4))


def teacher_of(kind, folder, tags):
    """A random teacher whose head has these names."""
    tiny(folder, kind)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {str(i): tag for i, tag in enumerate(tags)}}))
    return folder


def with_teacher(config, folder, weight=1.0):
    return replace(config, forgetting=NerForgetting(distill=weight, teacher=str(folder)))


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        ("modernbert", ("O", "B-NAME", "I-NAME", "B-AGE", "I-AGE")),
        ("distilbert", ("S-NAME", "O", "B-NAME", "I-NAME", "E-NAME")),
    ],
)
def test_a_student_from_scratch_learns_what_a_teacher_of_another_kind_says(kind, tags, student, tmp_path):
    config = with_teacher(
        student, teacher_of(kind, tmp_path / "teacher", tags), weight=100.0
    )  # the tags say something else
    task = build(context(tmp_path, config))
    batch = next(iter(task.batches(0)))
    optimiser = torch.optim.AdamW(task.model.parameters(), lr=1e-2)
    task.model.eval()
    said = []
    for _ in range(25):
        losses = task.losses(batch)
        said.append(float(losses["distill"]))
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert said[0] > 0.05 and min(said[-5:]) < said[0] * 0.7, said
    assert all(bool((~logs.isnan()).all()) for logs in task.soft._logs)


def test_a_teacher_that_says_what_the_model_says_pulls_it_nowhere(student, tmp_path):
    """The teacher is the student itself, with its tags in another order."""
    first = build(context(tmp_path, student, name="a"))
    first.save_extras(tmp_path / "self")
    first.model.save_pretrained(tmp_path / "self")
    task = build(context(tmp_path, with_teacher(student, tmp_path / "self"), name="b"))
    task.load_weights(first.weights())
    task.model.eval()
    assert abs(float(task.losses(next(iter(task.batches(0))))["distill"])) < 1e-3


def test_a_teacher_that_is_none_is_refused_before_training(student, tmp_path):
    with pytest.raises(CheckpointError, match="is a plain encoder|does not exist"):
        build(context(tmp_path, with_teacher(student, tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="teacher needs distill above 0"):
        from_tree(NerConfig, to_tree(student) | {"forgetting": {"teacher": "x"}})


def test_a_stage_without_a_teacher_has_the_digest_that_it_had(student):
    with_one = stage_digest(with_teacher(student, "x"), "d", "")
    plain = replace(student, forgetting=NerForgetting(distill=1.0))
    assert stage_digest(plain, "d", "") != with_one
    assert NerConfig.ADDED == {"forgetting.teacher": ""} or "forgetting.teacher" in NerConfig.ADDED
