"""The routes: questions to the model, tables, and what operators ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from curricle import __version__
from curricle.errors import CurricleError
from curricle.serve import pages, shapes
from curricle.serve.batching import Batcher, Busy, Closed
from curricle.serve.guard import Guard, Refused, problem
from curricle.serve.limits import Limits
from curricle.serve.metrics import CONTENT_TYPE, Metrics
from curricle.serve.model import PREDICT, SEARCH, Predict, Search, Served
from curricle.serve.tables import Gone, Job, Kind, Tables
from curricle.steps.assigned import Order

ASSIGN = "assign"
ASKED_AT = {SEARCH: "POST /v1/search", PREDICT: "POST /v1/predict", ASSIGN: "POST /v1/tables"}
"""Where each verb is asked."""
Key = Annotated[str, Header(alias="authorization", description="`Bearer KEY` of this table.")]
TIDY = 60.0
"""Seconds between looks for tables that nobody asks for any more."""
TYPES = {
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "jsonl": "application/jsonl",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
UNREAD = "There was an error parsing the body"
"""What FastAPI says of a body that its JSON reader gives up on."""
WRONG = (
    (("missing",), "is missing"),
    (("extra_forbidden",), "is not known; see /docs"),
    (("string_type",), "has to be a text"),
    (("string_unicode",), "is no valid text"),
    (("string_too_short",), "is empty"),
    (("string_too_long",), "has at most {max_length} characters"),
    (("list_type",), "has to be a list"),
    (("too_short",), "has at least {min_length}"),
    (("too_long",), "has at most {max_length}"),
    (("int_type", "int_parsing", "int_from_float"), "has to be a whole number"),
    (("float_type", "float_parsing", "finite_number"), "has to be a number"),
    (("bool_type", "bool_parsing"), "has to be true or false"),
    (("greater_than_equal",), "has to be {ge} or more"),
    (("less_than_equal",), "has to be {le} or less"),
    (("model_type", "model_attributes_type", "dict_type"), "has to be a JSON object"),
    (("literal_error", "enum"), "has to be {expected}"),
)
"""Types of the validation library's errors, and what they are to people."""
SUMMARY = (
    "Limits: {text:,} characters a text, {texts} texts and {body:,} bytes a request, {table:,} bytes a table. Where too much waits the answer is 503 with "
    "`Retry-After`. Every answer holds `model_version`, and every refusal `error`."
)


