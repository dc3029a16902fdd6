"""Servers that an index may lie on."""

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.retrieval.qdrant_stand_in import StandIn

Place = Callable[[str], dict[str, object]]
_numbers = itertools.count()

SMALL = {"hnsw_m": 4, "ef_construction": 16}
"""A graph that is quickly built."""


@pytest.fixture(scope="session")
def stand_in() -> "Iterator[StandIn]":
    """A stand-in for a Qdrant server, being served."""
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    from tests.retrieval.qdrant_stand_in import StandIn

    own = StandIn()
    with own.serving():
        yield own


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest) -> Place:
    """Options of an index of a kind: the address of its server, and a name that nobody else uses."""

    def of(kind: str) -> dict[str, object]:
        options: dict[str, object] = {**SMALL, "collection": f"items_{next(_numbers)}"}
        if kind == "qdrant":
            return options | {"url": request.getfixturevalue("stand_in").url}
        pytest.importorskip("pgvector", reason="the extra pgvector is not installed")
        return options | {"dsn": request.getfixturevalue("postgres_url")}

    return of
