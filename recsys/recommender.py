"""The facade: fit on a log, evaluate, recommend, save. Raw ids in, raw ids out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.answering.answers import QueryOptions, Recommendations, answer
from recsys.answering.arguments import whole_number
from recsys.answering.changing_items import add_items
from recsys.answering.described_items import FeatureOptions, add_described_items, is_item_file
from recsys.answering.each import Answerer
from recsys.answering.keywords import hinted
from recsys.answering.live_users import LiveUsers
from recsys.answering.names import Names
from recsys.answering.offline_scoring import Scoring, ScoringReport, score_parts
from recsys.answering.other_logs import on_catalog
from recsys.answering.queries import OnUnknown
from recsys.answering.requests import make_queries
from recsys.answering.similar_items import SimilarItems
from recsys.answering.user_states import BYTES_KEPT
from recsys.config import own_names, parameters_of, set_parameters, to_dict
from recsys.datasets.prepared.store import SequenceStore, open_store
from recsys.datasets.preparing.given import given_data
from recsys.decoding.building import build_decoder, carry_changes, golden_states, refuse_local
from recsys.decoding.decoder import Aggregate, Decoder, Vectors, check_decoding
from recsys.decoding.evaluating import decoder_recall, evaluate_decoder
from recsys.encoders.base import EncoderConfig, SequenceEncoder
from recsys.encoders.devices import choose_device
from recsys.encoders.registry import encoder_name
from recsys.errors import ArgumentError, NotFittedError, RunError
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.result import EvaluationResult
from recsys.evaluation.unbiased import check_power, unbiased_figures
from recsys.files import user_path
from recsys.forks import Lock
from recsys.kernels.shared.backends import prefer_backend
from recsys.notebook.model import describe, describe_html
from recsys.pickling import reduce_model
from recsys.retrieval.bundle import bundle_exists
from recsys.retrieval.item_index import ItemIndex
from recsys.run_folder import RunFolder, fingerprint, read_run_and_data
from recsys.run_folder.fitting import Fitting
from recsys.run_folder.keeping import refuse_another_run, save_run
from recsys.run_folder.settings import Recipe, settings_of
from recsys.training.callbacks import Callback, check_callbacks
from recsys.training.config import TrainingConfig
from recsys.training.history import History, read_history
from recsys.training.processes import joined

if TYPE_CHECKING:
    import polars

    from recsys.datasets.preparing.new_items import NewItems


# One thread builds an index; others that ask for it at the same time wait for that one.
_BUILDING = Lock()
# One thread changes a catalog or writes it: names, categories and vectors go together. Searches do not wait.
_CHANGING = Lock(again=True)


class Recommender:
    """A sequence encoder, its training and its index behind one object.

    Args:
        encoder: ``"sasrec"``, ``"bert4rec"``, ``"mamba"``, or a registered name.
        preset: ``"tuned"`` (the strongest recipe measured) or ``"paper"`` (as published).
        clock: add the interest clock, what a user prefers near the local hour of the request; the log has
            to be prepared with a time zone. The same as ``encoder_options={"clock": "pool"}``.
        encoder_options: fields of the encoder's configuration that differ from the preset.
        training_options: fields of :class:`~recsys.training.config.TrainingConfig` that differ from it.
        seed: of weights, batches, masks and dropout; ``training_options["seed"]`` has precedence.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"`` or ``"cuda"``.
        index: kind of item index: ``"auto"`` (by catalog size), ``"exact"``, or FAISS's ``"flat"``,
            ``"ivf"``, ``"ivfpq"``, ``"hnsw"``, ``"gpu-flat"``, ``"gpu-ivf"``, ``"gpu-cagra"``. Those on a
            server, ``"qdrant"`` and ``"pgvector"``, are made by :meth:`build_index`, which takes the address.
        backend: kernels to run on: ``"auto"`` (compiled for the device), ``"reference"`` (their PyTorch
            definitions), or another of :data:`recsys.kernels.shared.backends.BACKENDS`.

    Attributes:
        encoder_: the trained encoder.
        store_: the prepared data it was trained on.
        history_: one record per epoch.

    Example:
        >>> model = Recommender("sasrec").fit("ml-100k")  # doctest: +SKIP
        >>> model.recommend(histories=[[50, 181, 174]], k=3)  # doctest: +SKIP
    """

    _folder: Path | None = None
    _index_is_own = False
    _parent: Mapping[str, Any] | None = None
    _similar: SimilarItems | None = None

    @hinted
    def __init__(
        self,
        encoder: str = "sasrec",
        *,
        preset: str = "tuned",
        clock: bool = False,
        encoder_options: Mapping[str, object] | None = None,
        training_options: Mapping[str, object] | None = None,
        seed: int = 0,
        device: str = "auto",
        index: str = "auto",
        backend: str = "auto",
    ) -> None:
        self.encoder = encoder
        self.preset = preset
        self.clock = clock
        self.encoder_options = encoder_options
        self.training_options = training_options
        self.seed = seed
        self.device = device
        self.index = index
        self.backend = backend

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's parameters by name, as scikit-learn's `clone` and searches read them.

        Args:
            deep: add the entries of the options, as ``encoder_options__dropout``.
        """
        return parameters_of(self, deep=deep)

    def set_params(self, **params: Any) -> "Recommender":
        """Set parameters for the next `fit`; ``training_options__epochs=5`` sets one entry of the options.

        Raises:
            ConfigError: there is no such parameter; nothing is then set.
        """
        set_parameters(self, params)
        return self

    def __repr__(self) -> str:
        return describe(self)

    def __copy__(self) -> "Recommender":
        """A second object over the same weights, data and index."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return reduce_model(self)

    def _repr_html_(self) -> str:
        return describe_html(self)

    def configs(self, data: SequenceStore | None = None) -> tuple[EncoderConfig, TrainingConfig]:
        """The full configuration that `fit` will use on these data.

        Args:
            data: prepared data; None gives the preset before it is suited to a log, with its repeat bias
                though the loss may sample.

        Raises:
            ConfigError: unknown encoder, preset or field, or a value out of range.
        """
        recipe = self._recipe()
        settings = settings_of(recipe)
        if data is not None:
            settings = settings.on(data, choose_device(self.device), recipe)
        return settings.encoder, settings.training

    @hinted
    def fit(
        self,
        data: Any,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
        quiet: bool = True,
        notify: Callable[[str], None] | None = None,
        callbacks: Sequence[Callback] = (),
        data_options: Mapping[str, Any] | None = None,
        from_run: str | Path | None = None,
    ) -> "Recommender":
        """Train on a log. What fails or is interrupted leaves this object, and a whole run, as they were.

        Processes that a launcher such as torchrun started train one model together, share the batches of each
        step (``training_options["accumulate"]``), and all end with it; the first alone writes ``out``. Where
        they share the item table (``"shard_items"``), each writes its rows of a checkpoint, and the model of
        the first alone answers.

        Args:
            data: a :class:`SequenceStore`, a prepared folder, or a log: a file, a folder of Parquet parts, a
                known name, a polars, pandas or Arrow frame, a mapping of columns, or rows (user, item, time).
            out: run folder, written as training goes; None keeps everything in memory. One that holds a run
                is refused unless ``resume`` or ``overwrite`` says what to do with it.
            resume: go on from the checkpoint in ``out`` as if never interrupted, by the run's own settings;
                ``epochs`` and ``patience`` may be others now. ``data`` must be the log of the run.
            overwrite: replace the run in ``out`` once the new one is whole; with ``resume``, go on with a
                replacement that was cut short.
            quiet: show no estimate, progress or result on standard error.
            notify: told where a known log came from and what was noticed in the data.
            callbacks: told of the start, of every epoch and of the end; loggers are in
                :mod:`recsys.training.loggers`.
            data_options: keywords of :func:`recsys.prepare` for a log: its columns, its split...
            from_run: folder of a run that goes on with these data, by its own settings unless others are
                given. Items and users may be others: a known item keeps its vector and its moments, a new one
                starts from its features or from the items beside it, one that is gone is left out. `epochs`
                counts from now on; ``out`` is a run of its own, and may be the run itself with ``overwrite``.

        Raises:
            DataError, ConfigError, RunError: see the message.
        """
        check_callbacks(callbacks)
        device = choose_device(self.device)
        with joined(device) as processes, prefer_backend(self.backend):
            if processes.rank:
                quiet, notify, callbacks = True, None, ()
            given = given_data(data, data_options, notify)
            fitting = Fitting(
                recipe=self._recipe(),
                device=processes.device or device,
                quiet=quiet,
                notify=notify or (lambda line: None),
                callbacks=callbacks,
                processes=processes,
                from_run=from_run,
            )
            if out is not None:
                fitted = fitting.into(out, given, resume=resume, overwrite=overwrite)
            elif resume:
                raise RunError("there is no run folder to resume from: pass out=")
            else:
                fitted = fitting.in_memory(given)
        names = Names(fitted.store)
        self.encoder_, self.store_, self._names = fitted.encoder, fitted.store, names
        self.training_, self.history_ = fitted.training, History(fitted.history, fitted.training.select)
        self._decoder: Decoder | None = None
        self._folder, self._parent = None if out is None else user_path(out), fitted.parent
        return self

    @hinted
    def evaluate(
        self,
        data: Any = None,
        *,
        split: str = "test",
        protocol: str | Protocol = "default",
        ks: Sequence[int] = (1, 5, 10, 20),
        progress: bool = False,
        vectors: Vectors = "embedding",
        aggregate: Aggregate = "global",
        tie_orders: int = 0,
        unbiased: float | None = None,
        seed: int | None = None,
    ) -> EvaluationResult:
        """Rank every catalog item for every user of a split.

        Args:
            data: a prepared dataset, whose items must be of the model's catalog; None for the one trained on.
            split: ``"test"`` or ``"valid"``.
            protocol: a preset's name or a :class:`Protocol`.
            ks: cut-offs.
            progress: whether a bar may be drawn.
            vectors: what stands for the items: ``"embedding"``, ``"latent"`` or ``"mixed"``; see
                :meth:`build_index`, by which latent ones are made unless the index holds them already.
            aggregate: ``"global"`` or ``"local"``, of latent vectors.
            tie_orders: average over so many drawn orders of events with equal times; 0 takes the file's.
            unbiased: beside the figures, in the result's `unbiased`, those with targets weighted by their
                items' training events to minus this power; above 0 and at most 4.
            seed: of intervals, of users and negatives that a protocol draws, and of tie orders; None takes
                that of the training.
        """
        encoder = self._fitted()
        check_decoding(vectors, aggregate)
        if unbiased is not None:
            check_power(unbiased, tie_orders=tie_orders)
        store = self.store_ if data is None else on_catalog(open_store(data), self._names, encoder)
        decoder = None if vectors == "embedding" else self._decoder_of(vectors, aggregate)
        with prefer_backend(self.backend):
            result = evaluate_decoder(
                encoder,
                store,
                decoder,
                split=split,
                protocol=protocol,
                ks=ks,
                seed=self.training_.seed if seed is None else seed,
                progress=progress,
                name=encoder_name(encoder),
                tie_orders=tie_orders,
            )
        result.protocol["parent"] = self._parent
        if unbiased is not None:
            seed = self.training_.seed if seed is None else seed
            result.unbiased = unbiased_figures(result, store, unbiased, protocol=protocol, seed=seed)
        return result

    @hinted
    def recommend(
        self,
        users: Iterable[Any] | None = None,
        histories: Sequence[Iterable[Any]] | None = None,
        *,
        times: Iterable[Any] | None = None,
        columns: Mapping[str, Any] | None = None,
        at: Any = None,
        context: Mapping[str, Any] | None = None,
        time_zone: str | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        category: str | Iterable[str] | None = None,
        interests: int = 1,
        on_unknown: OnUnknown = "raise",
    ) -> "polars.DataFrame":
        """What comes next, for known users or for any history of item ids.

        Args:
            users: raw ids of users of the training log; with neither users nor histories, all of them.
            histories: raw item ids of anyone, oldest first, one sequence per request.
            times: unix seconds or datetimes of every event of `histories`, shaped like them; a model with a
                time bias or a clock needs them.
            columns: by an event column's name what came with the events of `histories`, lists shaped like
                them, for a model that reads it. What is not named is missing.
            at: when the answers are wanted: unix seconds, ISO text (2026-03-01T08:30) or a datetime, or a
                list of one per request; None is the time of each history's last event. Text and datetimes
                without an offset are local time. Before the last event it stands for the next such hour after
                it, with a warning.
            context: by the name of a request or user column what is known of the requests, for a model that
                reads it: a value for all of them or a list of one for each. What is not named is missing, but
                for what the log knows of its users.
            time_zone: of the requests, IANA name or ``+HH:MM``; None is that of the log, or each user's own.
            k: answers per request; exactly k whenever k candidates exist.
            exclude_seen: leave out items of the history.
            allow: only these items may be answered.
            deny: these items may not.
            category: only items of this category, or of any of these, as the catalog's column category,
                categories, genre or genres names them.
            interests: query vectors per request: the last state, with an interest clock also the last
                state without the hour, and centres of the recent ones; an item scores what its best one gives
                it.
            on_unknown: ``"raise"``; ``"warn"`` and ``"ignore"`` leave unknown ids out. A history of which
                nothing is known gets the most popular items. Unknown ids in `deny` are left out all the same,
                and counted in a warning but for ``"ignore"``.

        Returns:
            Frame user_id, item_id, score, rank (from 1), title where the catalog has titles, and source,
            sorted by request and rank. user_id is as the log has it, or the position in ``histories``. source
            is ``"model"``, or ``"popular"`` for a history of which nothing is known, whose scores are shares
            of the training events.

        Raises:
            UnknownIdError: an id is unknown and ``on_unknown="raise"``.
            ArgumentError: both users and histories, k < 1, lists of the wrong kind, or times that are missing
                or do not go with the histories.
        """
        wanted = QueryOptions(
            k=k, exclude_seen=exclude_seen, allow=allow, deny=deny, category=category, interests=interests
        )
        return self._answer(
            users, histories, times, at, time_zone, wanted, on_unknown, columns, context
        ).frame(self._names)

    @hinted
    def recommend_arrays(
        self,
        users: Iterable[Any] | None = None,
        histories: Sequence[Iterable[Any]] | None = None,
        *,
        times: Iterable[Any] | None = None,
        columns: Mapping[str, Any] | None = None,
        at: Any = None,
        context: Mapping[str, Any] | None = None,
        time_zone: str | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        category: str | Iterable[str] | None = None,
        interests: int = 1,
        on_unknown: OnUnknown = "raise",
    ) -> tuple[Any, Any]:
        """As :meth:`recommend`, for programs; those that may not warn ask an :meth:`answerer`.

        Returns:
            ids: (R, k) raw item ids, None past the last answer; scores: (R, k) float32, -inf there; at
            most as many columns as there are items.
        """
        wanted = QueryOptions(
            k=k, exclude_seen=exclude_seen, allow=allow, deny=deny, category=category, interests=interests
        )
        return self._answer(
            users, histories, times, at, time_zone, wanted, on_unknown, columns, context
        ).arrays(self._names)

    @hinted
    def similar_items(
        self,
        items: Iterable[Any],
        k: int = 10,
        *,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
    ) -> "polars.DataFrame":
        """Nearest items by cosine of item vectors, among those that may be answered now.

        Args:
            items: raw item ids, of the log or added since.
            k: neighbours per item; the item itself is left out.
            allow: only these items may be answered.
            deny: these items may not.

        Returns:
            Frame item_id, similar_item_id, score (cosine), rank, with title where there are titles.

        Raises:
            UnknownIdError: an item is not in the catalog.
            ArgumentError: k < 1, or an item that was added to an index of latent vectors.
        """
        encoder, near = self._fitted(), self._similar
        if near is None or near.decoder is not self.decoder_:
            near = self._similar = SimilarItems(encoder.item_vectors().float().cpu(), self.decoder_)
        return near.search(self._names, items, k, allow=allow, deny=deny)

    def answerer(self) -> Answerer:
        """Answers requests that each have filters of their own, together: for services.

        What is unknown or wrong of a request is a value of its answer; nothing is warned of. It goes on with
        the index that is there now: after `build_index` make another.
        """
        return Answerer(self._fitted(), self.decoder_, self._names, backend=self.backend)

    @hinted
    def live_users(self, *, bytes_kept: int = BYTES_KEPT, time_zone: str | None = None) -> LiveUsers:
        """Users whose events come in one by one: `append` an event, `recommend` what comes next.

        Args:
            bytes_kept: most bytes of states kept between requests.
            time_zone: of the users, IANA name or ``+HH:MM``; None is the log's, or each user's own.

        Raises:
            ArgumentError: bytes_kept < 0, or an unknown zone.
        """
        return LiveUsers(
            self._fitted(),
            lambda: self.decoder_,
            self._names,
            bytes_kept=bytes_kept,
            time_zone=time_zone,
            backend=self.backend,
        )

    @hinted
    def score(
        self,
        out: str | Path,
        users: Iterable[Any] | None = None,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        category: str | Iterable[str] | None = None,
        interests: int = 1,
        at: Any = None,
        context: Mapping[str, Any] | None = None,
        time_zone: str | None = None,
        part_users: int = 100_000,
        overwrite: bool = False,
        progress: bool = False,
    ) -> ScoringReport:
        """Recommend for many users into Parquet parts; a call that was cut short goes on where it stopped.

        Args:
            out: folder of the parts.
            users: raw ids; None for all users of the log.
            k: answers per user.
            exclude_seen: leave out items of the history.
            allow: only these items may be answered.
            deny: these items may not.
            category: only items of this category, or of any of these.
            interests: query vectors per user, as in `recommend`.
            at: when the answers are wanted, as in `recommend`: one moment, or a list of one for each user.
            context: what is known of the requests, as in `recommend`: a value, or a list of one for each.
            time_zone: of the requests, as in `recommend`.
            part_users: users per part; bounds the memory.
            overwrite: begin anew where the folder holds parts of another call.
            progress: whether a bar may be drawn.

        Raises:
            RunError: the folder holds something else, or cannot be written.
        """
        folder = user_path(out)
        wanted = QueryOptions(
            k=k, exclude_seen=exclude_seen, allow=allow, deny=deny, category=category, interests=interests
        )
        with prefer_backend(self.backend):
            asked: dict[str, Any] = {"at": at, "time_zone": time_zone, "context": context}
            scoring = self._scoring(users, wanted, **asked, part_users=part_users)
            return score_parts(scoring, folder, overwrite=overwrite, progress=progress)

    def _scoring(self, users: Iterable[Any] | None, wanted: QueryOptions, **options: Any) -> Scoring:
        return Scoring(self._fitted(), self.decoder_, self._names, users=users, wanted=wanted, **options)

    @hinted
    def add_items(
        self,
        ids: Any,
        *,
        vectors: Any = None,
        like: Iterable[Iterable[Any]] | None = None,
        category: Iterable[str] | None = None,
        title: Iterable[str | None] | None = None,
        item_tags: Any = None,
        item_words: Any = None,
        item_vectors: Any = None,
        on_unknown: OnUnknown = "raise",
    ) -> "NewItems | None":
        """Let items be answered that the log does not know, at once and without a rebuild in the way.

        `save_changes` keeps them beside the saved index. Threads that change the catalog take turns; searches
        do not wait for them. A model of items with features takes a frame of new items: they get the vectors
        that it makes of their features, and histories may hold them, too.

        Args:
            ids: raw ids; an item that is there gets the new vector. Or an item file, or a frame (polars,
                pandas, Arrow) with a column of ids that are new, their features, and titles and categories
                where the catalog has these.
            vectors: (n, d) theirs, in the space of the index's vectors.
            like: or for each the raw ids of known items that it is like: it gets their mean.
            category: for each a category of the catalog, under which it is found from now on; with neither
                vectors nor like it gets the mean of the category's items.
            title: for each what answers call it, or None; items of the log keep their own.
            item_tags: of a frame: columns of tags, among those that the log was prepared with.
            item_words: of a frame: columns of words, likewise.
            item_vectors: of a frame: a column of vectors, a .npy file, an array or a function, as
                :func:`recsys.prepare` takes them. With none of the three, all columns that the log was
                prepared with are read.
            on_unknown: of a frame: ``"raise"``; ``"warn"`` and ``"ignore"`` leave out tags and categories
                that the log does not know.

        Returns:
            What was read of a frame, and what was left out; None for ids.

        Raises:
            ArgumentError: both vectors and like, none of the three, or one of them does not fit. Of a frame:
                the model knows items by their ids alone, or an item is in the catalog already.
            DataError: a frame lacks a column, holds an id twice, or a tag that is unknown.
            UnknownIdError: a known item or category is not in the catalog.
        """
        options = FeatureOptions(item_tags, item_words, item_vectors, on_unknown)
        plain = any(given is not None for given in (vectors, like, category, title))
        if is_item_file(ids) and not (plain and isinstance(ids, str)):
            if plain:
                raise ArgumentError(
                    "items with features bring their categories: vectors=, like= and category= go with ids"
                )
            with _CHANGING, prefer_backend(self.backend):
                return add_described_items(self._fitted(), self.decoder_, self._names, ids, options)
        if options.given:
            raise ArgumentError("item_tags=, item_words= and item_vectors= go with a frame of items, not ids")
        with _CHANGING:
            add_items(
                self.decoder_, self._names, ids, vectors=vectors, like=like, category=category, title=title
            )
        return None

    @hinted
    def remove_items(self, ids: Iterable[Any]) -> None:
        """Let items no longer be answered, at once. Histories may still hold them.

        Args:
            ids: raw ids.

        Raises:
            UnknownIdError: an id is in neither the log nor the items added.
            ArgumentError: nothing would be left.
        """
        with _CHANGING:
            self.decoder_.changing().update(remove=self._names.answerable_rows(ids, "remove"))

    def save_changes(self) -> Path:
        """Write the items that came and went beside the saved index, which stays as it lies.

        Killed at any moment, the folder holds the catalog of before or of now.

        Returns:
            The folder of the index.

        Raises:
            ArgumentError: the index was neither loaded nor saved, or nothing came or went.
            RetrievalError: another process changed the folder in between, or it cannot be written.
        """
        with _CHANGING:
            changes = self._names.changes(self.decoder_.live)
            if changes is None:
                raise ArgumentError("nothing was added or removed")
            return self.decoder_.save_changes(changes)

    @hinted
    def build_index(
        self,
        kind: str | None = None,
        *,
        vectors: Vectors = "embedding",
        aggregate: Aggregate = "global",
        options: Mapping[str, object] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> ItemIndex:
        """Build the item index anew.

        Args:
            kind: of index; None takes the constructor's.
            vectors: ``"embedding"``: the tied table. ``"latent"``: the mean state of the training histories
                that an item followed. ``"mixed"``: both, by a weight chosen on the validation events.
            aggregate: of latent vectors: ``"global"``, or ``"local"``: of the states nearest to the query.
            options: fields of :class:`~recsys.retrieval.options.IndexOptions` that differ.
            notify: told what was tried and chosen.

        Items that came or went stay so, unless the new vectors are others than those that the added ones were
        given: these are then left out, and a warning says how many.

        Raises:
            ArgumentError: an unknown name, or local vectors although items came or went.
        """
        refuse_local(self._decoder, aggregate)
        made = self._make_decoder(kind, vectors, aggregate, options, notify)
        with _CHANGING:
            refuse_local(self._decoder, aggregate)
            carry_changes(self._decoder, made)
            if self._names.answerable.features:
                made.changing()  # with which their features are saved
            self._decoder, self._index_is_own = made, True
        return made.index

    @hinted
    def measure_recall(self, users: int = 256, k: int = 10) -> float:
        """Find out which share of the k best items the index finds, over states of some users.

        Args:
            users: asked, evenly spaced; all of them if there are fewer.
            k: answers per user; all items if there are fewer.

        Returns:
            1.0 for an exact kind. Ties count as found.
        """
        users, k = whole_number(users, "users"), whole_number(k, "k")
        with prefer_backend(self.backend):
            return decoder_recall(self.decoder_, self._fitted(), self.store_, users, k)

    @property
    def index_(self) -> ItemIndex:
        """The item index, built on first use."""
        return self.decoder_.index

    @property
    def decoder_(self) -> Decoder:
        """The index with the queries that it takes, built on first use."""
        if self._decoder is None:
            with _BUILDING:
                if self._decoder is None:
                    self._decoder = self._make_decoder()
        return self._decoder

    def save_index(self, folder: str | Path) -> None:
        """Write the index as a folder that is whole or absent, with golden queries of some users.

        Items that came or went since the index was built are written with it.

        Raises:
            RunError: it is the place of another run's index.
            RetrievalError: the folder holds something else, or cannot be written.
        """
        encoder, place = self._fitted(), user_path(folder)
        refuse_another_run(place, encoder)
        with prefer_backend(self.backend):
            states = golden_states(encoder, self.store_)
            with _CHANGING:
                self.decoder_.save(place, states, self._names.changes(self.decoder_.live))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a run folder that `load` and the command line open, whole or not at all.

        Args:
            path: of the folder. The run of this very model may be written again, and keeps its report.
            overwrite: replace another run, with its report and index.

        Raises:
            RunError: the folder holds another run or something else, or cannot be written.
        """
        save_run(
            path,
            self._fitted(),
            self.store_,
            self.training_,
            preset=self.preset,
            history=self.history_,
            overwrite=overwrite,
            save_index=None if self._decoder is None else self.save_index,
            parent=self._parent,
        )
        self._folder = user_path(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        index: str = "auto",
        backend: str = "auto",
        with_index: bool = True,
    ) -> "Recommender":
        """Open a finished run folder.

        Args:
            path: the folder.
            device: as in the constructor.
            index: kind of index to build where none is saved.
            backend: as in the constructor.
            with_index: open the saved index, too.

        Raises:
            RunError, DataError, RetrievalError: missing, unfinished or damaged; the message says which file.
        """
        run = RunFolder(user_path(path))
        encoder, training, preset, store, parent = read_run_and_data(run.path)
        model = cls(
            encoder_name(encoder),
            preset=preset,
            encoder_options=to_dict(encoder.config),
            training_options=to_dict(training),
            seed=training.seed,
            device=device,
            index=index,
            backend=backend,
        )
        model.store_ = store
        model.encoder_ = encoder.to(choose_device(device))
        model.training_ = training
        model.history_ = read_history(run.metrics, training.select)
        model._decoder = None
        model._folder, model._parent = run.path, parent
        model._names = Names(model.store_)
        if with_index and bundle_exists(run.index):
            digest = model._names.items.digest()
            model._decoder = Decoder.load(run.index, fingerprint(encoder), digest)
            if model._decoder.opened is not None:
                model._names.answerable.restore(model._decoder.opened)
                model.encoder_.set_later_items(model._names.answerable.later)
        return model

    def _recipe(self) -> Recipe:
        clock = {"clock": "pool"} if self.clock else {}
        return Recipe(
            encoder=self.encoder,
            preset=self.preset,
            encoder_options={**clock, **own_names("encoder", self.encoder_options or {})},
            training_options=own_names("training", self.training_options or {}),
            seed=self.seed,
        )

    def _answer(
        self,
        users: Iterable[Any] | None,
        histories: Sequence[Iterable[Any]] | None,
        times: Iterable[Any] | None,
        at: Any,
        time_zone: str | None,
        options: QueryOptions,
        on_unknown: OnUnknown,
        columns: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Recommendations:
        encoder = self._fitted()
        queries = make_queries(
            encoder,
            self.store_,
            self._names,
            users,
            histories,
            times=times,
            at=at,
            time_zone=time_zone,
            on_unknown=on_unknown,
            columns=columns,
            context=context,
        )
        with prefer_backend(self.backend):
            return answer(encoder, self.decoder_, self._names, queries, options, on_unknown)

    def _make_decoder(
        self,
        kind: str | None = None,
        vectors: Vectors = "embedding",
        aggregate: Aggregate = "global",
        options: Mapping[str, object] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> Decoder:
        encoder = self._fitted()
        with prefer_backend(self.backend):
            return build_decoder(
                encoder,
                self.store_,
                vectors=vectors,
                aggregate=aggregate,
                kind=kind or self.index,
                options=options,
                fingerprint=fingerprint(encoder),
                vocabulary=self._names.items.digest(),
                seed=self.training_.seed,
                notify=notify,
            )

    def _decoder_of(self, vectors: Vectors, aggregate: Aggregate) -> Decoder:
        """The decoder at hand if it is of these vectors, else one made for the occasion."""
        decoder = self._decoder
        asked = vectors, aggregate
        if decoder is not None and (decoder.decoding.vectors, decoder.decoding.aggregate) == asked:
            return decoder
        return self._make_decoder("exact", vectors, aggregate)

    def _fitted(self) -> SequenceEncoder:
        if not hasattr(self, "encoder_"):
            raise NotFittedError("this Recommender is not fitted; call fit(data), or recsys.load(path)")
        return self.encoder_


def load(
    path: str | Path, *, device: str = "auto", index: str = "auto", backend: str = "auto"
) -> Recommender:
    """Open a finished run folder; see :meth:`Recommender.load`."""
    return Recommender.load(path, device=device, index=index, backend=backend)
