"""A trained model for other programs: a folder that transformers loads, or an ONNX graph beside its tokenizer; checked against the model itself.

The ONNX folder holds one graph (``model.onnx``: input_ids and attention_mask, int64 [texts, tokens] → logits [texts, tokens, tags]), tokenizer,
config.json with the tags' names, windows.json and labels.json as the checkpoint has them, export.json with what was checked, and a card.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from curricle.cards.card import FILE, Way, gather, text_of
from curricle.errors import CheckpointError, DataError
from curricle.families.graph import best_times, quantise, require_onnx, size, write_graph
from curricle.families.ner.card import EXAMPLE, NOTES, WAYS, described
from curricle.families.ner.checkpoint import TOKENIZER_SETTINGS, TOKENIZERS, WHOLE, check_checkpoint
from curricle.families.ner.findings import by_domain
from curricle.families.ner.formats import left_out_of, load_records, require_folder, spans_of, split_file
from curricle.families.ner.metrics import SpanCounts
from curricle.families.ner.onnx_model import OUTPUT
from curricle.families.ner.predict import load_tagger
from curricle.families.ner.tagger import ScoredSet, Tagger, collate
from curricle.families.ner.tokens import Span
from curricle.store import layout
from curricle.store.ours import new_folder, require_free

LARGEST_DIFFERENCE = 1e-3
"""Of logits, between the model and its graph in float32: what rounding in another order leaves is a thousandth of that."""
SAMPLE = 300
"""Texts that model and graph are compared on, at most."""
SECONDS = 2.0
"""Each of both is timed for about so long."""
SENTENCES = (
    "Anna Miller lives in Berlin and works for the Red Cross.",
    "In March 2019 the European Space Agency sent a probe to Mercury.",
    "Experience with Python, SQL and Docker is required; French is a plus.",
    "Aspirin may cause bleeding in patients who also take warfarin.",
    "The Nile flows through Egypt into the Mediterranean Sea.",
    "nothing to see here",
    "Dr. José García-López (Madrid, 1962) won $1,000,000!",
    "We visited the Louvre, Notre-Dame and the Eiffel Tower in Paris last summer. " * 12,
)
"""Compared on where no data are given; the last one has several windows."""


@dataclass(frozen=True)
class Checked:
    """How a graph compares with the model that it was made from, on the same texts, batches and threads."""

    format: str
    """``onnx`` (float32) or ``onnx-int8``."""
    texts: int
    source: str
    """Where they come from."""
    equal_texts: int
    """Texts whose spans are all the same."""
    model_spans: int
    """Spans that the model finds in them."""
    equal_spans: int
    """Of those, the ones that the graph finds too."""
    graph_spans: int
    max_logit_difference: float
    """Over the scored words."""
    f1: tuple[float, float] | None
    """Micro F1 of model and graph, in [0, 1]; None where the texts are not annotated."""
    texts_per_second: tuple[float, float]
    """Of model and graph, on this machine."""
    threads: int
    bytes: tuple[int, int]
    """Size of the model's weights in float32, and of the graph."""

    def lines(self) -> list[str]:
        """For people."""
        share = self.equal_spans / self.model_spans if self.model_spans else 1.0
        model, graph = self.texts_per_second
        return [
            f"checked on {self.texts} texts ({self.source}): the same spans in {self.equal_texts}; {self.equal_spans} of {self.model_spans} spans "
            f"({share:.2%}) found again, {self.graph_spans - self.equal_spans} others",
            f"largest difference of logits: {self.max_logit_difference:.2g}",
            *([f"F1 on them: {self.f1[0]:.4f} → {self.f1[1]:.4f}"] if self.f1 else []),
            f"speed on {self.threads} thread{'s' if self.threads > 1 else ''} of this machine: torch {model:.1f} texts/s, ONNX Runtime {graph:.1f} texts/s ({graph / model:.2f} times)",
            f"size: {self.bytes[0] / 1e6:.1f} MB → {self.bytes[1] / 1e6:.1f} MB",
        ]


