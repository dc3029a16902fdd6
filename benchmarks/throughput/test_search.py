"""Exact and approximate search of a catalog, by how many ask at a time."""

from functools import partial

import pytest

from recsys.benchmarks.retrieval.kinds import KINDS
from recsys.benchmarks.retrieval.measuring import clustered, recall
from recsys.benchmarks.throughput.meter import Meter
from recsys.benchmarks.throughput.sizes import Sizes
from recsys.errors import MissingDependencyError
from recsys.retrieval.item_index import ItemIndex

WIDTH, ANSWERS = 64, 20


@pytest.fixture(scope="module")
def indexes(sizes: Sizes) -> dict[tuple[int, str], ItemIndex]:
    """Each kind is built once, when it is first asked."""
    return {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("queries", ["one", "some", "many"])
def test_search(
    kind: str, queries: str, sizes: Sizes, indexes: dict[tuple[int, str], ItemIndex], meter: Meter
) -> None:
    numbers = dict(zip(("one", "some", "many"), (*sizes.queries, sizes.queries[-1]), strict=False))
    for items in sizes.catalogs:
        vectors, asked = clustered(items, WIDTH, numbers[queries])
        if (items, kind) not in indexes:
            try:
                indexes[items, kind] = ItemIndex.build(vectors, kind=kind, fingerprint="")
            except MissingDependencyError as error:
                pytest.skip(str(error))
        index = indexes[items, kind]
        found = meter(
            partial(index.search, asked, ANSWERS),
            group=f"search, {ANSWERS} of {items:,} items for {len(asked)}",
            events=len(asked),
            bytes_moved=vectors.nbytes + asked.nbytes,
        )
        best = (-asked @ vectors.T).argsort(1)[:, :ANSWERS]
        assert recall(found.ids, best) > (0.999 if kind in ("exact", "flat") else 0.5)
