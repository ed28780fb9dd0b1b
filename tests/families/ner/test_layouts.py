"""Datasets in each accepted layout are combined, prepared and trained on; what the tags of CoNLL mean."""

import json
from itertools import product

import pytest
import torch

from curricle.config.schema import DataLoaderConfig
from curricle.errors import DataError
from curricle.families.ner.combine import combine_datasets
from curricle.families.ner.config import NerConfig, NerData, NerModel
from curricle.families.ner.formats import iter_pieces, load_records, read_piece
from curricle.families.ner.prepare import prepare
from curricle.families.ner.task import build
from curricle.training.distributed import Ranks
from curricle.training.task import StageContext

SENTENCES = {
    "old": [f"{name} knows {skill}" for name in ("Ann", "Bo", "Cem", "Zoë") for skill in ("Go", "Rust")],
    "new": [f"{name} speaks {skill}" for name in ("Dana", "Eva", "#1") for skill in ("Perl", "SQL")],
}


def record(sentence):
    name, _, skill = sentence.split()
    return {
        "text": sentence,
        "annotations": [[0, len(name), "NAME"], [len(sentence) - len(skill), len(sentence), "SKILL"]],
    }


def conll(sentence):
    name, verb, skill = sentence.split()
    return f"{name} B-NAME\n{verb} O\n{skill} B-SKILL\n"


LAYOUTS = {
    "json": lambda sentences: json.dumps([record(s) for s in sentences], indent=1),
    "jsonl": lambda sentences: "\n".join(json.dumps(record(s)) for s in sentences),
    "conll": lambda sentences: "-DOCSTART- O\n" + "\n".join(map(conll, sentences)),
}
PAIRS = list(product(LAYOUTS, LAYOUTS))


def dataset(place, source, layout):
    folder = place / f"{source}-{layout}"
    folder.mkdir(exist_ok=True)
    (folder / f"train.{layout}").write_text(LAYOUTS[layout](SENTENCES[source]), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_datasets_of_any_layouts_are_combined(tmp_path, old, new):
    folders = dataset(tmp_path, "old", old), dataset(tmp_path, "new", new)
    made = combine_datasets(*folders, "combined", 0.2, 42, output_dir=tmp_path / "out")
    written = load_records(tmp_path / "out/train.jsonl") + load_records(tmp_path / "out/validation.jsonl")
    by_text = {row["text"]: row for row in written}
    assert len(written) == len(by_text) == 14 and len(made.validation) == 2
    for source, sentences in SENTENCES.items():
        assert [by_text[s] for s in sentences] == [{"origin": source} | record(s) for s in sentences]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_encoder):
    """The weights after one epoch, by the layouts of the old and the new dataset."""
    place, weights = tmp_path_factory.mktemp("layouts"), {}
    for old, new in PAIRS:
        config = NerConfig(
            data=NerData(
                strategy="append",
                old_dataset_path=str(dataset(place, "old", old)),
                new_dataset_path=str(dataset(place, "new", new)),
            ),
            model=NerModel(encoder=str(tiny_encoder), max_tokens=16, stride=4, dropout=0.0),
            data_loader=DataLoaderConfig(batch_size=4),
        )
        data = place / f"data-{old}-{new}"
        assert prepare(config, data)["labels"] == ["NAME", "SKILL"]
        task = build(StageContext(config, data, None, place, torch.device("cpu"), Ranks()))
        optimiser = torch.optim.SGD(task.model.parameters(), lr=0.1)
        for batch in task.batches(0):
            optimiser.zero_grad()
            task.losses(batch)["loss"].backward()
            optimiser.step()
        assert 0 < task.validate()["val_loss"] < 10
        weights[old, new] = {name: tensor.clone() for name, tensor in task.weights().items()}
    return weights


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_the_layout_of_a_dataset_changes_nothing_in_what_is_trained(trained, old, new):
    wanted = trained["json", "json"]
    assert all(torch.equal(trained[old, new][name], tensor) for name, tensor in wanted.items())


