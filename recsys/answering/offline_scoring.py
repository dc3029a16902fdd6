"""Recommendations for all users of a log as Parquet parts, resumable, of any number of users.

    scoring.json                     what is being scored: model, index, filters, users
    part-00000-of-00012.parquet      user_id, item_id, score, rank (, title), source
    _SUCCESS                         written last: rows and sha256 of every part

A part is written beside its place and renamed, so one that is there is whole; a call that was cut short finds
what it did and goes on. Parts do not depend on each other: a cluster may give each worker its own.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.answering.answers import QueryOptions, answer
from recsys.answering.arguments import id_list, whole_number
from recsys.answering.event_columns import codes_of_context
from recsys.answering.interests import check_interests
from recsys.answering.names import Names
from recsys.answering.queries import Array, Queries, encode_denied, encode_items, of_rows
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


class Scoring:
    """What is to be scored, checked, and its parts by number; nothing is written before `claim`.

    Args:
        encoder: in evaluation mode.
        decoder: its index.
        names: of the log.
        users: raw ids; None for all.
        wanted: answers and filters.
        at: when the answers are wanted, as in `Recommender.recommend`; a list has one for each user.
        time_zone: of the requests; None is that of the log, or each user's own.
        part_users: users per part.
        context: as in `Recommender.recommend`; a list has a value for each user.

    Raises:
        ArgumentError: part_users < 1 or k < 1, or a context that the model does not read.
        UnknownIdError: a user or item is not in the log.
        RunError: this process was forked.

    Attributes:
        count: of parts.
        plan: what `scoring.json` says of it, the same in every process that opens the same run.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        decoder: Decoder,
        names: Names,
        *,
        users: Iterable[Any] | None,
        wanted: QueryOptions,
        at: Any = None,
        time_zone: str | None = None,
        part_users: int = 100_000,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        need_polars("scoring")
        self._encoder, self._decoder, self._names = encoder, decoder, names
        self._part_users = whole_number(part_users, "part_users")
        wanted = replace(wanted, k=whole_number(wanted.k, "k"))
        self._rows = rows = _rows(users, names)
        # Lists may be iterators: each is read once.
        check_interests(wanted.interests)
        category = (
            [wanted.category] if isinstance(wanted.category, str) else _listed(wanted.category, "category")
        )
        self._wanted = wanted = replace(
            wanted, allow=_listed(wanted.allow, "allow"), deny=_listed(wanted.deny, "deny"), category=category
        )
        if category is not None:
            names.of_category(category)  # refuses names that are not known, before a folder is made
        self._zone = zone_of(names.store, time_zone)
        self._at, self._moments = at, moment_list(at)
        if self._moments is not None and len(self._moments) != len(rows):
            raise ArgumentError(
                f"at holds {len(self._moments)} moments for {len(rows)} users: one, or one each"
            )
        self._context = codes_of_context(encoder, names.store, context, len(rows))
        self._named = () if context is None else tuple(context)
        self.count = max(1, -(-len(rows) // self._part_users))
        self.plan: dict[str, Any] = {
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
            "parts": self.count,
        }
        if self._context is not None:
            self.plan["context"] = [sorted(self._named), _digest(self._context)]
        if at is not None or time_zone is not None:
            self.plan["asked"] = [repr(at if self._moments is None else self._moments), time_zone]
            first = rows[:1] if self._moments is None else rows[: len(self._moments)]
            # Refused before a folder is made.
            asked(encoder, of_rows(first, [None] * len(first), names.store), at, self._zone)

    def claim(self, out: Path, overwrite: bool = False) -> list[int]:
        """Make the folder, or find that it holds parts of the same plan.

        Args:
            out: the folder.
            overwrite: begin anew where it holds parts of something else.

        Returns:
            Numbers of the parts that it lacks, ascending.

        Raises:
            RunError: it holds something else, or cannot be written.
        """
        _claim(out, self.plan, overwrite)
        return self.missing(out)

    def missing(self, out: Path) -> list[int]:
        """Numbers of the parts that a folder lacks, ascending."""
        return [number for number in range(self.count) if not self.is_there(out, number)]

    def is_there(self, out: Path, number: int) -> bool:
        """Whether a folder holds a part, whole."""
        return _rows_in(self._file(out, number)) is not None

    def check(self, out: Path) -> None:
        """Find that a folder is claimed for this plan, in a process that another one gives parts to.

        Raises:
            RunError: it is not: this process sees another folder, run, or list of ids.
        """
        try:
            found = read_json(out / PLAN)
        except RunError as error:
            raise RunError(
                f"{error}; all machines need to reach the folder under this path: choose a shared disk"
            ) from None
        if found != self.plan:
            other = min(
                key for key in self.plan.keys() | found.keys() if self.plan.get(key) != found.get(key)
            )
            raise RunError(
                f"{out}: is scored with another {other!r} than the run and lists of ids here give; let all "
                "machines read the same files, and call again"
            )

    def write(self, out: Path, number: int) -> None:
        """Answer the users of a part and write it; one that is there is replaced by the same bytes.

        Args:
            out: a folder that was claimed.
            number: of the part, from 0.

        Raises:
            RunError: the disk is full or the folder cannot be written.
        """
        span = slice(number * self._part_users, (number + 1) * self._part_users)
        chosen = self._rows[span]
        queries = of_rows(chosen, self._names.users.decode(chosen).to_list(), self._names.store)
        own = self._at if self._moments is None else self._moments[span]
        queries = asked(self._encoder, queries, own, self._zone)
        queries = replace(queries, context=self._known(queries, span))
        answers = answer(self._encoder, self._decoder, self._names, queries, self._wanted, "ignore")
        with replacing(self._file(out, number)) as temporary:
            write_parquet(answers.frame(self._names), temporary)

    def _known(self, queries: Queries, span: slice) -> Array | None:
        """Codes of a part's requests: what was told of them, and what the log knows of users besides."""
        store = self._names.store
        known = codes_of_context(self._encoder, store, None, len(queries), users=queries.user_codes)
        if self._context is None or store.event_columns is None:
            return known
        told = self._context[span]
        if known is None:
            return told
        columns = (*store.event_columns.requests, *store.event_columns.users)
        named = np.array([column.name in self._named for column in columns])
        return np.where(named, told, known)

    def finish(self, out: Path, resumed: int) -> ScoringReport:
        """Write `_SUCCESS` once all parts are there.

        Args:
            out: the folder.
            resumed: parts that this call did not write.

        Raises:
            RunError: a part is not there.
        """
        files = [self._file(out, number) for number in range(self.count)]
        rows = 0
        for file in files:
            found = _rows_in(file)
            if found is None:
                raise RunError(
                    f"{file}: is not there although it was written; the folder has to be on a disk that all "
                    "machines share"
                )
            rows += found
        parts = {file.name: sha256_of(file) for file in files}
        write_json(out / SUCCESS, {"users": len(self._rows), "rows": rows, "sha256": parts})
        return ScoringReport(users=len(self._rows), rows=rows, parts=list(parts), resumed=resumed)

    def remove_leftovers(self, out: Path) -> None:
        """Remove what writers left that were killed; nobody may be writing into the folder."""
        for left in out.glob(".part-*.parquet.*"):
            if _OURS.fullmatch(left.name):
                left.unlink(missing_ok=True)

    def _file(self, out: Path, number: int) -> Path:
        return out / f"part-{number:05d}-of-{self.count:05d}.parquet"


def score_parts(scoring: Scoring, out: Path, *, overwrite: bool, progress: bool) -> ScoringReport:
    """Write the parts that a folder lacks, one after the other.

    Args:
        scoring: what to write.
        out: folder of the parts.
        overwrite: begin anew where the folder holds parts of something else.
        progress: whether a bar may be drawn.

    Raises:
        RunError: the folder holds something else or cannot be written.
    """
    missing = scoring.claim(out, overwrite)
    for number in track(missing, "Scoring", shown=progress):
        scoring.write(out, number)
    return scoring.finish(out, scoring.count - len(missing))


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
