"""Where words end, whatever the tokenizer: at white space, around every punctuation mark and around every CJK character, as in BERT.

A tokenizer that joins such characters with their neighbours (byte-level BPE, SentencePiece) is given one more step of pre-tokenisation, which
keeps the mark of the space before (``▁``, ``Ġ``) where the pre-trained vocabulary has it. It is part of the tokenizer and saved with it.
Such a tokenizer is of the general class of transformers, for its classes of one architecture build their own steps again when they are loaded.
"""

from __future__ import annotations

import copy
import functools
import json
import unicodedata
from typing import Any

_SYMBOLS = "$+<=>^`|~"
"""The ASCII symbols that BERT takes for punctuation beside Unicode's."""
_CJK = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""BERT's ranges."""
_ALONE = rf"\p{{P}}{_SYMBOLS}" + "".join(rf"\x{{{low:X}}}-\x{{{high:X}}}" for low, high in _CJK)
ALONE = rf"[ \x{{2581}}]?[{_ALONE}]"
"""One such character, with the space before it or the mark for one."""
SPACED = rf"{ALONE}|[ \x{{2581}}]?[^\s\x{{2581}}{_ALONE}]+"
"""The same, and the runs between them: for a tokenizer that does not end its pieces at white space."""


@functools.lru_cache(4096)
def is_alone(char: str) -> bool:
    """Whether a character is a word of its own."""
    return (
        unicodedata.category(char)[0] == "P" or char in _SYMBOLS or any(low <= ord(char) <= high for low, high in _CJK)
    )


def with_words(tokenizer: Any) -> Any:
    """A fast tokenizer whose words end by the rule above: the same one where it does that already, else a copy.

    BERT's own pre-tokenisation is this rule, so such tokenizers stay as they are.
    """
    backend = tokenizer.backend_tokenizer
    parts = _parts(backend.pre_tokenizer)
    kinds = [part["type"] for part in parts]
    if "BertPreTokenizer" in kinds or any(_pattern(part) in (ALONE, SPACED) for part in parts):
        return tokenizer
    from tokenizers import Regex, normalizers, pre_tokenizers

    backend, before = copy.deepcopy(backend), backend.pre_tokenizer
    split = pre_tokenizers.Split(Regex(ALONE if any(map(_ends_at_space, parts)) else SPACED), "isolated")
    if "ByteLevel" in kinds:
        if any(part.get("add_prefix_space") for part in parts):  # else every piece of the split would get that space
            own = [] if backend.normalizer is None else [backend.normalizer]
            backend.normalizer = normalizers.Sequence([*own, normalizers.Strip(right=False), normalizers.Prepend(" ")])
            before = _rebuilt(
                [part | {"add_prefix_space": False} if part["type"] == "ByteLevel" else part for part in parts]
            )
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, before])
    else:
        backend.pre_tokenizer = pre_tokenizers.Sequence([split] if before is None else [before, split])
    return _general(tokenizer, backend)


def _general(tokenizer: Any, backend: Any) -> Any:
    """`tokenizer` with another backend, of the class that loads what is written and builds nothing anew."""
    from transformers import PreTrainedTokenizerFast

    kept = ("model_max_length", "padding_side", "truncation_side", "model_input_names", "clean_up_tokenization_spaces")
    settings = {name: getattr(tokenizer, name) for name in (*kept, "extra_special_tokens")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **tokenizer.special_tokens_map)


def _parts(pre_tokenizer: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, flat, as its file says them."""
    if pre_tokenizer is None:
        return []
    found: list[dict[str, Any]] = []
    waiting = [json.loads(pre_tokenizer.__getstate__())]
    while waiting:
        part = waiting.pop(0)
        waiting[:0] = part.get("pretokenizers", [])
        if part["type"] != "Sequence":
            found.append(part)
    return found


def _pattern(part: dict[str, Any]) -> str:
    return part["pattern"].get("Regex", "") if part["type"] == "Split" else ""


def _ends_at_space(part: dict[str, Any]) -> bool:
    """Whether a step ends pieces at all white space: Metaspace does so at blanks alone; of a pattern it is taken for granted."""
    return part["type"] in ("Whitespace", "WhitespaceSplit", "Split") or bool(part.get("use_regex"))


def _rebuilt(parts: list[dict[str, Any]]) -> Any:
    """A pre-tokenizer of such steps."""
    from tokenizers import pre_tokenizers

    made = pre_tokenizers.Sequence([])
    made.__setstate__(json.dumps({"type": "Sequence", "pretokenizers": parts}).encode())
    return made
