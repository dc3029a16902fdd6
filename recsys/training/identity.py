"""By what a checkpoint knows its run, and how checkpoints of earlier versions are read.

``state.json`` carries the version of its layout under ``format``. A change of the layout, or a new setting,
raises `VERSION` by one and adds one function to `STEPS`, which makes the next version of a state; a new
setting is given the value by which checkpoints before it were trained. Nothing else knows of old versions.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import RunError

VERSION = 9
RESUMABLE = ("epochs", "patience", "prefetch")
"""Settings that may change when a run goes on: the first two say how far, the last changes nothing."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What must be equal for a checkpoint to be resumed.

    Attributes:
        encoder: its class's name under ``class``, and all settings.
        training: all settings.
        dataset: fingerprint of the prepared data.
        loss: the loss in use; "auto" may mean another one on another device.
    """

    encoder: Mapping[str, Any]
    training: Mapping[str, Any]
    dataset: str
    loss: str


def may_change(training: Mapping[str, Any]) -> tuple[str, ...]:
    """Training settings that do not decide the steps taken so far.

    A rate that falls until the last epoch was another one if there are more.
    """
    return RESUMABLE if training.get("schedule", "constant") == "constant" else RESUMABLE[1:]


def refuse_another(folder: Path, found: Identity, asked: Identity) -> None:
    """Compare a checkpoint with the run that wants to go on.

    Raises:
        RunError: they differ; the message names the first setting that does.
    """
    free = may_change(found.training)
    for what, here, wanted, ignored in (
        ("encoder configuration", found.encoder, asked.encoder, ()),
        ("training configuration", found.training, asked.training, free),
    ):
        other = next(
            (n for n in {**wanted, **here} if n not in ignored and here.get(n) != wanted.get(n)), None
        )
        if other is not None:
            detail = f" ({other} = {here[other]!r}, not {wanted.get(other)!r})" if other in here else ""
            raise RunError(
                f"{folder}: the checkpoint was made with another {what}{detail}; resume with the same one, "
                "or choose another out= folder"
            )
    for what in ("dataset", "loss"):
        if getattr(found, what) != getattr(asked, what):
            raise RunError(
                f"{folder}: the checkpoint was made with another {what}; resume with the same one, or "
                "choose another out= folder"
            )


def recorded_encoder(state: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Which encoder a state of any version was made by.

    Args:
        state: contents of a ``state.json``.
        settings: by an encoder's name what its identity would be; asked only where the name is not recorded.
    """
    if state["format"] != 1:
        return state["notes"].get("encoder")  # type: ignore[no-any-return]
    found = state["fingerprint"]["encoder configuration"]
    return next((name for name, asked in settings.items() if _digest_1(asked) == found), None)


def recorded_loss(state: Mapping[str, Any]) -> str:
    """The loss that a state of any version was trained with.

    Raises:
        KeyError: the file is damaged.
    """
    return str(state["fingerprint" if state["format"] == 1 else "identity"]["loss"])


def upgraded(state: dict[str, Any], path: Path, asked: Identity) -> dict[str, Any]:
    """A state as this version writes it.

    Args:
        state: contents of a ``state.json``.
        path: of that file, for messages.
        asked: the run that wants to go on, which a digest can only be compared with.

    Raises:
        RunError: the version is not known.
        KeyError, TypeError: the file is damaged.
    """
    version = state["format"]
    if version not in (*STEPS, VERSION):
        raise RunError(f"{path}: checkpoint format {version} is not known here; train anew, or update recsys")
    while version != VERSION:
        state = STEPS[version](state, asked)
        version = state["format"]
    return state


def _from_1(state: dict[str, Any], asked: Identity) -> dict[str, Any]:
    """Version 1 kept digests of settings; where they are those of the asked ones, these were meant."""
    found: Mapping[str, str] = state["fingerprint"]
    same = {
        "encoder": found["encoder configuration"] == _digest_1(asked.encoder),
        "training": found["training configuration"] == _digest_1(asked.training),
    }
    kept = {part: dict(getattr(asked, part)) if same[part] else {} for part in same}
    identity = {**kept, "dataset": found["dataset"], "loss": found["loss"]}
    return {**state, "format": 2, "identity": identity, "notes": {}}


