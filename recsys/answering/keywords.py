"""Calls with the names that other libraries use: one line that says what is meant here."""

import difflib
import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, TypeVar

from recsys.config import OTHER_NAMES, RECBOLE_ALIASES
from recsys.errors import KeywordError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_MEANT = {
    "k": ("N", "n", "K", "topk", "top_k", "topn", "top_n", "num_items", "limit", "n_recommendations"),
    "ks": ("k", "topk", "top_k", "cutoffs", "metrics"),
    "users": ("user", "user_id", "user_ids", "userid", "uid_series"),
    "histories": ("history", "sequence", "sequences", "session", "sessions", "item_seq", "interactions"),
    "items": ("item", "item_id", "item_ids", "itemid", "target_items"),
    "ids": ("items", "item", "item_id", "item_ids"),
    "exclude_seen": (
        *("filter_viewed", "filter_already_liked_items", "filter_seen", "filter_seen_items", "remove_seen"),
        *("remove_seen_items", "include_seen"),
    ),
    "allow": ("items_to_recommend", "whitelist", "allowed", "allowed_items", "candidates", "items"),
    "deny": ("filter_items", "blacklist", "exclude", "exclude_items", "denied", "denied_items"),
    "category": ("categories", "genre", "genres"),
    "times": ("timestamps", "timestamp", "history_times"),
    "timestamp": ("time", "at", "when"),
    "at": ("time", "when", "now", "request_time", "timestamp"),
    "time_zone": ("timezone", "tz", "zone"),
    "on_unknown": ("on_unsupported_targets", "errors", "on_error"),
    "part_users": ("batch_size", "chunk_size"),
    "out": ("path", "folder", "output", "output_dir", "checkpoint_dir", "saved_dir"),
    "data": ("dataset", "interactions", "train", "train_data", "log", "df", "X"),
    "quiet": ("verbose", "show_progress"),
    "device": ("accelerator", "gpu_id", "use_gpu"),
    "encoder": ("model", "model_name"),
}
"""Our arguments, and what RecTools, RecBole, implicit and others call them; where a function has them."""

_LEFT_OUT = {
    "dataset": "the model knows its log",
    "user_items": "the model knows its log",
    "add_rank_col": "the frame has ranks",
    "recalculate_user": "a history is encoded at every call",
}


def hinted(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let calls with arguments that the function does not have say which of its own is meant.

    Args:
        function: a method.

    Raises:
        KeywordError: by the function returned: an unknown argument, too many by place, or one is missing.
    """
    signature = inspect.signature(function)
    known = signature.parameters
    by_place = [p.name for p in known.values() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    needed = [p.name for p in known.values() if p.default is inspect.Parameter.empty]

    @functools.wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not kwargs.keys() <= known.keys():
            unknown = next(key for key in kwargs if key not in known)
            raise KeywordError(
                f"{_called(function)} has no argument {unknown!r}{_hint(unknown, known.keys())}"
            )
        if len(args) > len(by_place):
            raise KeywordError(
                f"{_called(function)} takes {' and '.join(by_place[1:]) or 'nothing'} by place: name the "
                f"others, as in {next(name for name in known if name not in by_place)}=..."
            )
        missing = [name for name in needed[len(args) :] if name not in kwargs]
        if missing:
            raise KeywordError(f"{_called(function)} needs {missing[0]}: pass {missing[0]}=...")
        return function(*args, **kwargs)

    return checked


def _called(function: Callable[..., Any]) -> str:
    owner, _, name = function.__qualname__.rpartition(".")
    return f"{owner}()" if name == "__init__" else f"{name}()"


def _hint(unknown: str, known: Collection[str]) -> str:
    for own, others in _MEANT.items():
        if own in known and unknown in others:
            return f": {own}= is meant"
    if unknown in _LEFT_OUT:
        return f": leave it out, {_LEFT_OUT[unknown]}"
    section, _, field = (OTHER_NAMES.get(unknown) or RECBOLE_ALIASES.get(unknown) or "").partition(".")
    if f"{section}_options" in known:
        return f": write {section}_options={{{field!r}: ...}}"
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)
    return f": {near[0]}= is meant" if near else f"; it has {', '.join(n for n in known if n != 'self')}"
