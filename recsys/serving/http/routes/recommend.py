"""POST /v1/recommend, POST /v1/recommend/batch, GET /v1/users/{user}/recommendations."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from recsys.errors import RecsysError, UnknownIdError
from recsys.events.event_columns import MOST_COLUMNS, ColumnValue
from recsys.serving.engine.asking import Answered, Ask
from recsys.serving.http.auth import requires
from recsys.serving.http.facts import facts_of
from recsys.serving.http.ids import check_ask, model_info, path_id
from recsys.serving.http.leaving import unless_left
from recsys.serving.http.problems import FieldError, problem_of
from recsys.serving.http.quoted import QuotedRoute
from recsys.serving.http.responses import json_response, problems
from recsys.serving.http.schemas import (
    MOST_CATEGORIES,
    MOST_INTERESTS,
    MOST_K,
    BatchAnswer,
    BatchBody,
    RecommendAnswer,
    RecommendBody,
    Text,
    answer_json,
)
from recsys.serving.http.service import Service, service_of

router = APIRouter(tags=["recommendations"], route_class=QuotedRoute)


@router.post(
    "/v1/recommend",
    response_model=RecommendAnswer,
    responses=problems(400, 413, 415, 422, 504),
    dependencies=[Depends(requires("read"))],
)
async def recommend(
    body: RecommendBody, request: Request, service: Annotated[Service, Depends(service_of)]
) -> Response:
    """Answer what comes next, for a user, a history or both."""
    return await _answer(body.ask(facts_of(request).request_id), request, service)


@router.post(
    "/v1/recommend/batch",
    response_model=BatchAnswer,
    responses=problems(400, 413, 415, 422, 504),
    dependencies=[Depends(requires("read"))],
)
async def recommend_batch(
    body: BatchBody, request: Request, service: Annotated[Service, Depends(service_of)]
) -> Response:
    """Answer several requests at once; each is answered, or refused, by itself."""
    facts = facts_of(request)
    asks = [each.ask(f"{facts.request_id}.{place}") for place, each in enumerate(body.requests)]
    outcomes: list[Answered | RecsysError | None] = [_refusal(ask, service) for ask in asks]
    good = [place for place, outcome in enumerate(outcomes) if outcome is None]
    wanted = [asks[place] for place in good]
    found = await unless_left(request, service.engine.recommend_many(wanted)) if good else []
    for place, answer in zip(good, found, strict=True):
        outcomes[place] = answer
    results = []
    for ask, outcome in zip(asks, outcomes, strict=True):
        if isinstance(outcome, Answered):
            facts.answered(outcome, ask.k, None)
            # An id of its own, that events which come of it can name.
            results.append(answer_json(outcome, ask.request_id or facts.request_id))
        else:
            assert outcome is not None
            results.append(problem_of(outcome, facts.request_id))
    return json_response({"results": results})


@router.get(
    "/v1/users/{user:path}/recommendations",
    response_model=RecommendAnswer,
    responses=problems(404, 422, 504),
    dependencies=[Depends(requires("read"))],
)
async def recommendations(
    user: str,
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    k: Annotated[int, Query(ge=1, le=MOST_K)] = 10,
    category: Annotated[Sequence[Text] | None, Query(max_length=MOST_CATEGORIES)] = None,
    at: Annotated[str | None, Query(max_length=64)] = None,
    time_zone: Annotated[str | None, Query(max_length=64)] = None,
    exclude_seen: bool = True,
    interests: Annotated[int, Query(ge=1, le=MOST_INTERESTS)] = 1,
    context: Annotated[
        Sequence[Text] | None,
        Query(max_length=MOST_COLUMNS, description="What is known of the request: column=value."),
    ] = None,
    model: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Answer what comes next for a user who is known."""
    info = model_info(service.engine, model)
    ask = Ask(
        user=path_id(user, info.user_ids_are_int, "user"),
        at=_moment(at),
        time_zone=time_zone,
        k=k,
        exclude_seen=exclude_seen,
        category=category,
        interests=interests,
        context=_context(context),
        model=model,
        request_id=facts_of(request).request_id,
    )
    return await _answer(ask, request, service, known=True)


async def _answer(ask: Ask, request: Request, service: Service, *, known: bool = False) -> Response:
    facts = facts_of(request)
    facts.user, facts.k = ask.user, ask.k
    check_ask(ask, service.engine)
    answer = await unless_left(request, service.engine.recommend(ask))
    facts.answered(answer, ask.k, ask.user)
    if known and not answer.history.events:
        raise UnknownIdError(
            f"user {str(ask.user)[:64]!r}: neither the log nor the event store holds an event; "
            "POST /v1/recommend answers for a user who is new"
        )
    return json_response(answer_json(answer, facts.request_id))


def _refusal(ask: Ask, service: Service) -> RecsysError | None:
    try:
        check_ask(ask, service.engine)
    except RecsysError as error:
        return error
    return None


def _context(pairs: Sequence[str] | None) -> dict[str, ColumnValue] | None:
    """Columns and their values; one that is written twice has its last.

    Raises:
        FieldError: a part is no column=value.
    """
    if pairs is None:
        return None
    parts = [pair.partition("=") for pair in pairs]
    odd = next(
        (pair for pair, (name, equals, _) in zip(pairs, parts, strict=True) if not (name and equals)), None
    )
    if odd is not None:
        raise FieldError("context", f"{odd[:64]!r}: write it as column=value")
    return {name: value for name, _, value in parts}


def _moment(text: str | None) -> int | str | None:
    """Unix seconds as a number, anything else as it is."""
    digits = (text or "").removeprefix("-")
    return int(text or "") if digits.isascii() and digits.isdigit() and len(digits) < 19 else text