_LATER_1 = {
    "tie_items": True,
    "norm": "layer",
    "feed_forward": "block",
    "schedule": "constant",
    "repeat_bias": 0,
    "repeat_by": "last",
    "select": "ndcg@10",
    "item_parts": "id",
    "item_id_dropout": 0.0,
    "item_projection": "linear",
    "shard_items": False,
    "substitute": 0.0,
    "substitute_by": "beside",
    "propensity_power": 0.0,
    "event_columns": [],
    "request_columns": [],
    "column_dropout": 0.1,
    "user_columns": [],
    "user_column_dropout": 0.5,
    "no_click": False,
    "item_sum": False,
}
"""Settings that came since version 1 was begun, and the values at which its digests leave them out."""


def deciding_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that version 1 digested, by which runs of benchmarks are named still.

    What may change on the way is left out, and what came later where it changes nothing.
    """
    return {
        key: value
        for key, value in settings.items()
        if key not in may_change(settings) and not (key in _LATER_1 and value == _LATER_1[key])
    }


def _digest_1(settings: Mapping[str, Any]) -> str:
    deciding = deciding_settings(settings)
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _from_2(state: dict[str, Any], asked: Identity) -> dict[str, Any]:
    """Version 2 knew items by their ids alone."""
    ids_alone = {"item_parts": "id", "item_id_dropout": 0.0, "item_projection": "linear"}
    identity: Mapping[str, Any] = state["identity"]
    encoder = {**ids_alone, **identity["encoder"]} if identity["encoder"] else {}
    return {**state, "format": 3, "identity": {**identity, "encoder": encoder}}


def _from_3(state: dict[str, Any], asked: Identity) -> dict[str, Any]:
    """Version 3 had whole item tables alone."""
    identity: Mapping[str, Any] = state["identity"]
    training = {"shard_items": False, **identity["training"]} if identity["training"] else {}
    return {**state, "format": 4, "items": [], "identity": {**identity, "training": training}}


def _from_4(state: dict[str, Any], asked: Identity) -> dict[str, Any]:
    """Version 4 trained on the items that were there."""
    as_they_are = {"substitute": 0.0, "substitute_by": "beside"}
    identity: Mapping[str, Any] = state["identity"]
    training = {**as_they_are, **identity["training"]} if identity["training"] else {}
    return {**state, "format": 5, "identity": {**identity, "training": training}}


def _from_5(state: dict[str, Any], asked: Identity) -> dict[str, Any]:
    """Version 5 read no columns of events, let targets count alike, and may lack what repeats are by."""
    none = {"event_columns": [], "request_columns": [], "column_dropout": 0.1, "repeat_by": "last"}
    identity: Mapping[str, Any] = state["identity"]
    encoder = {**none, **identity["encoder"]} if identity["encoder"] else {}
    training = {"propensity_power": 0.0, **identity["training"]} if identity["training"] else {}
    return {**state, "format": 6, "identity": {**identity, "encoder": encoder, "training": training}}


def _from_6(state: dict[str, Any], asked: Identity) -> dict[str, Any]:
    """Version 6 read no columns of users."""
    none = {"user_columns": [], "user_column_dropout": 0.5}
    identity: Mapping[str, Any] = state["identity"]
    encoder = {**none, **identity["encoder"]} if identity["encoder"] else {}
    return {**state, "format": 7, "identity": {**identity, "encoder": encoder}}


def _from_7(state: dict[str, Any], asked: Identity) -> dict[str, Any]:
    """Version 7 knew nothing of what was shown and not taken."""
    identity: Mapping[str, Any] = state["identity"]
    encoder = {"no_click": False, **identity["encoder"]} if identity["encoder"] else {}
    return {**state, "format": 8, "identity": {**identity, "encoder": encoder}}


def _from_8(state: dict[str, Any], asked: Identity) -> dict[str, Any]:
    """Version 8 summed no items."""
    identity: Mapping[str, Any] = state["identity"]
    encoder = {"item_sum": False, **identity["encoder"]} if identity["encoder"] else {}
    return {**state, "format": 9, "identity": {**identity, "encoder": encoder}}


STEPS: Mapping[int, Callable[[dict[str, Any], Identity], dict[str, Any]]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
    7: _from_7,
    8: _from_8,
}
