"""Recommendations for all users of a log as Parquet parts, resumable, of any number of users.

    scoring.json                     what is being scored: model, index, filters, users
    part-00000-of-00012.parquet      user_id, item_id, score, rank (, title), source
    _SUCCESS                         written last: rows and sha256 of every part

A part is written beside its place and renamed, so one that is there is whole; a call that was cut short finds
what it did and goes on. Parts do not depend on each other: a cluster may give each worker its own.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.answering.answers import QueryOptions, answer
from recsys.answering.arguments import id_list, whole_number
from recsys.answering.interests import check_interests
from recsys.answering.names import Names
from recsys.answering.queries import Array, encode_denied, encode_items, of_rows
from recsys.answering.request_times import moment_list
from recsys.answering.requests import asked, zone_of
from recsys.console.progress import track
from recsys.datasets.prepared.writer import write_parquet
from recsys.decoding.decoder import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError, RunError
from recsys.files import read_json, replacing, sha256_of, write_json
from recsys.forks import need_polars
from recsys.retrieval.live import LiveIndex

FORMAT = 2
PLAN = "scoring.json"
SUCCESS = "_SUCCESS"
_OF_A_RUN = ("checkpoint", "data", "index", "plots")
_OURS = re.compile(r"\.?(scoring\.json|_SUCCESS|part-\d+-of-\d+\.parquet)(\.\w{8})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringReport:
    """What a call did.

    Attributes:
        users: users answered, in all parts.
        rows: recommendations, in all parts.
        parts: names of all parts, in order.
        resumed: parts that were there already.
    """

    users: int
    rows: int
    parts: list[str]
    resumed: int


def score_parts(
    encoder: SequenceEncoder,
    decoder: Decoder,
    names: Names,
    out: Path,
    *,
    users: Iterable[Any] | None,
    wanted: QueryOptions,
    at: Any = None,
    time_zone: str | None = None,
    part_users: int = 100_000,
    overwrite: bool = False,
    progress: bool = False,
) -> ScoringReport:
    """Answer users of the log part by part.

    Args:
        encoder: in evaluation mode.
        decoder: its index.
        names: of the log.
        out: folder of the parts.
        users: raw ids; None for all.
        wanted: answers and filters.
        at: when the answers are wanted, as in `Recommender.recommend`; a list has one for each user.
        time_zone: of the requests; None is that of the log, or each user's own.
        part_users: users per part.
        overwrite: begin anew where the folder holds parts of something else.
        progress: whether a bar may be drawn.

    Raises:
        ArgumentError: part_users < 1 or k < 1.
        UnknownIdError: a user or item is not in the log.
        RunError: the folder holds something else, cannot be written, or this process was forked.
    """
    need_polars(str(out))
    part_users = whole_number(part_users, "part_users")
    wanted = replace(wanted, k=whole_number(wanted.k, "k"))
    rows = _rows(users, names)
    # Lists may be iterators: each is read once.
    check_interests(wanted.interests)
    category = [wanted.category] if isinstance(wanted.category, str) else _listed(wanted.category, "category")
    wanted = replace(
        wanted, allow=_listed(wanted.allow, "allow"), deny=_listed(wanted.deny, "deny"), category=category
    )
    if category is not None:
        names.of_category(category)  # refuses names that are not known, before a folder is made
    zone = zone_of(names.store, time_zone)
    moments = moment_list(at)
    if moments is not None and len(moments) != len(rows):
        raise ArgumentError(f"at holds {len(moments)} moments for {len(rows)} users: one, or one each")
    count = max(1, -(-len(rows) // part_users))
    plan = {
        "format": FORMAT,
        "model": decoder.index.fingerprint,
        "decoding": asdict(decoder.decoding),
        "index": decoder.index.kind,
        "catalog": None if decoder.live is None else _catalog(names, decoder.live),
        "k": wanted.k,
        "exclude_seen": wanted.exclude_seen,
        "allow": _digest(encode_items(wanted.allow, names.answerable, "raise", "allow", choice=False)),
        "deny": _digest(encode_denied(wanted.deny, names.answerable, "warn")),
        "category": None if category is None else sorted(category),
        "interests": wanted.interests,
        "users": _digest(rows),
        "parts": count,
    }
    if at is not None or time_zone is not None:
        plan["asked"] = [repr(at if moments is None else moments), time_zone]
        first = rows[:1] if moments is None else rows[: len(moments)]
        # Refused before a folder is made.
        asked(encoder, of_rows(first, [None] * len(first), names.store), at, zone)
    _claim(out, plan, overwrite)
    files = [out / f"part-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    resumed, total = 0, 0
    for number in track(range(count), "Scoring", shown=progress):
        chosen = rows[number * part_users : (number + 1) * part_users]
        written = _rows_in(files[number])
        if written is not None:
            resumed += 1
        else:
            labels = names.users.decode(chosen).to_list()
            queries = of_rows(chosen, labels, names.store)
            own = at if moments is None else moments[number * part_users : (number + 1) * part_users]
            queries = asked(encoder, queries, own, zone)
            frame = answer(encoder, decoder, names, queries, wanted, "ignore").frame(names)
            with replacing(files[number]) as temporary:
                write_parquet(frame, temporary)
            written = len(frame)
        total += written
    parts = {file.name: sha256_of(file) for file in files}
    write_json(out / SUCCESS, {"users": len(rows), "rows": total, "sha256": parts})
    return ScoringReport(users=len(rows), rows=total, parts=list(parts), resumed=resumed)


def _rows(users: Iterable[Any] | None, names: Names) -> Array:
    if users is None:
        return np.arange(names.store.n_users, dtype=np.int64)
    rows = names.users.require(id_list(users, "users"), "user").astype(np.int64)
    if len(np.unique(rows)) != len(rows):
        raise ArgumentError("users holds an id twice: name each user once")
    return rows


def _listed(ids: Iterable[Any] | None, what: str) -> list[Any] | None:
    return None if ids is None else id_list(ids, what)


def _claim(out: Path, plan: dict[str, Any], overwrite: bool) -> None:
    """Make the folder, or find that it holds parts of the same plan."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; name a folder")
    if out.name in _OF_A_RUN and (out.resolve().parent / "run.json").exists():
        raise RunError(f"{out}: is the place of a part of the run; choose another folder")
    if out.exists() and any(out.iterdir()):
        # A file of that name may be anybody's.
        found = read_json(out / PLAN) if (out / PLAN).exists() else {}
        if not {"format", "model", "parts"} <= found.keys():
            raise RunError(f"{out}: holds something that is not a scoring; choose another folder")
        if found == plan:
            return
        if not overwrite:
            raise RunError(
                f"{out}: holds parts of another model, list of users or filter; choose another folder, or "
                "replace them with overwrite=True"
            )
        ours = [entry for entry in out.iterdir() if _OURS.fullmatch(entry.name) and entry.is_file()]
        foreign = {entry.name for entry in out.iterdir()} - {entry.name for entry in ours}
        if foreign:
            raise RunError(
                f"{out}: holds {min(foreign)!r} besides the parts; move it elsewhere, or choose another "
                "folder"
            )
        for entry in ours:
            entry.unlink()
    write_json(out / PLAN, plan)


def _rows_in(part: Path) -> int | None:
    """Rows of a part that is there and can be read, else None."""
    import pyarrow
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(part).num_rows)
    except (OSError, pyarrow.ArrowException):
        return None


def _catalog(names: Names, live: LiveIndex) -> str:
    """Digest of what came and went, the same in every process that opens it."""
    found = hashlib.sha256()
    for name, tensor in sorted(names.answerable.changes(live).tensors().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def _digest(values: Array | None) -> str | None:
    if values is None:
        return None
    return hashlib.sha256(np.ascontiguousarray(values, dtype=np.int64).tobytes()).hexdigest()