def export(model: Path, output: Path, kind: str, *, int8: bool = False, data_dir: Path | None = None) -> Checked | None:
    """Write a model's folder for other programs, whole or not at all.

    Args:
        model: a trained folder.
        output: a new folder.
        kind: ``huggingface`` or ``onnx``.
        int8: of onnx: weights in 8 bits, activations quantised as they come (dynamic quantisation).
        data_dir: what the card's scores are measured on and the graph is compared on; None for the card without scores and plain sentences.

    Returns:
        How the graph compares with the model; None for `huggingface`.

    Raises:
        OutputError: `output` is there already.
        CheckpointError: the model is none, or its graph cannot be made, or differs from it.
        DataError: `data_dir` holds nothing to measure on.
    """
    require_free(output)
    if kind == "onnx":
        require_onnx()
    inner = check_checkpoint(model).path
    model = inner.parent if inner.name == WHOLE else inner
    tagger = load_tagger(inner)
    texts, gold, source = _sample(data_dir)
    measured = _measure(tagger, data_dir)
    with new_folder(output) as fresh:
        _write_plain(inner, tagger, fresh)
        if kind == "huggingface":
            tagger.model.save_pretrained(fresh)
            (fresh / FILE).write_text(_card(model, data_dir, measured, WAYS, NOTES), encoding="utf-8")
            return None
        _write_graph(tagger, fresh / layout.GRAPH, model)
        exact = _compare(tagger, fresh, "onnx", texts, gold, source, timed=not int8)
        if exact.max_logit_difference > LARGEST_DIFFERENCE or exact.equal_texts < exact.texts:
            raise CheckpointError(
                f"the ONNX graph of {model} is not the same model: it differs by {exact.max_logit_difference:.2g} in its logits and in the spans of "
                f"{exact.texts - exact.equal_texts} of {exact.texts} texts; nothing was written"
            )
        checked = exact
        if int8:
            quantise(fresh / layout.GRAPH)
            checked = _compare(tagger, fresh, "onnx-int8", texts, gold, source, timed=True)
        (fresh / "export.json").write_text(json.dumps(asdict(checked), indent=1) + "\n", encoding="utf-8")
        (fresh / FILE).write_text(_card(model, data_dir, measured, *_use_of_graph(checked)), encoding="utf-8")
    return checked


def _write_plain(model: Path, tagger: Tagger, output: Path) -> None:
    """Everything but weights: tokenizer, configuration, and what else the checkpoint's folder says in JSON."""
    ours = {layout.MANIFEST, "config.json", *TOKENIZERS, *TOKENIZER_SETTINGS}
    for file in sorted(model.glob("*.json")):
        if file.name not in ours and not file.name.endswith(".index.json") and not file.name.startswith("adapter_"):
            shutil.copyfile(file, output / file.name)
    tagger.model.config.architectures = [type(tagger.model).__name__]
    tagger.model.config.save_pretrained(output)
    tagger.tokenizer.model_max_length = tagger.max_tokens
    tagger.tokenizer.save_pretrained(output)
    window = {"max_tokens": tagger.max_tokens, "stride": tagger.stride}
    (output / "windows.json").write_text(json.dumps(window) + "\n", encoding="utf-8")


def _card(
    model: Path, data_dir: Path | None, measured: Mapping[str, Any], ways: Sequence[Way], notes: Sequence[str]
) -> str:
    """The text of `README.md`, with what was measured now in the place of what a store may know."""
    prepared = data_dir if data_dir is not None and (data_dir / layout.MANIFEST).is_file() else None
    seen = gather(str(model), str(prepared or ""))
    other = {} if prepared or data_dir is None else {"of": data_dir.name}
    seen = replace(seen, findings={**measured, **other} if measured else seen.findings)
    return text_of(described(seen, change=_change_of(model), ways=ways, notes=notes))


def _change_of(model: Path) -> tuple[dict[str, float], dict[str, float]] | None:
    """F1 by domain before and after, as the run beside a final training's checkpoint says."""
    path = model.parent / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return None
    before, after = (run.get(name) if isinstance(run, dict) else None for name in ("before", "after"))
    return (before, after) if isinstance(before, dict) and isinstance(after, dict) and before else None


def _measure(tagger: Tagger, data_dir: Path | None) -> dict[str, Any]:
    """What the card's table by label is made of, as `findings` would keep it, on the test records, else those of validation; empty without data or records."""
    found = ((split, split_file(data_dir, split)) for split in ("test", "validation")) if data_dir is not None else ()
    split, path = next(((split, path) for split, path in found if path is not None), ("", None))
    if path is None:
        return {}
    records = ScoredSet(path, tagger)
    spans, _, _ = tagger.tag(records.data, range(len(records.origins)))
    return {"domains": by_domain(records, spans), "on": split, "records": len(records.origins)}


