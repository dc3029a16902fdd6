"""A user's answers as the page shows them: ranks before and after an appended item, what each is near to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from recsys.errors import ArgumentError, RecsysError, UnknownIdError
from recsys.events.store import RawId
from recsys.serving.engine.asking import Answered, Ask, Engine, ModelInfo
from recsys.serving.http.ids import path_id
from recsys.serving.page.choices import AT_LAST_EVENT, Choices
from recsys.serving.page.histories import Done

DEPTH = 200
"""Ranks looked at for where an answer stood before."""
_NEAR = 100
"""Items of the history, the latest, that an answer's nearest is sought among."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer.

    Attributes:
        rank: 1 is best.
        item: raw id.
        title: of it.
        score: of it.
        before: rank without the appended item; None beyond `DEPTH`, and where none was appended.
        near: raw id of the history's item that it is nearest to.
        near_title: of that.
        cosine: between the two.
    """

    rank: int
    item: RawId
    title: str | None
    score: float
    before: int | None
    near: RawId | None
    near_title: str | None
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Rows, what the engine said with them, and what was appended to the history."""

    rows: list[Row]
    answered: Answered
    appended: RawId | None = None
    appended_title: str | None = None


async def answer(
    engine: Engine, user: RawId, done: Sequence[Done], choices: Choices, info: ModelInfo, zone: tzinfo
) -> Answers:
    """Ask for a user as the reader of the page chose.

    Args:
        engine: that answers.
        user: raw id.
        done: the user's events.
        choices: what was chosen.
        info: the model that is asked, for what its ids and times are.
        zone: of the hour that was chosen.

    Raises:
        RecsysError: the engine's, and ArgumentError for an item that nothing or more than one thing is.
    """
    appended = None if not choices.item else await find_item(engine, choices.item, info)
    ask = Ask(
        user=user,
        at=moment(done, choices.hour, zone) if info.reads_request_time else None,
        k=choices.k if appended is None else max(choices.k, DEPTH),
        exclude_seen=not choices.seen,
        category=[choices.category] if choices.category else None,
        model=choices.model or None,
    )
    asks = [ask]
    if appended is not None:
        asks.append(_with(ask, appended, done, info, choices.k))
    found = await engine.recommend_many(asks)
    for each in found:
        if isinstance(each, RecsysError):
            raise each
    answers = [each for each in found if isinstance(each, Answered)]
    before = {item.id: item.rank for item in answers[0].items} if appended is not None else {}
    items = answers[-1].items[: choices.k]
    recent = list(dict.fromkeys(each.item for each in reversed(done)))[:_NEAR]
    near = await engine.nearest([item.id for item in items], recent, info.name)
    titles = {each.item: each.title for each in done}
    rows = [
        Row(
            item.rank,
            item.id,
            item.title,
            item.score,
            before.get(item.id),
            None if found is None else found[0],
            None if found is None else titles.get(found[0]),
            None if found is None else found[1],
        )
        for item, found in zip(items, near, strict=True)
    ]
    title = None if appended is None else (await engine.title([appended], info.name))[0]
    return Answers(rows, answers[-1], appended, title)


async def find_item(engine: Engine, text: str, info: ModelInfo) -> RawId:
    """The item that a reader means by an id, or by a text that only one title holds.

    Raises:
        ArgumentError: nothing is called so, or more than one item.
    """
    try:
        raw = path_id(text, info.ids_are_int, "item")
        return (await engine.item(raw, info.name)).id
    except UnknownIdError:
        pass  # no id of this log is such a text
    found = await engine.search_items(text, 2, info.name)
    if len(found) == 1:
        return found[0].id
    said = "several items begin so or hold it; write its id" if found else "no item has this id or title"
    raise ArgumentError(f"item {text[:64]!r}: {said}")


def moment(done: Sequence[Done], hour: int, zone: tzinfo) -> str | None:
    """The first time after the last event at which a zone's clocks show an hour, as local ISO text.

    Args:
        done: a user's events.
        hour: 0 to 23, or `AT_LAST_EVENT`, which is answered by None.
        zone: whose clocks are meant.
    """
    if hour == AT_LAST_EVENT:
        return None
    times = [each.time for each in done if each.time is not None]
    last = datetime.fromtimestamp(max(times), zone) if times else datetime.now(zone)
    day = last.date() if hour > last.hour else last.date() + timedelta(days=1)
    return f"{day.isoformat()}T{hour:02d}:00"


def _with(ask: Ask, item: RawId, done: Sequence[Done], info: ModelInfo, k: int) -> Ask:
    times = [each.time for each in done if each.time is not None]
    return Ask(
        user=ask.user,
        history=[item],
        times=[max(times)] if info.needs_times and times else None,
        at=ask.at,
        k=k,
        exclude_seen=ask.exclude_seen,
        category=ask.category,
        model=ask.model,
    )