def create_app(served: Served, limits: Limits, hosts: Collection[str] = ()) -> FastAPI:
    """The application of one model, loaded already.

    Args:
        hosts: names that a request may call this server; empty takes every name.
    """
    metrics = Metrics(served.version, served.family)
    batcher = Batcher(served.answer, limits, metrics.seen)
    metrics.waiting.set_function(lambda: batcher.waiting)
    tables = Tables(served.coder, batcher, limits, metrics.rows.inc) if ASSIGN in served.verbs else None
    metrics.tables.set_function(lambda: len(tables or ()))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tidying = asyncio.create_task(_tidy(tables)) if tables else None
        yield
        if tidying:
            tidying.cancel()
        await asyncio.to_thread(batcher.close)
        if tables:
            await asyncio.to_thread(tables.close)

    app = FastAPI(
        title=f"Curricle: {served.title}",
        version=__version__,
        summary=f"Model {served.version}",
        description=SUMMARY.format(text=limits.text, texts=limits.texts, body=limits.body, table=limits.table),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={"4XX": {"model": shapes.Problem}, "503": {"model": shapes.Problem, "description": "Too much waits, or the server stops."}},
    )  # fmt: skip
    app.state.batcher = batcher
    app.state.forget = tables.remove if tables else lambda: None
    app.state.refused = lambda reason: metrics.refused.labels(reason).inc()

    def told(content: dict[str, Any], status: int = 200) -> Response:
        return Response(orjson.dumps({"model_version": served.version, **content}), status, media_type="application/json")  # fmt: skip

    async def answered(question: Search | Predict) -> Any:
        try:
            async with asyncio.timeout(limits.seconds):
                return await batcher.ask(question)
        except Busy:
            raise Refused(503, "busy", f"{batcher.waiting} texts wait already; try again", {"retry-after": "1"}) from None  # fmt: skip
        except Closed:
            raise Refused(503, "stopping", "the server is being stopped", {"retry-after": "5"}) from None
        except TimeoutError:
            raise Refused(503, "late", f"no answer within {limits.seconds:g} s; try again", {"retry-after": "5"}) from None  # fmt: skip

    if SEARCH in served.verbs:

        @app.post("/v1/search", response_model=shapes.SearchTold, summary="Codes for texts", tags=["questions"])
        async def search(asked: shapes.SearchAsked) -> Response:
            """The likeliest codes of each text, with probability, path and, on request, what each rests on."""
            return told({"results": await answered(Search(tuple(asked.texts), asked.top, asked.explain, asked.place))})

    if PREDICT in served.verbs:

        @app.post("/v1/predict", response_model=shapes.PredictTold, summary="Entities of texts", tags=["questions"])
        async def predict(asked: shapes.PredictAsked) -> Response:
            """The entities of each text, in text order, with scores."""
            found = await answered(Predict(tuple(asked.texts)))
            kept = [row | {"spans": [s for s in row["spans"] if s["score"] >= asked.threshold]} for row in found]
            return told({"results": kept})

    if tables is not None:
        _add_tables(app, tables, told)

    @app.get("/v1/model", response_model=shapes.ModelTold, summary="What is served", tags=["operation"])
    async def model() -> Response:
        """Version, family and what it can do."""
        return told(served.facts())

    @app.get("/healthz", response_model=shapes.Told, summary="Whether the server lives", tags=["operation"])
    async def healthz() -> Response:
        """503 where the model's thread has died or is at one batch for minutes: start the server anew."""
        return told({}, 200 if batcher.healthy else 503)

    @app.get("/readyz", response_model=shapes.Told, summary="Whether it takes questions", tags=["operation"])
    async def readyz() -> Response:
        """503 where as much waits as may, or the server is being stopped: send nothing for a while."""
        return told({}, 200 if batcher.ready else 503)

    @app.get("/metrics", response_class=Response, summary="Figures for Prometheus", tags=["operation"])
    async def figures() -> Response:
        """Requests, seconds, batches, what waits, what was refused."""
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    front = pages.front(served, limits)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _page(front)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _page(pages.reference(app.openapi()))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        given = request.headers.get("content-type", "").partition(";")[0].strip()[:100]
        if not given.endswith("json") and any(found["loc"] == ("body",) and found["type"] != "missing" for found in error.errors()):  # fmt: skip
            said = f"the body is {given or 'of no type'}, and has to be JSON, with the header Content-Type: application/json"
            return Response(problem(said, served.version), 415, media_type="application/json")
        said = "; ".join(map(_wrong, error.errors()))
        return Response(problem(said[:1000], served.version), 422, media_type="application/json")

    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> Response:
        if isinstance(error, Refused):
            metrics.refused.labels(error.reason).inc()
        said, headers = str(error.detail), dict(error.headers or {})
        if said == UNREAD:
            said = "the body cannot be read: it is no JSON, or nested too deeply"
        elif said == HTTPStatus.NOT_FOUND.phrase:
            asked_at = " and ".join(at for verb, at in ASKED_AT.items() if verb in served.verbs)
            said = f"nothing is served at this address: a model of {served.family} is asked at {asked_at}; see /docs"
        elif said == HTTPStatus.METHOD_NOT_ALLOWED.phrase:
            here = [
                route for route in app.routes if isinstance(route, Route) and route.path_regex.match(request.url.path)
            ]
            headers["allow"] = ", ".join(sorted({method for route in here for method in route.methods or ()}))
            said = f"this address takes {headers['allow']} and no other method; see /docs"
        return Response(problem(said, served.version), error.status_code, headers, "application/json")

    @app.exception_handler(CurricleError)
    async def refused(request: Request, error: CurricleError) -> Response:
        return Response(problem(str(error), served.version), 422, media_type="application/json")

    app.add_middleware(Guard, limits=limits, metrics=metrics, hosts=hosts, version=served.version)
    return app


