"""Components that code a table: cut it into shards, open the model once, code a shard, join the result."""

from kfp import dsl

from kfp_pipelines import CONTROL_IMAGE, TRAINER_IMAGE


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def cut_table(
    table_uri: str,
    column: str,
    output_uri: str,
    model: str,
    top: int,
    max_error: str,
    review_below: str,
    explain: bool,
    prefix: str,
    encoding: str,
    shards: int,
    store_uri: str,
    run_id: str,
    job_id: str,
) -> str:
    """Read a table through and cut its texts into shards in the store; one that is coded already gives none.

    Args:
        table_uri: The table.
        column: Name or number of the text's column.
        output_uri: The file to write.
        model: Which model codes; empty takes the promoted one.
        top: Codes a row.
        max_error: Share of wrong codes that is allowed among those that are not for review; empty for no rule.
        review_below: Confidence below which a row is for review; empty for no rule.
        explain: Whether columns are added that say what a code rests on.
        prefix: What the added columns' names begin with.
        encoding: Encoding of the table, where it is not recognised.
        shards: How many.
        store_uri: Store that keeps the model, and the shards.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.

    Returns:
        Place of the shards.
    """
    from kfp_pipelines.doors_assign import cut_table as step
    from kfp_pipelines.failures import readable

    with readable("cut the table", store_uri, run_id or job_id):
        return step(
            table_uri, column, output_uri, model, top, max_error, review_below, explain, prefix, encoding, shards, store_uri
        )  # fmt: skip


@dsl.component(base_image=TRAINER_IMAGE, install_kfp_package=False)
def open_model(place_uri: str, store_uri: str, run_id: str, job_id: str) -> list[str]:
    """Open the model once for all shards, and decide what is for review.

    Args:
        place_uri: Place of the shards.
        store_uri: Store that keeps the model, and the shards.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.

    Returns:
        URIs of the shards that are to be coded.
    """
    from kfp_pipelines.doors_assign import open_model as step
    from kfp_pipelines.failures import readable

    with readable("open the model", store_uri, run_id or job_id):
        return step(place_uri)


@dsl.component(base_image=TRAINER_IMAGE, install_kfp_package=False)
def code_shard(shard_uri: str, store_uri: str, run_id: str, job_id: str) -> str:
    """Code one shard, unless it is coded already.

    Args:
        shard_uri: The shard. It says its place too: in kfp.local every output of a task that a loop is given becomes the loop's item.
        store_uri: Store that keeps the model, and the shards.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.

    Returns:
        What came of it.
    """
    from kfp_pipelines.doors_assign import code_shard as step
    from kfp_pipelines.failures import readable

    with readable("code a shard", store_uri, run_id or job_id):
        said = step(shard_uri)
        print(said)
        return said


@dsl.component(base_image=CONTROL_IMAGE, install_kfp_package=False)
def join_shards(
    place_uri: str, coded: list[str], store_uri: str, run_id: str, job_id: str, report: dsl.Output[dsl.HTML]
) -> str:
    """Write the output from all shards, and delete them.

    Args:
        place_uri: Place of the shards.
        coded: What came of each.
        store_uri: Store that keeps the shards.
        run_id: Name of the run; empty takes job_id.
        job_id: Kubeflow's id of this run.
        report: How many rows were coded, how many are for review, how sure the model was, and which codes it gave.

    Returns:
        URI of the output.
    """
    from kfp_pipelines.artifacts import write_page
    from kfp_pipelines.doors_assign import join_shards as step
    from kfp_pipelines.failures import readable

    with readable("join the shards", store_uri, run_id or job_id):
        output, table, page = step(place_uri)
        print(table)
        write_page(report, page)
        return output
