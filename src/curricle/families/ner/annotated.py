"""Which labels the annotators of each source looked for: what an O of its texts says, and which predictions count there.

A source is one dataset of a training: ``old``, ``new``, or, of records that an earlier combination wrote, the origin that stands in them
(``old/new``: the new dataset of the combination that is the old dataset now). It annotates the labels that occur in its own training and
validation records, and what `data.labels_of_source` adds. Any other label is unknown there, not absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from curricle.errors import ConfigError, DataError
from curricle.families.ner.formats import iter_pieces, split_file
from curricle.families.ner.labels import Scheme
from curricle.store.strict import read_json

if TYPE_CHECKING:  # planning reads this module too
    import torch

FILE = "labels_of_source.json"
"""In prepared data: source → its labels."""
ROLES = ("old", "new")


def origin_of(record: Mapping[str, Any], role: str) -> str:
    """The origin of a record of the `old` or `new` dataset: the role, or what an earlier combination wrote into it.

    In the old dataset that goes below ``old``: its records are all of the old domain now. What else a user keeps under ``origin`` in the
    new dataset stays.
    """
    own = record.get("origin")
    if own is None or role == "old" and not _written_here(own):
        return role
    return f"old/{own}" if role == "old" else own


def _written_here(origin: Any) -> bool:
    return isinstance(origin, str) and origin.partition("/")[0] in ROLES


def source_of(record: Mapping[str, Any]) -> str:
    """The source of a prepared record; an origin that no combination wrote tells none."""
    origin = record.get("origin", "new")
    return origin if _written_here(origin) else "new"


def domain_of(origin: Any) -> Any:
    """The domain in which records of an origin are scored: ``old``, ``new``, or the origin that a user gave them."""
    return origin.partition("/")[0] if _written_here(origin) else origin


def resolve(
    found: Mapping[str, Iterable[str]],
    setting: Mapping[str, Iterable[str] | Literal["all"]] | Literal["all"],
    labels: Iterable[str],
) -> dict[str, list[str]]:
    """Source → the labels that it annotates, sorted.

    Args:
        found: source → labels that occur in its records.
        setting: `data.labels_of_source`.
        labels: those of the head.

    Raises:
        ConfigError: the setting names a source or a label that is not there.
    """
    labels = set(labels)
    given: Mapping[str, Iterable[str] | Literal["all"]] = dict.fromkeys(found, "all") if setting == "all" else setting
    out = {source: set(own) for source, own in found.items()}
    problems = []
    for name, added in given.items():
        meant = [source for source in out if source == name or source.startswith(f"{name}/")]
        if not meant:
            problems.append(
                f"data.labels_of_source names the source {name!r}, which is not in the data; its sources are {', '.join(sorted(out))}"
            )
        named = labels if added == "all" else set(added)
        if unknown := sorted(named - labels):
            problems.append(
                f"data.labels_of_source says that {name} annotates {', '.join(unknown)}, which is no label of the head ({', '.join(sorted(labels))}); "
                "a label that no record has must also stand in data.labels"
            )
        for source in meant:
            out[source] |= named
    if problems:
        raise ConfigError(problems)
    return {source: sorted(own) for source, own in sorted(out.items())}


def read_annotated(folder: Path) -> dict[str, set[str]]:
    """Source → the labels that it annotates, of prepared data; of any other dataset's folder, those that its training and validation records have.

    Raises:
        DataError: a file is damaged.
    """
    path = folder / FILE
    if path.is_file():
        try:
            content = read_json(path.read_text(encoding="utf-8"))
            if type(content) is not dict or not all(type(own) is list for own in content.values()):
                raise ValueError("it must hold a list of labels for each source")
            return {source: {str(label) for label in own} for source, own in content.items()}
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is damaged: {error}") from None
    found: dict[str, set[str]] = {}
    for split in ("train", "validation"):
        if file := split_file(folder, split):
            for piece in iter_pieces(file):
                found.setdefault(source_of(piece.record), set()).update(s[2] for s in piece.record["annotations"])
    return found


def unknown_rows(scheme: Scheme, annotated: Iterable[str]) -> np.ndarray:
    """Bool [tags]: rows of labels that are not annotated, so that an O may stand for them."""
    own = set(annotated)
    return np.array([mean.part != "O" and mean.label not in own for mean in scheme.means])


def left_open(logits: torch.Tensor, unknown: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
    """Bool [words, tags]: the tags that an O may stand for: the unknown ones of its source, where the model that the stage continues said one of
    them (`levers.said_before`), or the model now gives one more than one half.

    Were every O open, nothing would keep words of one source from labels that only others annotate: from a plain encoder all words of the old
    texts soon got labels of the new ones, and the other way round. So an O is O until somebody who has learnt the label says otherwise. (In
    segmentation it is the old model alone: Douillard et al. 2021, "PLOP", arXiv 2011.11390.)

    Args:
        logits: [words, tags].
        unknown: bool [words, tags].
        before: bool [words].
    """
    says = (logits.detach().softmax(-1) * unknown).amax(-1) > 0.5
    return unknown & (says if before is None else says | before)[:, None]


def cross_entropy(
    logits: torch.Tensor, tags: torch.Tensor, outside: int, unknown: torch.Tensor | None = None
) -> torch.Tensor:
    """Summed cross-entropy of words, in which an O stands for O or any tag of `unknown`.

    Of such a word it is ``-log(p(O) + sum of p(unknown tags))``: the marginal likelihood of all that the annotation allows. Greenberg et al.
    2018, "Marginal Likelihood Training of BiLSTM-CRF for Biomedical Named Entity Recognition from Disjoint Label Sets" (EMNLP), here of single
    words instead of a CRF; in class-incremental segmentation the unbiased cross-entropy of Cermelli et al. 2020, "Modeling the Background"
    (arXiv 2002.00718).

    Args:
        logits: [words, tags].
        tags: the gold tags, [words].
        outside: the tag O.
        unknown: bool [words, tags], of `left_open`; None where every source annotates everything.
    """
    import torch

    if unknown is None:
        return torch.nn.functional.cross_entropy(logits, tags, reduction="sum")
    logs = logits.log_softmax(-1)
    only = torch.zeros_like(unknown).scatter_(1, tags[:, None], True)
    allowed = torch.where((tags == outside)[:, None], only | unknown, only)
    return -logs.masked_fill(~allowed, -torch.inf).logsumexp(-1).sum()
