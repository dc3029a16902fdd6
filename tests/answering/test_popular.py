import numpy as np

from recsys.answering.popular import PopularItems


def test_most_popular_items_under_filters() -> None:
    popular = PopularItems(np.array([2, 5, 0, 5, 8]))
    scores, ids = popular.best(3)
    assert ids.tolist() == [4, 1, 3]
    np.testing.assert_array_equal(scores, np.array([8, 5, 5], dtype=np.float32) / np.float32(20))
    # 9 was added since, and has no count.
    assert popular.best(3, allow=np.array([3, 0, 9]))[1].tolist() == [3, 0, -1]
    assert popular.best(2, deny=np.array([4, 9, 1]))[1].tolist() == [3, 0]
    assert popular.best(5, there=np.array([0, 2, 3, 9]))[1].tolist() == [3, 0, 2, -1, -1]
    scores, ids = popular.best(2, np.array([1, 4]), np.array([4]), np.array([0, 1]))
    assert (ids.tolist(), scores.tolist()) == ([1, -1], [0.25, -np.inf])
