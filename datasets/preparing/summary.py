"""What became of a log's rows, as lines to print: what was dropped, merged or left without training."""

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.event_options import LOCAL_HOUR


def summary(store: SequenceStore) -> list[str]:
    """Lines on what was dropped and what is strange; those with nothing to say are left out."""
    meta = store.meta
    removed, split, counts = meta.get("removed", {}), meta.get("split", {}), meta.get("counts", {})
    lines = []
    if removed.get("events"):
        lines.append(
            f"dropped for too few events: {removed['events']:,} events ({removed['users']:,} users,"
            f" {removed['items']:,} items)"
        )
    if split.get("later_events_left_out"):
        lines.append(f"left out after the fold's test events: {split['later_events_left_out']:,} events")
    if split.get("cold_events"):
        lines.append(
            f"dropped as cold: {split['cold_events']:,} events of {split['cold_items']:,} items without a"
            f" training event ({split['cold_users']:,} users with them)"
        )
    if counts.get("duplicate_events"):
        lines.append(
            f"kept: {counts['duplicate_events']:,} events that repeat user, item and time of another"
        )
    if store.untrained_users:
        lines.append(f"users without a training event: {store.untrained_users:,}")
    if meta.get("options", {}).get("items_sha256") is not None:
        lines.append(
            f"items found in the item file: {counts.get('items_with_metadata', 0):,} of {store.n_items:,}"
        )
    if split.get("cold_events_kept"):
        lines.append(f"kept as cold: {split['cold_events_kept']:,} events of items without a training event")
    if "untrained_items" in counts:
        lines.append(f"items without a training event: {counts['untrained_items']:,} of {store.n_items:,}")
    if "tags" in counts:
        lines.append(f"tags: {counts['tags']:,}, of {counts['items_with_tags']:,} items")
    columns = store.event_columns
    for what, described in (
        ("event", () if columns is None else columns.events),
        ("request", () if columns is None else columns.requests),
        ("user", () if columns is None else columns.users),
    ):
        words = [column.described() for column in described]
        if LOCAL_HOUR in (meta.get("options", {}).get(f"{what}_columns") or ()):
            words.append(f"{LOCAL_HOUR} (24 hours)")
        if words:
            lines.append(f"{what} columns: {', '.join(words)}")
    if "users_in_file" in counts:
        lines.append(f"users found in the users file: {counts['users_in_file']:,} of {store.n_users:,}")
    for name, changed in counts.get("users_of_several_values", {}).items():
        lines.append(f"users of several values of {name} in training, of which the last counts: {changed:,}")
    if "target_events" in counts:
        lines.append(
            f"events to predict: {counts['target_events']:,} of {store.n_events:,}; the others are context"
        )
    if "slates" in counts:
        unknown = counts["shown_unknown"]
        lines.append(
            f"slates: of {counts['slates']:,} events, and {counts['passed_slates']:,} of which nothing was"
            " taken"
            + (f"; {unknown:,} items in them that the log does not have are left out" if unknown else "")
        )
    if "noise_events" in counts:
        lines.append(
            f"not read as noise: {counts['noise_events']:,} of {counts['noise_of_events']:,} training events;"
            f" {counts.get('unread_targets', 0):,} of them are predicted"
        )
    if "vector_width" in counts:
        lines.append(f"vectors of {counts['vector_width']:,}: of {counts['items_with_vectors']:,} items")
    return lines


def parts_line(store: SequenceStore) -> str:
    """One line on the split: its name, and events and users by part."""
    split = store.meta.get("split", {})
    known = {name: split.get(f"{name}_events") for name in ("train", "valid", "test")}
    counts = ", ".join(f"{count:,} {name}" for name, count in known.items() if count is not None)
    tested = f"{split.get('test_users', 0):,} users tested"
    return f"split: {store.meta['options']['split']} ({counts} events; {tested})"
