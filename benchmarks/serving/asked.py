"""What the lines of the table ask: bodies as clients would send them, and whether the answers are right."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.benchmarks.serving.open_loop import Exchange, request
from recsys.benchmarks.serving.records import raw_histories
from recsys.recommender import Recommender

__all__ = ["Pairs", "by_history", "by_user", "by_user_denying", "has_answers", "of_events", "users_of"]

K = 10


def by_history(model: Recommender, count: int, *, seed: int, most: int | None = None) -> list[Exchange]:
    """Requests with a history in the body that no other request has, so that no vector was kept from before.

    Args:
        model: of the run that is served.
        count: requests.
        seed: of the draw; another one for each load on a server.
        most: newest events of each; None is all.

    Returns:
        Histories of the log's users, the oldest event gone and one of an item by chance behind the newest.
    """
    rng = np.random.default_rng(seed)
    last = model._names.items.decode(rng.integers(0, model.store_.n_items, count)).to_list()
    histories = raw_histories(model, count, seed=seed, most=most)
    return [
        [request("POST", "/v1/recommend", _json({"history": [*history[1:], item], "k": K}))]
        for history, item in zip(histories, last, strict=True)
    ]


def by_user(users: Sequence[Any]) -> list[Exchange]:
    """Requests for users of the log."""
    return [[request("POST", "/v1/recommend", _json({"user": user, "k": K}))] for user in users]


def by_user_denying(model: Recommender, users: Sequence[Any], count: int, *, seed: int) -> list[Exchange]:
    """Requests for users of the log in turn, each without an item by chance.

    A user's vector is kept from the request before; the answer is not, for it is another one.

    Args:
        model: of the run that is served.
        users: raw ids.
        count: requests.
        seed: of the draw.
    """
    drawn = np.random.default_rng(seed).integers(0, model.store_.n_items, count)
    items = model._names.items.decode(drawn).to_list()
    return [
        [request("POST", "/v1/recommend", _json({"user": users[place % len(users)], "k": K, "deny": [item]}))]
        for place, item in enumerate(items)
    ]


def users_of(model: Recommender, count: int, seed: int = 2) -> list[Any]:
    """Raw ids of as many users of the log, each once, in an order of chance."""
    drawn = np.random.default_rng(seed).permutation(model.store_.n_users)[:count]
    found: list[Any] = model._names.users.decode(drawn.astype(np.int64)).to_list()
    return found


def of_events(model: Recommender, posts: int, size: int = 100, seed: int = 3) -> list[Exchange]:
    """Posts of so many events each, of users and items by chance, every event with an id of its own."""
    rng = np.random.default_rng(seed)
    users = model._names.users.decode(rng.integers(0, model.store_.n_users, posts * size)).to_list()
    items = model._names.items.decode(rng.integers(0, model.store_.n_items, posts * size)).to_list()
    events = [
        {"id": f"{seed}-{number}", "user": user, "item": item}
        for number, (user, item) in enumerate(zip(users, items, strict=True))
    ]
    return [
        [request("POST", "/v1/events", _json({"events": events[at : at + size]}))]
        for at in range(0, len(events), size)
    ]


def has_answers(_: int, bodies: Sequence[bytes]) -> bool:
    """Whether the last answer holds k items."""
    return bodies[-1].count(b'"rank":') == K


class Pairs:
    """An event of a user, then the question what that user wants next; whether the answer knows the event.

    Attributes:
        exchanges: for the generator; each is used once, for an event is new once.

    Args:
        model: of the run that is served.
        count: pairs.
        users: that take turns.
        seed: of the draws; another one for each load on a server.
    """

    def __init__(self, model: Recommender, count: int, users: int = 400, seed: int = 4) -> None:
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(model.store_.n_users)[:users]
        raw = model._names.users.decode(drawn.astype(np.int64)).to_list()
        items = model._names.items.decode(rng.integers(0, model.store_.n_items, count)).to_list()
        self._users = [raw[number % len(raw)] for number in range(count)]
        self._logged = {
            user: len(model.store_.history(int(index), "all")) for user, index in zip(raw, drawn, strict=True)
        }
        self._known: Counter[Any] = Counter()
        self.exchanges: list[Exchange] = [
            [
                request("POST", "/v1/events", _json({"events": [{"user": user, "item": item}]})),
                request("POST", "/v1/recommend", _json({"user": user, "k": K})),
            ]
            for user, item in zip(self._users, items, strict=True)
        ]

    def check(self, number: int, bodies: Sequence[bytes]) -> bool:
        """Whether the answer was made of every event that was acknowledged before it was asked for.

        A user's events acknowledged while this answer was on its way may or may not be in it; those of the
        pairs before, and of this pair, have to be.
        """
        user = self._users[number]
        self._known[user] += 1
        events, answer = (json.loads(body) for body in bodies)
        return bool(
            events["accepted"] == 1
            and len(answer["items"]) == K
            and answer["history"]["events"] >= self._logged[user] + self._known[user]
        )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
