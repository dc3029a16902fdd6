"""Services that are compared take turns."""

from recsys.benchmarks.serving.compare import in_turn


def test_every_other_round_is_the_other_way_around() -> None:
    assert [in_turn("abc", number) for number in range(3)] == ["abc", "cba", "abc"]
