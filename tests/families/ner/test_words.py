"""Words end at white space, punctuation and CJK characters under tokenizers of every kind, trained on the spot."""

import json
import logging
import re

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from curricle.families.ner.formats import load_records, spans_of
from curricle.families.ner.labels import Scheme, Tag, tags_of
from curricle.families.ner.splitting import with_words
from curricle.families.ner.windows import decode, encode

KINDS = (
    "bert",
    "roberta",
    "roberta_space",
    "xlmr",
    "deberta",
    "camembert",
    "albert",
    "xlnet",
    "modernbert",
    "no_steps",
)
TEXTS = [
    ('"Anna" works in Berlin, Paris (Texas) and Köln.', ["Anna", "Berlin", "Paris", "Texas", "Köln"]),
    ("He's in the U.S., isn't he? E-mail a.b@c.org…", ["U.S.", "isn", "a.b@c.org"]),
    ("北京大学在北京。东京都に住む。", ["北京大学", "东京都"]),
    ("\tZoë—Go™ [C++] costs 5€/h\u00a0here!", ["Zoë", "C++", "h", "here"]),
]


def punctuated(record):
    """A tokenised text as a person writes it: no space before . , ; : ) ] ! ? % and none behind ( and [."""
    text = record["text"]
    gone = {m.start() for m in re.finditer(r" (?=[.,;:)\]!?%])", text)} | {
        m.end() - 1 for m in re.finditer(r"[(\[] ", text)
    }
    place, kept = [], 0
    for i in range(len(text) + 1):
        place.append(kept)
        kept += i not in gone
    return "".join(c for i, c in enumerate(text) if i not in gone), [
        (place[s], place[e], label) for s, e, label in spans_of(record)
    ]


def unigram(texts, special, unknown):
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=1500, special_tokens=special, unk_token=unknown, show_progress=False)
    )
    return [tuple(piece) for piece in json.loads(made.to_str())["model"]["vocab"]]


