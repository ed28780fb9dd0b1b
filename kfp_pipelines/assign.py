"""Coding a table as a pipeline: cut into shards, the model opened once, the shards coded side by side, joined."""

from kfp import dsl

from kfp_pipelines.components.assign import code_shard, cut_table, join_shards, open_model
from kfp_pipelines.curriculum import in_cluster, uncached

AT_ONCE = 16
"""Shards that are coded at the same time, at most."""


@dsl.pipeline(
    name="assign",
    description="Gives every row of a table a code, on several machines, and marks what a person should look at.",
)
def assign(
    table_uri: str,
    column: str,
    output_uri: str,
    model: str = "",
    top: int = 1,
    max_error: str = "",
    review_below: str = "",
    explain: bool = False,
    prefix: str = "",
    encoding: str = "",
    shards: int = 8,
    store_uri: str = "minio://mlpipeline/curricle",
    run_id: str = "",
):
    """Codes a table.

    Args:
        table_uri: The table: URI of a CSV, TSV, XLSX, JSON Lines or parquet file, for example s3://bucket/answers.csv
        column: Column that holds the text: its name, or its number where names are equal or missing.
        output_uri: URI of the file to write; its ending says its kind. Rows that are none go to a file beside it, .rejects.csv
        model: Run, stage, path or URI of a checkpoint. Empty takes the promoted model, else that of the newest finished chain.
        top: Codes a row: the best one, and alternatives.
        max_error: Mark rows for review so that at most this share of the others is wrong, as on validation texts, for example 0.05
        review_below: Mark rows for review whose confidence is lower. Give this or max_error, or neither.
        explain: Add columns that say what the code rests on.
        prefix: What the names of the added columns begin with.
        encoding: Encoding of the table, where it is not recognised.
        shards: Into how many parts the table is cut, 1 to 100; each is coded by a pod of its own, 16 at a time.
        store_uri: Where the models are, and the shards are kept meanwhile: minio://bucket/prefix, s3://bucket/prefix or a folder.
        run_id: Name under which a failure is kept in the store. Empty takes Kubeflow's own id of the run.
    """
    which = {"store_uri": store_uri, "run_id": run_id, "job_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    parts = cut_table(
        **which, table_uri=table_uri, column=column, output_uri=output_uri, model=model, top=top, max_error=max_error,
        review_below=review_below, explain=explain, prefix=prefix, encoding=encoding, shards=shards,
    ).set_display_name("cut the table")  # fmt: skip
    opened = open_model(**which, place_uri=parts.output).set_display_name("open the model")
    with dsl.ParallelFor(opened.output, parallelism=AT_ONCE, name="shards") as shard:
        coded = code_shard(**which, shard_uri=shard).set_display_name("code a shard")
    joined = join_shards(**which, place_uri=parts.output, coded=dsl.Collected(coded.output)).set_display_name(
        "join the shards"
    )
    uncached(parts, opened, coded, joined)
    in_cluster(parts, opened, coded, joined)