def _sample(data_dir: Path | None) -> tuple[list[str], list[list[Span]] | None, str]:
    """Texts to compare on, their gold spans where they have any, and where they come from.

    Raises:
        DataError: a folder is given that has no text.
    """
    if data_dir is None:
        return list(SENTENCES), None, "plain English sentences; --data names texts of yours"
    require_folder(data_dir)
    found = ((split, split_file(data_dir, split)) for split in ("test", "validation", "train"))
    split, path = next(((split, path) for split, path in found if path is not None), ("", None))
    records = [r for r in load_records(path) if r["text"].strip()] if path is not None else []
    if not records:
        raise DataError(
            f"{data_dir} holds no record with text (test, validation or train){left_out_of(path) if path else ''}: there is nothing to check on"
        )
    step = max(1, len(records) // SAMPLE)
    chosen = records[::step][:SAMPLE]
    return [r["text"] for r in chosen], [spans_of(r) for r in chosen], f"{split} records of {data_dir.name}"


class _Logits(torch.nn.Module):
    """A token classifier as a function of two tensors."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def _write_graph(tagger: Tagger, path: Path, model: Path) -> None:
    kind = type(tagger.model).__name__
    write_graph(_Logits(tagger.model), path, output=OUTPUT, pad=tagger.pad, source=model, kind=kind)


def _compare(
    tagger: Tagger, folder: Path, form: str, texts: list[str], gold: list[list[Span]] | None, source: str, timed: bool
) -> Checked:
    """The graph in a folder beside the model."""
    graph = load_tagger(folder)
    data = tagger.encode(texts)
    found = [each.tag(data, range(len(texts)))[0] for each in (tagger, graph)]
    pairs = [({*found[0][i]}, {*found[1][i]}) for i in range(len(texts))]
    difference = 0.0
    for begin in range(0, len(data.windows), 32):
        batch = data.windows[begin : begin + 32]
        tensors = collate(batch, tagger.pad, tagger.device)
        tensors.pop("labels")
        with torch.no_grad():
            apart = (tagger.model(**tensors).logits - graph.model(**tensors).logits).abs().amax(-1).numpy()
        difference = max(difference, *(float(apart[row, window.positions].max()) for row, window in enumerate(batch)))
    f1 = None
    if gold is not None and any(gold):
        counts = (SpanCounts(), SpanCounts())
        for true, pair in zip(gold, pairs, strict=True):
            for count, spans in zip(counts, pair, strict=True):
                count.add(true, spans)
        f1 = (counts[0].scores()["f1"], counts[1].scores()["f1"])
    return Checked(
        form,
        len(texts),
        source,
        sum(mine == theirs for mine, theirs in pairs),
        sum(len(mine) for mine, _ in pairs),
        sum(len(mine & theirs) for mine, theirs in pairs),
        sum(len(theirs) for _, theirs in pairs),
        difference,
        f1,
        _speed(tagger, graph, texts) if timed else (1.0, 1.0),
        torch.get_num_threads(),
        (sum(p.numel() for p in tagger.model.parameters()) * 4, size(folder)),
    )


def _speed(tagger: Tagger, graph: Tagger, texts: list[str]) -> tuple[float, float]:
    """Texts a second of both, taken in turns; the best turn of each counts, for other work on the machine only slows."""
    data = tagger.encode(texts)
    runs = [functools.partial(each.tag, data, range(len(texts))) for each in (tagger, graph)]
    mine, theirs = best_times(runs, SECONDS)
    return len(texts) / mine, len(texts) / theirs


def _use_of_graph(checked: Checked) -> tuple[list[Way], list[str]]:
    """The ways to load a graph, and what is to be said of it."""
    runtime = f"""import onnxruntime
from transformers import AutoConfig, AutoTokenizer

tokenizer, tags = AutoTokenizer.from_pretrained(FOLDER), AutoConfig.from_pretrained(FOLDER).id2label
session = onnxruntime.InferenceSession(FOLDER + "/model.onnx", providers=["CPUExecutionProvider"])
batch = tokenizer(["{EXAMPLE}"], truncation=True, return_tensors="np")
inputs = {{name: batch[name].astype("int64") for name in ("input_ids", "attention_mask")}}
(logits,) = session.run(["logits"], inputs)
for token, row in zip(batch.tokens(0), logits[0].argmax(-1)):
    print(token, tags[int(row)])"""
    ways = [Way(title="With onnxruntime, and transformers for the tokenizer", code=runtime), *WAYS[1:]]
    said = f"What was compared with the model in torch when this folder was written ({checked.format}): {'; '.join(checked.lines())}."
    return ways, [
        "FOLDER is this folder. A word has the tag of its first token; later tokens of it and special ones are never trained. curricle does that, gives spans with offsets, and reads "
        "texts longer than a window.",
        said,
    ]