def _add_tables(app: FastAPI, tables: Tables, told: Any) -> None:
    """The routes of tables."""

    def found(table: str, authorization: str) -> Job:
        try:
            return tables.find(table, authorization.removeprefix("Bearer "))
        except Gone:
            raise HTTPException(404, "there is no such table here, or its key is another one") from None

    @app.post("/v1/tables", response_model=shapes.TableTold, status_code=201, summary="Bring a table", tags=["tables"])
    async def receive(request: Request, kind: Annotated[Kind, Query(description="What the body is.")] = "csv") -> Response:  # fmt: skip
        """The body is the file itself. Answers what was recognised, and the key that the table is asked for with."""
        try:
            job = await tables.receive(request.stream(), kind)
        except Busy:
            raise Refused(503, "tables", "as many tables are kept as may; try again later", {"retry-after": "60"}) from None  # fmt: skip
        except ClientDisconnect:
            raise HTTPException(400, "the table did not come whole") from None
        sample = [[cell[:200] for cell in row.cells] for row in job.sample]
        return told({"id": job.id, "key": job.key, "columns": job.columns, "said": job.said, "sample": sample}, 201)

    @app.post(
        "/v1/tables/{table}/assign",
        response_model=shapes.ProgressTold,
        status_code=202,
        summary="Code a table",
        tags=["tables"],
    )
    async def assign(table: str, asked: shapes.AssignAsked, authorization: Key = "") -> Response:  # fmt: skip
        """Begins it, or has it wait for its turn; ask for its progress then."""
        job = found(table, authorization)
        if job.state in ("waiting", "coding"):
            raise HTTPException(409, "this table is being coded already")
        if asked.max_error is not None and asked.review_below is not None:
            raise HTTPException(422, "max_error and review_below are two rules for the same thing; give one of them")
        tables.code(job, Order(**asked.model_dump()))
        return told(job.as_json(), 202)

    @app.get("/v1/tables/{table}", response_model=shapes.ProgressTold, summary="How far it is", tags=["tables"])
    async def progress(table: str, authorization: Key = "") -> Response:
        """Rows that are done and all of them, and what came of it."""
        return told(found(table, authorization).as_json())

    @app.get("/v1/tables/{table}/output", response_class=FileResponse, summary="The coded table", tags=["tables"])
    async def output(table: str, authorization: Key = "") -> Response:
        """All rows and columns, and those that were added, as `curricle assign` writes them."""
        job = found(table, authorization)
        if job.state != "done":
            raise HTTPException(409, f"this table is not coded: {job.state}")
        return FileResponse(job.output, media_type=TYPES[job.kind], filename=job.output.name)

    @app.get("/v1/tables/{table}/rejects", response_class=FileResponse, summary="Rows that are none", tags=["tables"])
    async def rejects(table: str, authorization: Key = "") -> Response:
        """With line and reason."""
        job = found(table, authorization)
        if job.state != "done" or not job.rejects.is_file():
            raise HTTPException(404, "no row was rejected")
        return FileResponse(job.rejects, media_type=TYPES["csv"], filename=job.rejects.name)

    @app.delete("/v1/tables/{table}", response_model=shapes.Told, summary="Forget a table", tags=["tables"])
    async def forget(table: str, authorization: Key = "") -> Response:
        """Stops coding it, and removes it and its results."""
        tables.drop(found(table, authorization))
        return told({})


def _wrong(found: Mapping[str, Any]) -> str:
    """What is wrong with a request, without what it held."""
    where, kind = ".".join(map(str, found["loc"][1:])) or "the body", found["type"]
    if kind == "json_invalid":
        return f"the body is no JSON, from character {found['loc'][-1]} on"
    for kinds, said in WRONG:
        if kind in kinds:
            return f"{where} {said.format(**found.get('ctx', {}))}"
    return f"{where} is not what is asked for; see /docs"


def _page(page: pages.Page) -> Response:
    return Response(page.body, media_type="text/html; charset=utf-8", headers={"content-security-policy": page.policy})


async def _tidy(tables: Tables) -> None:
    while True:
        await asyncio.sleep(TIDY)
        with suppress(OSError):
            tables.forget()