def sentences(tmp_path, content):
    (tmp_path / "train.conll").write_text(content, encoding="utf-8", newline="")
    return [
        (row["text"], [tuple(span) for span in row["annotations"]]) for row in load_records(tmp_path / "train.conll")
    ]


ANNA = ("Anna lives", [(0, 4, "PER")])
CEM = ("Cem sings", [(0, 3, "PER")])


@pytest.mark.parametrize(
    "content",
    [
        "-DOCSTART- -X- O\nAnna N B-PER\nlives V O\n-DOCSTART- -X- O\nCem N B-PER\nsings V O\n",
        "-DOCSTART- (one two)\n\nAnna N B-PER\nlives V O\n\n\n-DOCSTART- -X- O\n\nCem N B-PER\nsings V O",
        "\ufeff-DOCSTART-\tO\r\nAnna\tB-PER\r\nlives\tO\r\n \t\r\nCem\tB-PER\r\nsings\tO\r\n-DOCSTART-\tO\r\n",
    ],
)
def test_a_document_line_ends_a_sentence_and_loses_none(tmp_path, content):
    assert sentences(tmp_path, content) == [ANNA, CEM]


def test_a_token_may_hold_any_white_space_but_blanks_and_tabs(tmp_path):
    odd = ["\u00a0", "a\u00a0b", "\u2028", "x\x0cy", "\u3000"]
    for separator in (" ", "\t"):
        content = "".join(f"{token}{separator}O\n" for token in odd) + f"Anna{separator}B-PER\n"
        text = " ".join([*odd, "Anna"])
        assert sentences(tmp_path, content) == [(text, [(len(text) - 4, len(text), "PER")])]


def test_comments_are_left_out_and_tokens_that_begin_alike_are_kept(tmp_path):
    content = "# newdoc\n\n# sent_id = 1\n#\n#text = Anna lives\nAnna\tB-PER\nlives\tO\n# end\n\n# O\n#golang B-TAG\n"
    assert sentences(tmp_path, content) == [ANNA, ("# #golang", [(2, 9, "TAG")])]
    for damaged in ("#golang\n", "#golang\tNN\n"):
        with pytest.raises(DataError, match=r"record 2 \(byte 14\): line '#golang.*a token and a tag were expected"):
            sentences(tmp_path, "# one\nAnna O\n\n# two\n" + damaged)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("S-A O B-B E-B", ["A 0 1", "B 2 4"]),
        ("U-A U-A B-B I-B L-B", ["A 0 1", "A 1 2", "B 2 5"]),
        ("B-A E-A I-A E-A", ["A 0 2", "A 2 4"]),
        ("I-A I-A E-B", ["A 0 2", "B 2 3"]),
        ("S-A E-A", ["A 0 1", "A 1 2"]),
        ("B-A I-A B-A O I-A", ["A 0 2", "A 2 3", "A 4 5"]),
    ],
)
def test_the_tags_of_iob_iobes_and_bilou_give_spans(tmp_path, tags, spans):
    ((_, found),) = sentences(tmp_path, "".join(f"w {tag}\n" for tag in tags.split()))
    assert [f"{label} {start // 2} {(end + 1) // 2}" for start, end, label in found] == spans


def test_a_carriage_return_within_a_line_is_refused(tmp_path):
    with pytest.raises(DataError, match="a carriage return alone ends no line"):
        sentences(tmp_path, "Anna B-PER\rlives O\n")


@pytest.mark.parametrize(
    ("layout", "damage"), [("conll", b"Bo"), ("conll", b"\xff"), ("json", b"{"), ("jsonl", b"{\xff")]
)
def test_a_record_that_changed_since_it_was_read_is_named_with_file_number_and_byte(tmp_path, layout, damage):
    path = dataset(tmp_path, "old", layout) / f"train.{layout}"
    pieces = list(iter_pieces(path))
    raw = path.read_bytes()
    for piece in pieces:
        assert read_piece(path, piece.number, piece.start, raw[piece.start : piece.end]) == piece.record
    third = pieces[2]
    with pytest.raises(DataError, match=rf"train\.{layout}, record 3 \(byte {third.start}\)"):
        read_piece(path, third.number, third.start, damage)
