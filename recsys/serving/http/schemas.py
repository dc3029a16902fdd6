"""What requests hold and what answers do, with examples; strict: no number for a text, no unknown field."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
)

from recsys.events.event_columns import MOST_COLUMNS
from recsys.serving.engine.asking import Answered, Ask, Item

ID_BYTES = 256
MOST_K = 1000
MOST_HISTORY = 10_000
MOST_LISTED = 10_000
MOST_CATEGORIES = 100
MOST_INTERESTS = 16
MOST_BATCH = 256

_INT64 = 2**63


def _short(value: int | str) -> int | str:
    if isinstance(value, str) and len(value) > ID_BYTES // 4 and len(value.encode()) > ID_BYTES:
        raise ValueError(f"takes more than {ID_BYTES} bytes")
    return value


_Text = Annotated[StrictStr, Field(min_length=1, max_length=ID_BYTES, pattern=r"^[^\x00]+$")]
Id = Annotated[
    Annotated[StrictInt, Field(ge=-_INT64, lt=_INT64)] | _Text,
    AfterValidator(_short),
    Field(description="As the log has it: a whole number or text, never one for the other."),
]
Seconds = Annotated[StrictInt, Field(ge=-_INT64, lt=_INT64, description="Unix seconds.")]
Moment = Annotated[
    Seconds | Annotated[StrictStr, Field(max_length=64)],
    Field(description="Unix seconds, or local time as 2026-03-01T08:30."),
]
Text = Annotated[StrictStr, Field(min_length=1, max_length=ID_BYTES, pattern=r"^[^\x00]+$")]


Value = Annotated[
    Annotated[StrictStr, Field(max_length=ID_BYTES)]
    | StrictBool
    | StrictInt  # without bounds, beyond which it would be taken for a float and rounded
    | Annotated[float, Field(strict=True, allow_inf_nan=False)]
    | None,
    Field(description="Of a column, as the log has it; null, and what training never saw, is missing."),
]


class Strict(BaseModel):
    """A body whose fields have their types, and no others."""

    model_config = ConfigDict(strict=True, extra="forbid")


class RecommendBody(Strict):
    """What is asked: for a user, for a history, or for a user whose history goes on as given."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"user": 42, "k": 5},
                {"history": [50, 181, 174], "k": 5, "deny": [172]},
                {"user": 42, "history": [50], "times": [893286638], "category": ["Comedy"]},
                {"user": 42, "candidates": [50, 172, 181]},
                {"user": 42, "context": {"device": "phone"}},
            ]
        },
    )

    user: Id | None = None
    history: Annotated[list[Id], Field(max_length=MOST_HISTORY)] | None = Field(
        None, description="Items, oldest first; after what is known of the user, if both are given."
    )
    times: Annotated[list[Seconds], Field(max_length=MOST_HISTORY)] | None = Field(
        None, description="Unix seconds of every event of the history."
    )
    columns: (
        Annotated[
            dict[Text, Annotated[list[Value], Field(max_length=MOST_HISTORY)]], Field(max_length=MOST_COLUMNS)
        ]
        | None
    ) = Field(None, description="What came with every event of the history, by the event column's name.")
    context: Annotated[dict[Text, Value], Field(max_length=MOST_COLUMNS)] | None = Field(
        None, description="What is known of the request or its user, by the name of a request or user column."
    )
    at: Moment | None = None
    time_zone: Annotated[StrictStr, Field(max_length=64)] | None = Field(
        None, description="Of the request, if not the log's: America/New_York or +05:30."
    )
    k: Annotated[
        StrictInt, Field(ge=1, le=MOST_K, description="Answers; all of `candidates` if left out with them.")
    ] = 10
    exclude_seen: bool = Field(
        True, description="Leave out what the history holds; false if left out with `candidates`."
    )
    allow: Annotated[list[Id], Field(max_length=MOST_LISTED)] | None = Field(
        None, description="Only these items."
    )
    deny: Annotated[list[Id], Field(max_length=MOST_LISTED)] | None = Field(
        None, description="None of these items."
    )
    candidates: Annotated[list[Id], Field(min_length=1, max_length=MOST_K)] | None = Field(
        None, description="Rank these items: as `allow`, but all of them are answered, seen ones too."
    )
    category: Annotated[list[Text], Field(max_length=MOST_CATEGORIES)] | None = Field(
        None, description="Only items of one of these categories."
    )
    interests: Annotated[StrictInt, Field(ge=1, le=MOST_INTERESTS, description="Query vectors.")] = 1
    model: Text | None = Field(None, description="Which model answers; else one is chosen by the user.")

    @field_validator("candidates")
    @classmethod
    def _not_both(cls, given: list[int | str] | None, info: ValidationInfo) -> list[int | str] | None:
        if given is not None and info.data.get("allow") is not None:
            raise ValueError("send candidates or allow, not both")
        return given

    def ask(self, request_id: str) -> Ask:
        """As the engine is asked."""
        given = dict(self.__dict__)
        candidates = given.pop("candidates")
        if candidates is not None:
            given |= {"allow": candidates, "allow_field": "candidates"}
            if "k" not in self.model_fields_set:
                given["k"] = len(candidates)
            if "exclude_seen" not in self.model_fields_set:
                given["exclude_seen"] = False
        return Ask(**given, request_id=request_id)


class BatchBody(Strict):
    """Several requests at once; each is answered, or refused, by itself."""

    requests: Annotated[list[RecommendBody], Field(min_length=1, max_length=MOST_BATCH)]


class ItemAnswer(BaseModel):
    """An answered item."""

    id: int | str
    score: float
    rank: int
    title: str | None = None


class HistoryAnswer(BaseModel):
    """What was read of the user."""

    events: int = Field(description="Of the log, the event store and the request.")
    encoded: int = Field(description="Those that the model read.")
    unknown: list[int | str] = Field(description="Items that the model does not know.")


class RecommendAnswer(BaseModel):
    """Items, best first, and what they were made of."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "8f14e45fceea467a9575b1a2f0c0a1b3",
                    "model": "run",
                    "version": "5d41402abc4b",
                    "items": [{"id": 172, "score": 9.25, "rank": 1, "title": "The Empire Strikes Back"}],
                    "history": {"events": 98, "encoded": 98, "unknown": []},
                    "last_seq": 7,
                    "fallback": None,
                }
            ]
        }
    )

    request_id: str
    model: str
    version: str
    items: list[ItemAnswer]
    history: HistoryAnswer
    last_seq: int = Field(description="Highest place in the event store of what was read.")
    fallback: str | None = Field(None, description='"popular" where nothing was known, else null.')


class Problem(BaseModel):
    """RFC 9457: what is wrong, and with which field."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    field: str | None = None
    errors: list[dict[str, str]] | None = None


class BatchAnswer(BaseModel):
    """An answer or a problem for each request, in its place."""

    results: list[RecommendAnswer | Problem]


class SimilarAnswer(BaseModel):
    """Items near to one, best first."""

    item: int | str
    items: list[ItemAnswer]


def items_json(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Items as JSON has them; a title only where there is one."""
    return [
        {"id": item.id, "score": item.score, "rank": item.rank}
        | ({} if item.title is None else {"title": item.title})
        for item in items
    ]


def answer_json(answer: Answered, request_id: str) -> dict[str, Any]:
    """An answer as JSON has it."""
    read = answer.history
    return {
        "request_id": request_id,
        "model": answer.model,
        "version": answer.version,
        "items": items_json(answer.items),
        "history": {"events": read.events, "encoded": read.encoded, "unknown": list(read.unknown)},
        "last_seq": answer.last_seq,
        "fallback": answer.fallback,
    }
