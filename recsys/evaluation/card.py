"""The protocol card: everything a reader needs to set a figure beside another, as data and as text."""

from collections.abc import Mapping
from typing import Any

from recsys.datasets.prepared.item_features import ItemFeatures
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.targets import EvaluationTargets

_TIES = {
    "pessimistic": "pessimistic (behind every equal score)",
    "optimistic": "optimistic (before every equal score)",
    "average": "average (mean of first and last place among equal scores)",
}


def protocol_card(
    protocol: Protocol,
    meta: Mapping[str, Any],
    targets: EvaluationTargets,
    *,
    n_items: int,
    seed: int = 0,
    features: ItemFeatures | None = None,
) -> dict[str, Any]:
    """Describe how the figures of one report were made.

    Args:
        protocol: the choices.
        meta: the prepared log's meta.json; what it does not say is None here.
        targets: the rows that were ranked.
        n_items: size of the catalog.
        seed: seed of sampled users and negatives.
        features: by which lists were looked at.

    Returns:
        A dict of plain values: JSON in `report.json`, text by `render_card`.
    """
    source = _mapping(meta.get("source"))
    counts = _mapping(meta.get("counts"))
    options = _mapping(meta.get("options"))
    split = _mapping(meta.get("split"))
    split_name = split.get("name") or options.get("split") or _text(meta.get("split"))

    def find(*names: str) -> Any:
        for place in (meta, split, counts, source):
            for name in names:
                if place.get(name) is not None:
                    return place[name]
        return None

    return {
        "protocol": protocol.name,
        "file": source.get("file") or source.get("name") or _text(meta.get("source")),
        "sha256": source.get("sha256") or meta.get("source_sha256"),
        "split": split_name,
        "split_expected": protocol.split,
        "segment": targets.split,
        "targets": {
            "next": "the first event of each user's segment",
            "all": "each distinct item of the segment",
        }[targets.mode],
        "candidates": protocol.candidates,
        "catalog_items": n_items,
        "seen_items": f"{protocol.seen} in the headline" + ("" if protocol.sampled else ", both reported"),
        "ties": _TIES[protocol.ties],
        "ndcg_ideal": {
            "achievable": "min(targets, k) places (standard)",
            "constant": "always k places (RecTools' default)",
        }[protocol.ndcg_ideal],
        "users_counted": targets.n_users,
        "targets_counted": targets.n_rows,
        "users_not_counted": {
            "no event in the segment": targets.without_segment,
            "no history before it": targets.without_history,
            **({"context alone in the segment": targets.without_targets} if targets.without_targets else {}),
            f"fewer than {protocol.min_events} events": targets.below_min_events,
            "every target already seen": targets.users_dropped_seen,
        },
        "seen_targets_dropped": targets.seen_targets_dropped,
        "seen_targets_missed": int(targets.repeated.sum()) if protocol.seen_targets == "missed" else 0,
        "repeated_targets": int(targets.repeated.sum()),
        "tie_share": find("tie_share"),
        "tie_orders": None,
        "list_features": None if features is None else _list_features(features),
        "cold_items_dropped": find("cold_items"),
        "cold_events_dropped": find("cold_events"),
        "cold_items_kept": find("untrained_items"),
        "parent": None,
        "seed": seed if protocol.sampled or protocol.max_users or protocol.max_valid_users else None,
        "notes": list(protocol.notes),
        "warning": protocol.warning,
    }


def render_card(card: Mapping[str, Any]) -> str:
    """Write a card as lines of plain text, leaving out what is unknown or zero."""
    tie_share = card["tie_share"]
    lines = [
        ("Protocol", card["protocol"]),
        ("File", card["file"]),
        ("sha256", card["sha256"]),
        ("Split", f"{card['split'] or 'not recorded'}, {card['segment']} segment"),
        ("Targets", f"{card['targets']}: {card['targets_counted']:,} of {card['users_counted']:,} users"),
        ("Candidates", f"{card['candidates']} ({card['catalog_items']:,} items in the catalog)"),
        ("Seen items", card["seen_items"]),
        ("Ties", card["ties"]),
        ("Ideal DCG", card["ndcg_ideal"]),
        (
            "Not counted",
            ", ".join(
                f"{count:,} users with {why}" for why, count in card["users_not_counted"].items() if count
            ),
        ),
        (
            "Seen targets",
            f"{card['seen_targets_dropped']:,} left out"
            if card["seen_targets_dropped"]
            else f"{card['seen_targets_missed']:,} missed where seen items are removed"
            if card.get("seen_targets_missed")
            else "",
        ),
        (
            "Repeats",
            f"{card['repeated_targets']:,} targets are in their history" if card["repeated_targets"] else "",
        ),
        ("File order", None if tie_share is None else f"decides the target of {tie_share:.1%} of users"),
        ("Tie orders", _tie_orders(card.get("tie_orders"))),
        ("Lists", card.get("list_features")),
        (
            "Cold items",
            f"{card['cold_items_dropped']:,} dropped with {card['cold_events_dropped'] or 0:,} events"
            if card["cold_items_dropped"]
            else f"{card['cold_items_kept']:,} of the catalog have no training event"
            if card.get("cold_items_kept")
            else "",
        ),
        ("Seed", card["seed"]),
        ("Goes on from", _parent(card.get("parent"))),
        *(("Note", note) for note in card["notes"]),
        ("Warning", card["warning"]),
    ]
    return "\n".join(f"{name + ':':<13} {value}" for name, value in lines if value not in (None, ""))


def _list_features(features: ItemFeatures) -> str:
    """By what the lists' diversity and calibration are told."""
    parts = []
    if features.n_tags:
        parts.append(f"diversity and calibration by {features.n_tags:,} tags")
    if features.vectors is not None:
        parts.append(f"diversity by vectors of {features.vector_width:,} numbers")
    return ", ".join(parts)


def _tie_orders(facts: Mapping[str, Any] | None) -> str | None:
    if facts is None:
        return None
    text = f"mean of {facts['orders']}; {facts['several_targets']:.1%} of users have several possible targets"
    if facts["ties_reach_training"]:
        text += f", of {facts['ties_reach_training']:.1%} tied training events stay in the history"
    return text


def _parent(account: Mapping[str, Any] | None) -> str | None:
    if account is None:
        return None
    items = account["items"]
    return (
        f"{account['path']} (sha256 {account['sha256'][:12]}), trained for {account['epochs']:,} epochs: "
        f"{items['known']:,} of its items are known, {items['new']:,} new, {items['gone']:,} gone"
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
