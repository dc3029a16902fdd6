from typing import Any

import pytest
from numba.core import caching

from recsys.kernels.shared.vector import Number, compiled


def test_where_no_cache_can_be_written_kernels_are_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Any) -> None:
        raise OSError("read-only file system")

    locators = [x for x in vars(caching).values() if isinstance(x, type) and hasattr(x, "ensure_cache_path")]
    assert locators
    for locator in locators:
        monkeypatch.setattr(locator, "ensure_cache_path", refuse)

    @compiled
    def twice(x: Number) -> Number:
        return 2 * x

    assert twice(21) == 42
