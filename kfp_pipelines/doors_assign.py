"""The steps of coding a table as pipeline components call them: plain strings and numbers in, plain values out."""

from __future__ import annotations

from curricle.errors import ConfigError
from curricle.markdown import markdown_table
from curricle.report.assigned import About, assigned_page
from curricle.steps import shards
from curricle.steps.assign import Assigned
from curricle.steps.assigned import Order
from curricle.steps.shards import check_count


def cut_table(table_uri: str, column: str, output_uri: str, model: str, top: int, max_error: str, review_below: str, explain: bool, prefix: str, encoding: str, count: int, store_uri: str) -> str:  # fmt: skip
    """Cut a table into shards; their place in the store.

    Args:
        max_error, review_below: numbers as text; empty for none.
    """
    order = order_of(column=column, top=top, max_error=max_error, review_below=review_below, explain=explain, prefix=prefix, shards=count)  # fmt: skip
    return shards.cut(table_uri, output_uri, order, store_uri=store_uri, model=model, shards=count, encoding=encoding)


def order_of(
    *, column: str, top: int, max_error: str, review_below: str, explain: bool, prefix: str, shards: int
) -> Order:
    """What is asked for, where the parameters can be meant.

    Raises:
        ConfigError: one cannot; names it.
    """
    if not column:
        raise ConfigError("column is empty; name the column that holds the text")
    check_count(shards)
    if top < 1:
        raise ConfigError(f"top must be at least 1, not {top}")
    return Order(
        column=column,
        top=top,
        max_error=_share("max_error", max_error),
        review_below=_share("review_below", review_below),
        explain=explain,
        prefix=prefix,
    )


def open_model(place_uri: str) -> list[str]:
    """Open the model once; URIs of the shards that are to be coded. The first one where all are coded: a loop over nothing gives nothing that could be joined."""
    return [shards.shard_uri(place_uri, number) for number in shards.open_coder(place_uri) or [0]]


def code_shard(shard_uri: str) -> str:
    """Code one shard, unless it is coded already; what came of it."""
    place, number = shards.place_of(shard_uri)
    done = shards.code_shard(place, number, tell=lambda rows: print(f"{rows:,} rows", flush=True))
    return f"shard {number}: {done:,} rows" if done else f"shard {number}: was there already"


def join_shards(place_uri: str) -> tuple[str, str, str]:
    """Write the output; its URI, a table of what came of it for the log, and the report."""
    work, done = shards.Work.read(place_uri), shards.join(place_uri)
    return work.output, _table(work, done), assigned_page(About(work.output, work.table, work.model, done))


def _table(work: shards.Work, done: Assigned) -> str:
    rows = [["rows", f"{done.rows:,}"], ["coded", f"{done.coded:,}"], ["for review", f"{done.review:,}"], ["without a code", f"{done.without:,}"]]  # fmt: skip
    rows += [["rows that are none", f"{done.bad:,}, in {work.rejects}: {'; '.join(done.named)}"]] if done.bad else []
    return markdown_table(["", work.output], rows)


def _share(name: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"{name} {text!r} is no number from 0 to 1")
    return share
