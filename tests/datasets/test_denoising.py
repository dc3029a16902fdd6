"""What is dropped as noise: by hand, and on a log into which it was planted."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.denoising import noise
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.preparing.summary import summary
from recsys.errors import ArgumentError, DataError

# Around a circle in degrees; 9 is nowhere.
ANGLES = [0, 20, 40, 60, 180, 190, 90, 270, 300]
VECTORS = np.array([[np.cos(np.radians(a)), np.sin(np.radians(a))] for a in ANGLES] + [[0, 0]], np.float32)


@pytest.mark.parametrize(
    ("items", "lost"),
    [
        ([0, 1, 2, 4, 5], {4, 5}),  # 0 and 2 hang together by 1
        ([0, 2, 4, 5], {0, 2}),  # without it they do not
        ([0, 1, 4, 5], set()),  # two groups of one size
        ([0, 2, 4], set()),  # nothing is joined
        ([4, 4, 4, 0, 1], {4}),  # groups are of items, not of events
        ([0, 1, 2, 9, 4], {4}),  # nothing is known of 9
        ([9], set()),
        ([3, 2, 1, 0, 6, 7, 8], {6, 7, 8}),
    ],
)
def test_events_outside_the_largest_group_are_noise(items: list[int], lost: set[int]) -> None:
    # 0.93 is 21.6 degrees.
    before = [5, 5, 5]
    found = noise(np.array(before + items, np.int32), np.array([0, 3, 3 + len(items)]), VECTORS, 0.93)
    assert not found[:3].any()
    assert {item for item, out in zip(items, found[3:], strict=True) if out} == lost


def test_a_chain_longer_than_a_block_hangs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.datasets.preparing.denoising._AT_ONCE", 3)
    angles = np.radians(np.append(np.arange(0, 100, 2), 200))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    order = np.random.default_rng(0).permutation(51).astype(np.int32)
    found = noise(order, np.array([0, 51]), vectors, 0.999)
    assert order[found].tolist() == [50]


def planted() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """A log of users with a group of items each and 30% foreign ones among their training events; the same
    without them; and the items.
    """
    rng = np.random.default_rng(4)
    noisy, clean = [], []
    for user in range(150):
        group, time = user % 15, 1_600_000_000
        own = list(rng.permutation(20)[:12])
        for place, member in enumerate(own):
            time += 60
            clean.append((user, group * 20 + int(member), time))
            noisy.append(clean[-1])
            # Of other groups, each another one, so that they are never the largest; none among the last two.
            if place < 10 and rng.random() < 0.43:
                foreign = (group + 1 + place) % 15 * 20 + int(rng.integers(20))
                noisy.append((user, foreign, time + 30))
        # What is held out may be foreign, and stays.
        clean[-1] = noisy[-1] = (user, (group + 5) % 15 * 20, time)
    schema = ["user_id", "item_id", "timestamp"]
    items = pl.DataFrame({"item_id": range(300), "kind": [f"k{item // 20}" for item in range(300)]})
    noisy_log, clean_log = (pl.DataFrame(rows, schema=schema, orient="row") for rows in (noisy, clean))
    return noisy_log, clean_log, items


def events(store: SequenceStore) -> list[Any]:
    arrays = (store.items, store.timestamps, store.offsets, store.valid_start, store.test_start)
    return [None if array is None else array.tolist() for array in arrays]


def test_what_was_planted_is_dropped_and_nothing_else(tmp_path: Path) -> None:
    noisy, clean, items = planted()
    assert 0.25 < 1 - clean.height / noisy.height < 0.35
    options: dict[str, Any] = {"items": items, "item_tags": "kind"}
    filtered = prepare(noisy, tmp_path / "filtered", denoise=0.3, **options)
    expected = prepare(clean, tmp_path / "clean", **options)
    assert events(filtered) == events(expected)
    dropped = noisy.height - clean.height
    assert filtered.unread is not None
    assert (
        f"not read as noise: {dropped:,} of {noisy.height - 300:,} training events;"
        f" {len(filtered.unread.items)} of them are predicted" in summary(filtered)
    )
    assert filtered.meta["options"]["denoise"] == 0.3
    assert "denoise" not in expected.meta["options"]


def test_what_is_not_read_is_predicted(tmp_path: Path) -> None:
    # Training events are all but the last two of each user; 7, 8 and 9 are unlike the items of either.
    rows = [
        *((0, item) for item in (9, 0, 1, 8, 7, 2, 9, 3, 3)),
        *((1, item) for item in (4, 8, 7, 5, 6, 9, 4)),
    ]
    rows += [(2, item) for item in (9, 8, 7, 7, 7)]
    log = pl.DataFrame(
        [
            (user, item, 1_600_000_000 + t, t / 4, "buy" if item != 7 else "view")
            for t, (user, item) in enumerate(rows)
        ],
        schema=["user", "item", "ts", "w", "kind"],
        orient="row",
    )
    items = pl.DataFrame({"item_id": range(10), "tag": list("aaaabbbcde")})
    options: dict[str, Any] = {"items": items, "item_tags": "tag", "denoise": 0.5}
    store = prepare(log, tmp_path / "data", **options)
    assert [store.history(user, "all").tolist() for user in range(3)] == [
        [0, 1, 2, 3, 3],
        [4, 5, 6, 9, 4],
        [9, 8, 7, 7, 7],
    ]
    assert store.unread is not None
    found = store.unread
    assert found.weights is None
    by_place = [
        (int(store.items[before]), int(item)) for item, before in zip(found.items, found.before, strict=True)
    ]
    assert by_place == [(2, 8), (2, 7), (5, 8), (5, 7)]
    weighted = prepare(log, tmp_path / "w", weight_column="w", target_where="kind=buy", **options)
    assert weighted.unread is not None
    assert weighted.unread.items.tolist() == [8, 8]
    assert weighted.unread.weights is not None
    assert weighted.unread.weights.tolist() == [0.75, 2.5]
    other = store.renumbered(np.arange(10, dtype=np.int32)[::-1].copy(), 10)
    assert other.unread is not None
    assert other.unread.items.tolist() == [1, 2, 1, 2]
    np.save(store.path / "unread_before.npy", found.before[::-1].copy())
    with pytest.raises(DataError, match=r"unread_before.npy: no 4 places that rise within"):
        SequenceStore.open(store.path, verify=False)


def test_items_that_nobody_took_stay_in_the_catalog(tmp_path: Path) -> None:
    noisy, _, items = planted()
    cold = pl.DataFrame({"item_id": [-7, 155_000], "kind": ["k3", "k4"]}, schema=items.schema)
    plain = prepare(noisy, tmp_path / "plain", items=items, item_tags="kind", denoise=0.3)
    store = prepare(
        noisy,
        tmp_path / "cold",
        items=pl.concat([items, cold]),
        item_tags="kind",
        denoise=0.3,
        keep_cold=True,
    )
    ids = pl.read_parquet(store.path / "items.parquet")["item_id"].to_list()
    assert {-7, 155_000} < set(ids)
    assert store.n_events == plain.n_events
    assert store.unread is not None
    assert plain.unread is not None
    assert len(plain.unread.items)
    of_plain = pl.read_parquet(plain.path / "items.parquet")["item_id"].to_list()
    assert [ids[item] for item in store.unread.items] == [of_plain[item] for item in plain.unread.items]
    assert [ids[item] for item in store.items] == [of_plain[item] for item in plain.items]


def test_an_item_keeps_its_only_training_events(tmp_path: Path) -> None:
    # Item 3 is unlike the others, and tested; no other user trains on it.
    rows = [(0, 0), (0, 1), (0, 3), (0, 2), (0, 1), (0, 0), (1, 1), (1, 2), (1, 4), (1, 0), (1, 3), (1, 3)]
    rows += [(2, 4), (2, 5), (2, 5), (2, 4)]
    log = pl.DataFrame(
        [(*row, 1_600_000_000 + t) for t, row in enumerate(rows)], schema=["user", "item", "ts"], orient="row"
    )
    items = pl.DataFrame({"item_id": range(6), "kind": ["a", "a", "a", "b", "c", "c"]})
    store = prepare(log, tmp_path / "data", items=items, item_tags="kind", denoise=0.5)
    assert [store.train_sequence(user).tolist() for user in range(3)] == [[0, 1, 3, 2], [1, 2, 0], [4, 5]]
    assert store.history(1, "all").tolist() == [1, 2, 0, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"denoise": 0.3}, "denoise=0.3 compares items by their features: pass item_tags="),
        ({"denoise": -0.1, "item_tags": "kind"}, "denoise=-0.1 is out of range"),
        ({"denoise": 1.0, "item_tags": "kind"}, "denoise=1.0 is out of range"),
        ({"denoise": 0.3, "item_tags": "kind", "shards": 2}, "denoise= is done for one dataset alone"),
    ],
)
def test_what_cannot_be_denoised_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    noisy, _, items = planted()
    with pytest.raises(ArgumentError, match=message):
        prepare(noisy, tmp_path / "data", items=items, **options)
    assert not (tmp_path / "data").exists()
