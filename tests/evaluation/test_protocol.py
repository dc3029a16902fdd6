import json
from typing import Any

import pytest

from recsys.errors import ArgumentError
from recsys.evaluation.card import protocol_card, render_card
from recsys.evaluation.protocol import PROTOCOLS, Protocol, get_protocol
from recsys.evaluation.targets import select_targets


def test_presets_follow_their_sources() -> None:
    assert set(PROTOCOLS) == {"default", "recbole", "rectools", "sasrec", "gsasrec", "s3rec"}
    assert get_protocol("default").ties == "pessimistic"
    assert get_protocol("recbole").seen == "kept"
    rectools = get_protocol("rectools")
    assert (rectools.targets, rectools.seen_targets, rectools.ndcg_ideal) == ("all", "dropped", "constant")
    sasrec = get_protocol("sasrec")
    assert (sasrec.n_negatives, sasrec.min_events, sasrec.max_users) == (100, 4, 10_000)
    assert get_protocol("gsasrec").max_valid_users == 512
    assert (get_protocol("s3rec").seen, get_protocol("s3rec").seen_targets) == ("removed", "missed")


def test_only_sampled_protocols_warn() -> None:
    assert [name for name, preset in PROTOCOLS.items() if preset.warning] == ["sasrec"]


def test_a_protocol_stands_for_itself() -> None:
    mine = Protocol(name="mine", split="temporal", ties="average")
    assert get_protocol(mine) is mine


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match="'recball' is not known: choose one of default, recbole"):
        get_protocol("recball")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", "last"),
        ("seen", "hidden"),
        ("seen_targets", "hidden"),
        ("ties", "random"),
        ("ndcg_ideal", "best"),
        ("n_negatives", 0),
        ("max_users", 0),
        ("max_valid_users", -1),
        ("min_events", -1),
    ],
)
def test_a_value_outside_the_allowed_ones_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"protocol {field}="):
        Protocol(name="x", split="any", **{field: value})


META = {
    "source": {"file": "log.parquet", "sha256": "ab12"},
    "split": "leave-one-out",
    "tie_share": 0.44,
    "cold_items": 3,
    "cold_events": 9,
}


def test_the_card_says_how_the_figures_were_made(make_store: Any) -> None:
    store = make_store([([1, 2], [3], [1]), ([], [], [1]), ([1], [], [])], 5, META)
    card = protocol_card(get_protocol("rectools"), META, select_targets(store), n_items=5)
    assert json.loads(json.dumps(card)) == card
    assert card["file"] == "log.parquet"
    assert card["sha256"] == "ab12"
    assert card["split"] == "leave-one-out"
    assert card["tie_share"] == 0.44
    assert card["users_counted"] == 1
    assert card["repeated_targets"] == 1
    assert card["users_not_counted"]["no history before it"] == 1
    assert card["users_not_counted"]["no event in the segment"] == 1


def test_the_card_as_text_has_what_a_reader_needs(make_store: Any) -> None:
    store = make_store([([1, 2], [3], [1]), ([], [], [1])], 5, META)
    card = protocol_card(get_protocol("sasrec"), META, select_targets(store, min_events=4), n_items=5, seed=7)
    text = render_card(card)
    for words in (
        "log.parquet",
        "ab12",
        "leave-one-out, test segment",
        "100 uniform negatives (5 items in the catalog)",
        "average",
        "1 of 1 users",
        "1 users with fewer than 4 events",
        "44.0% of users",
        "3 dropped with 9 events",
        "Seed:         7",
        "never beside a full ranking",
    ):
        assert words in text


def test_what_is_not_known_is_left_out_of_the_text(make_store: Any) -> None:
    store = make_store([([1, 2], [3], [1])], 5)
    text = render_card(protocol_card(get_protocol("default"), {}, select_targets(store), n_items=5))
    assert "None" not in text
    assert "sha256" not in text
    assert "split not recorded" in text.lower() or "not recorded, test segment" in text
