"""How a recommender shows itself: what was asked for, and what was fitted."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from recsys.config import parameters_of, to_dict
from recsys.encoders.registry import differing_from_preset, preset
from recsys.errors import ConfigError
from recsys.notebook.html import html_table

__all__ = ["describe", "describe_html"]

_SHOWN = 6
"""Entries of options that are shown; a loaded model's options are all that its encoder has."""


def describe(model: Any) -> str:
    """One line: the parameters that differ from their defaults, and what the model was fitted on."""
    given = [repr(model.encoder)] + [f"{name}={_short(value)}" for name, value in _changed(model).items()]
    text = f"{type(model).__name__}({', '.join(given)})"
    facts = _facts(model)
    return f"{text} fitted on {facts['fitted on']}; {facts['training']}" if facts else f"{text}, not fitted"


def describe_html(model: Any) -> str:
    """The same as a table."""
    rows = [(name, _short(value)) for name, value in _changed(model).items()]
    facts = _facts(model) or {"fitted on": "nothing yet"}
    return html_table(f"{type(model).__name__} {model.encoder}", (), [*rows, *facts.items()])


def _changed(model: Any) -> dict[str, Any]:
    """Parameters other than the encoder's name that are not at their defaults."""
    defaults = {name: p.default for name, p in inspect.signature(type(model).__init__).parameters.items()}
    found = {
        name: value
        for name, value in parameters_of(model, deep=False).items()
        if name != "encoder" and value is not defaults[name] and value != defaults[name]
    }
    try:
        if found.get("encoder_options"):
            options = found["encoder_options"]
            found["encoder_options"] = differing_from_preset(model.encoder, model.preset, options)
        if found.get("training_options"):
            own = preset(model.encoder, model.preset).get("training", {})
            options = found["training_options"]
            # Those of a loaded model are all that there are: shown is what the preset has otherwise.
            whole = len(options) == len(fields(model.training_)) if hasattr(model, "training_") else False
            base = {**to_dict(type(model.training_)()), **own} if whole else {}
            found["training_options"] = {k: v for k, v in options.items() if k not in base or base[k] != v}
    except ConfigError:
        found = {**found, **_given(model)}  # what is wrong with it is said by what uses it
    return {name: value for name, value in found.items() if value != {}}


def _given(model: Any) -> dict[str, Any]:
    options = {name: getattr(model, name) for name in ("encoder_options", "training_options")}
    return {name: value for name, value in options.items() if value}


def _facts(model: Any) -> dict[str, str]:
    if not hasattr(model, "encoder_"):
        return {}
    store = model.store_
    sizes = f"{store.n_users:,} users, {store.n_items:,} items, {store.n_events:,} events"
    parameters = sum(p.numel() for p in model.encoder_.parameters())
    return {
        "fitted on": f"{store.name} ({sizes})",
        "training": model.history_.summary(),
        "parameters": f"{parameters:,}",
    }


def _short(value: object) -> str:
    if not isinstance(value, Mapping):
        return repr(value)
    entries = [f"{key!r}: {inner!r}" for key, inner in value.items()]
    more = [f"… {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
    return "{" + ", ".join(entries[:_SHOWN] + more) + "}"