def trained(texts):
    """One tokenizer of each kind, as transformers builds it, with a small vocabulary of these texts."""
    import transformers as t

    plain, five = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    pieces.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=five, show_progress=False)
    )
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=1500, special_tokens=plain, initial_alphabet=alphabet, show_progress=False),
    )
    learnt = json.loads(pairs.to_str())["model"]
    bpe = {"vocab": learnt["vocab"], "merges": [tuple(pair) for pair in learnt["merges"]]}
    common = unigram(texts, plain, "<unk>")
    pairs.normalizer = normalizers.NFC()
    pairs.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    none = Tokenizer(models.Unigram(common, unk_id=3, byte_fallback=False))
    none.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    names = {
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
    return {
        "bert": t.BertTokenizer(vocab=pieces.get_vocab()),
        "roberta": t.RobertaTokenizer(**bpe),
        "roberta_space": t.RobertaTokenizer(**bpe, add_prefix_space=True),
        "xlmr": t.XLMRobertaTokenizer(vocab=common),
        "deberta": t.DebertaV2Tokenizer(vocab=unigram(texts, five, "[UNK]"), unk_id=1),
        "camembert": t.CamembertTokenizer(vocab=common),
        "albert": t.AlbertTokenizer(vocab=unigram(texts, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], "<unk>")),
        "xlnet": t.XLNetTokenizer(vocab=unigram(texts, ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>"], "<unk>")),
        "modernbert": t.PreTrainedTokenizerFast(tokenizer_object=pairs, **names),
        "no_steps": t.PreTrainedTokenizerFast(tokenizer_object=none, **names),
    }


def reached(tokenizer, texts, spans):
    """The share of the gold spans that come back from their own tags, and what the encoder counted."""
    tags = tags_of({label for row in spans for *_, label in row})
    made = encode(texts, spans, tokenizer, Scheme(tags), max_tokens=256, stride=16)
    found = [[Tag("O", "")] * len(bounds) for bounds in made.bounds]
    for window in made.windows:
        for word, tag in zip(window.words.tolist(), window.tags.tolist(), strict=True):
            found[window.record][word] = Scheme(tags).means[tag]
    right = gold = 0
    for i, bounds in enumerate(made.bounds):
        right += len(set(made.gold[i]) & set(decode(found[i], bounds)))
        gold += len(set(made.gold[i]))
    assert sum(made.unreachable) == gold - right
    return right / gold, made


@pytest.fixture(scope="module")
def tokenizers():
    return trained([text for text, _ in TEXTS] * 30)


@pytest.mark.parametrize("kind", KINDS)
def test_spans_beside_punctuation_and_between_cjk_characters_come_back(tokenizers, kind):
    spans = [[(text.index(part), text.index(part) + len(part), "X") for part in parts] for text, parts in TEXTS]
    share, made = reached(tokenizers[kind], [text for text, _ in TEXTS], spans)
    assert share == 1 and not made.counts["cut a word"] + made.counts["edge in no word"] + made.counts["lost"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_is_the_same_one_whatever_the_tokenizer(tokenizers, kind):
    """Byte-level ones end words sooner too, between letters, digits and symbols."""
    texts = ["Anna's dog (in Berlin), 北京大 is-not a mark... yes"]
    words = [
        [texts[0][s:e] for s, e in reached(tokenizers[k], texts, [[(0, 4, "X")]])[1].bounds[0]] for k in ("bert", kind)
    ]
    assert words[0] == words[1]


@pytest.fixture(scope="module")
def real(shared):
    """Per dataset texts with normal punctuation, their spans, and tokenizers trained on them."""
    made = {}
    for name in ("crossner/science", "wnut17"):
        rows = [punctuated(r) for r in load_records(shared / "data/ner" / name / "train.json")[:1200]]
        texts = [text for text, _ in rows]
        made[name] = texts, [spans for _, spans in rows], trained(texts)
    return made


@pytest.mark.parametrize("name", ["crossner/science", "wnut17"])
@pytest.mark.parametrize("kind", KINDS)
def test_99_of_100_real_spans_can_be_predicted_exactly(real, kind, name):
    texts, spans, tokenizers = real[name]
    assert reached(tokenizers[kind], texts, spans)[0] >= 0.99


def test_the_tokenizers_of_bert_stay_as_they_are(tokenizers):
    from curricle.families.encoders import EMBEDDED, encoder_folder, load_tokenizer

    for tokenizer in (tokenizers["bert"], load_tokenizer(encoder_folder(EMBEDDED))):
        assert with_words(tokenizer) is tokenizer


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_rule_is_saved_with_the_tokenizer_and_given_once(tokenizers, kind, tmp_path):
    from transformers import AutoTokenizer

    before = tokenizers[kind].tokenize(TEXTS[0][0])
    ours = with_words(tokenizers[kind])
    ours.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text, _ in TEXTS:
        assert again(text)["input_ids"] == ours(text)["input_ids"]
    assert with_words(again) is again and with_words(ours) is ours
    assert tokenizers[kind].tokenize(TEXTS[0][0]) == before
    assert set(ours.all_special_ids) == set(tokenizers[kind].all_special_ids) and len(ours) == len(tokenizers[kind])
    assert (ours.model_max_length, ours.padding_side) == (
        tokenizers[kind].model_max_length,
        tokenizers[kind].padding_side,
    )


def test_a_single_space_goes_before_a_text_where_the_tokenizer_wants_one(tokenizers):
    for text in ("Anna", " Anna", "\nAnna, Berlin", "Köln—x", "北京"):
        tokens = with_words(tokenizers["roberta_space"]).tokenize(text)
        assert tokens[0][0] == "Ġ" and "".join(tokens).count("Ġ") == 1 + text.strip().count(" ")


def test_spans_within_words_are_counted_where_the_stage_trains_and_where_it_is_measured(tmp_path, tiny_encoder, caplog):
    from curricle.families.ner.config import NerConfig, NerData, NerModel
    from curricle.families.ner.evaluate import evaluate
    from curricle.families.ner.prepare import prepare
    from curricle.families.ner.task import build
    from curricle.training.distributed import Ranks
    from curricle.training.task import StageContext

    for split, texts in {"train": "ab", "validation": "c", "test": "d"}.items():
        rows = [{"text": f"{t} Berliner lives", "annotations": [[2, 8, "LOC"], [11, 16, "X"]]} for t in texts]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
    config = NerConfig(
        data=NerData(new_dataset_path=str(tmp_path)), model=NerModel(encoder=str(tiny_encoder), max_tokens=16, stride=4)
    )
    prepare(config, tmp_path / "data")
    with caplog.at_level(logging.WARNING):
        task = build(StageContext(config, tmp_path / "data", None, tmp_path, torch.device("cpu"), Ranks()))
    assert (
        "2 of 4 training annotations do not begin and end with words" in caplog.text and "2 cut a word" in caplog.text
    )
    task.save_extras(tmp_path / "model")
    task.model.save_pretrained(tmp_path / "model")
    measured = evaluate(tmp_path / "model", tmp_path / "data")
    assert measured["test/unreachable"] == measured["test/new/unreachable"] == 1.0
