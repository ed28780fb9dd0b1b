"""What goes over the wire: requests, which are checked by these, and answers, which are described by them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from curricle.serve.limits import Limits

_MOST = Limits()
Text = Annotated[str, StringConstraints(min_length=1, max_length=_MOST.text)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=_MOST.texts)]


class Asked(BaseModel):
    """A request: unknown keys are refused, and so is a value of another type, whatever it could be read as."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SearchAsked(Asked):
    """Texts that want codes."""

    texts: Texts = Field(description="One text each.", examples=[["we brew craft beer"]])
    top: int = Field(5, ge=1, le=_MOST.top, description="Codes a text, the likeliest first.")
    explain: bool = Field(False, description="Also what each code rests on; costs about as much again.")
    place: bool = Field(False, description="Also where the text stands on the disc of all codes that the page shows.")


class PredictAsked(Asked):
    """Texts that want entities."""

    texts: Texts = Field(description="One text each.", examples=[["The print preview in Kite is gone, says Anna."]])
    threshold: float = Field(0.0, ge=0, le=1, description="Spans whose score is lower are left out.")


class AssignAsked(Asked):
    """How a table is coded: `curricle assign` has the same."""

    column: str = Field(
        max_length=1000, description="Name of the text's column, or its number from 1.", examples=["text"]
    )
    top: int = Field(1, ge=1, le=_MOST.top, description="Codes a row: the best, and alternatives.")
    max_error: float | None = Field(None, ge=0, le=1, description="Mark rows for review so that at most this share of the others is wrong, as on validation texts.")  # fmt: skip
    review_below: float | None = Field(None, ge=0, le=1, description="Mark rows for review whose confidence is lower.")
    explain: bool = Field(False, description="Also columns of what the code rests on.")
    prefix: str = Field("", max_length=100, description="What the names of the added columns begin with.")


class Told(BaseModel):
    """Every answer says which model gave it."""

    model_version: str = Field(description="Digest of the model: of its configuration, data and parents.")


class Step(BaseModel):
    """A code on the way down the tree."""

    code: str
    title: str


class NeighbourSaid(BaseModel):
    """A training text near to the text."""

    text: str
    similarity: float
    share: float
    words: list[str]


class ElsewhereSaid(BaseModel):
    """What is excluded from a code, and where it belongs."""

    source: str
    text: str
    code: str
    title: str


class ReasonsSaid(BaseModel):
    """What a code rests on."""

    share: float
    neighbours: list[NeighbourSaid]
    words: list[tuple[str, float]]
    elsewhere: list[ElsewhereSaid]


class HitSaid(BaseModel):
    """A code for a text."""

    code: str | None = Field(
        description='null: "no code", nonsense or something else than the classification is about.'
    )
    title: str
    confidence: float = Field(description="Probability that the code is right, calibrated on validation texts.")
    score: float = Field(description="Its logarithm.")
    path: list[Step] = Field(description="From the top of the tree down to the code.")
    reasons: ReasonsSaid | None = Field(None, description="With `explain`.")


class Searched(BaseModel):
    """A text with its codes."""

    text: str
    hits: list[HitSaid]
    place: list[float] | None = Field(None, description="With `place`: [x, y] in the unit disc.")


class SearchTold(Told):
    """One result a text, in order."""

    results: list[Searched]


class Span(BaseModel):
    """An entity. Offsets count characters (Unicode code points), the end is exclusive."""

    start: int
    end: int
    label: str
    text: str
    score: float = Field(description="Probability that the span is exactly right.")


class Predicted(BaseModel):
    """A text with its entities."""

    text: str
    spans: list[Span]


class PredictTold(Told):
    """One result a text, in order."""

    results: list[Predicted]


class ModelTold(Told):
    """What is served."""

    family: str
    title: str
    can: list[str]
    metrics: dict[str, float] = Field(description="Of the model's own training.")


class TableTold(Told):
    """A table that was received."""

    id: str
    key: str = Field(
        description="Say it as `Authorization: Bearer KEY` in every request about this table. It is told once."
    )
    columns: list[str]
    said: str = Field(description="What was recognised: encoding, separator, header.")
    sample: list[list[str]] = Field(description="The first rows.")


class ResultSaid(BaseModel):
    """What came of a table."""

    rows: int
    coded: int
    review: int
    without: int
    bad: int = Field(description="Rows that are none: they are in `rejects`.")
    named: list[str]


class ProgressTold(Told):
    """How a table goes."""

    id: str
    state: Literal["received", "waiting", "coding", "done", "failed"]
    done: int
    total: int
    notes: list[str]
    error: str | None
    result: ResultSaid | None = None


class Problem(Told):
    """Every answer that is none."""

    error: str
