"""One Ray cluster for all tests of the engines that a process runs."""

from collections.abc import Iterator

import pytest

from tests.engines.cluster import TestCluster, cluster


@pytest.fixture(scope="session")
def ray() -> Iterator[TestCluster]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'recsys-engine[ray]'")
    with cluster() as started:
        yield started
