"""The training loop: epochs of packed batches, early stopping, exact resume."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.config import to_dict
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.items import ItemEmbedding, ShardedItemEmbedding
from recsys.errors import RunError
from recsys.files import write_text
from recsys.training.averaging import WeightAverage
from recsys.training.checkpoint import Progress, load_checkpoint, pack, save_checkpoint, unpack
from recsys.training.config import TrainingConfig
from recsys.training.estimate import Estimate, estimate
from recsys.training.further_targets import UnreadTargets, unpredicted
from recsys.training.gradient_sums import GradientSum, check_same_weights
from recsys.training.identity import Identity
from recsys.training.item_files import TABLE, ItemFile, own_rows
from recsys.training.loss_sums import LossSums
from recsys.training.losses import TrainingLoss
from recsys.training.objectives import make_task
from recsys.training.optimizer import clip_gradients, make_optimizer, set_learning_rate, touched_rows
from recsys.training.precision import MixedPrecision
from recsys.training.prefetch import prefetched
from recsys.training.prepared_batches import Prepared, check_data
from recsys.training.processes import ALONE, Processes, check_share
from recsys.training.propensity import Propensities, is_weighted
from recsys.training.reporting import SilentReporter
from recsys.training.shard_plan import Plan, plan_of
from recsys.training.sharded_items import ShardedItems, check_shardable, clip_with_items
from recsys.training.slates import shown_targets
from recsys.training.substitution import Substitution
from recsys.training.validating import VALIDATION_LOSS


class Trainer:
    """Trains one encoder on one prepared dataset.

    Args:
        encoder: on the device to train on; holds the best weights after :meth:`run`.
        store: prepared data; only training events are learned from.
        config: optimization and stopping.
        validate: metrics of the encoder on the validation events, by name; must hold ``config.select``, and
            may hold the loss as ``loss``.
            None trains for ``config.epochs`` and keeps the last weights.
        folder: run folder for ``checkpoint/`` and ``metrics.jsonl``; None keeps all in memory. May be
            set anew until :meth:`run`, as may the reporter.
        reporter: told of every step and epoch.
        checkpoint_seconds: longest time without a checkpoint; one is written after every epoch anyway.
        notes: written into every checkpoint: what the run wants to find again.
        processes: that train together; each takes its batches of every group of ``config.accumulate`` and has
            the same weights after every step. Process 0 alone is given a folder.
        epochs_before: of the runs that this one goes on from: batches are addressed as if they were its own.

    Raises:
        ConfigError: processes cannot share the batches of a step evenly, the encoder reads the time of every
            event and the log carries order alone, or it has a clock and the log has no local hours.
        DataError: no user has two training events.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        store: SequenceStore,
        config: TrainingConfig,
        *,
        validate: Callable[[SequenceEncoder], Mapping[str, float]] | None = None,
        folder: Path | None = None,
        reporter: SilentReporter | None = None,
        checkpoint_seconds: float = 300.0,
        notes: Mapping[str, Any] | None = None,
        epochs_before: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        check_share(config.accumulate, processes.size)
        check_data(encoder, store)
        self.encoder = encoder
        self.store = store
        self.config = config
        self.progress = Progress()
        self._validate = validate
        self.folder = folder
        self.reporter = reporter or SilentReporter()
        self._checkpoint_seconds = checkpoint_seconds
        self.notes = dict(notes or {})
        self._epochs_before = epochs_before
        self._processes = processes
        if config.shard_items:
            check_shardable(encoder, processes.size, weighted=is_weighted(store, config))
        self._sharded: ShardedItems | None = None
        self._items_folder: Path | None = None
        self._resumed = False
        self._device = encoder.device
        self._loss = TrainingLoss(encoder, store, config)
        self._substitute = Substitution.of(store, config)
        self._shown = shown_targets(store, encoder, config.loss)
        self._unread = None if self._shown is not None else UnreadTargets.of(store, encoder)
        power = config.propensity_power
        self._propensities = Propensities(store.item_counts(), power) if power else None
        self._generator = torch.Generator(self._device)
        self._hold_weights()
        self._best: dict[str, Tensor] = {}
        self._precision = MixedPrecision(config.amp, self._device, full_softmax=not self._loss.plan.sampled)
        if isinstance(encoder.item_embedding, ShardedItemEmbedding):
            self.share_items()

    def _hold_weights(self) -> None:
        """Optimize and average the encoder's parameters as they are now, from the start."""
        encoder, processes, sampled = self.encoder, self._processes, self._loss.plan.sampled
        self._optimizer = make_optimizer(encoder, self.config)
        self._table = encoder.item_embedding.weight
        lazy = next(n for n, p in encoder.named_parameters() if p is self._table)
        self._average = WeightAverage(encoder, self.config.ema_decay, lazy if sampled else None)
        same = [p for p in encoder.parameters() if self._sharded is None or p is not self._table]
        self._gradients = GradientSum(same, processes) if processes.size > 1 else None

    def share_items(self) -> None:
        """Keep the rows of this process alone of the item table, where the configuration says so."""
        processes, config = self._processes, self.config
        if self._sharded is not None or not config.shard_items or processes.size == 1:
            return
        tensors = self.tensors()
        if isinstance(self.encoder.item_embedding, ItemEmbedding):
            tensors = own_rows(tensors, processes.rank, processes.size)
        softmax = None if self._loss.plan.sampled else (config.label_smoothing, config.temperature)
        self._sharded = ShardedItems(self.encoder, processes, softmax)
        self._loss.parallel = self._sharded.softmax
        self._hold_weights()
        self.start_from(self.progress, tensors)

    def run(self, *, resume: bool = False) -> Progress:
        """Train until early stopping or the last epoch; the encoder then holds the best weights.

        Of an item table that several processes share, process 0 then holds all rows and the others none that
        can be asked for.

        Args:
            resume: go on from the folder's checkpoint.

        Raises:
            RunError: nothing to resume, a checkpoint of something else, or the loss is no longer finite.
        """
        if resume:
            if self.folder is None:
                raise RunError("there is no run folder to resume from")
            self.restore(self.folder / "checkpoint")
        self.share_items()
        if self._sharded is not None:
            where = self._processes.tell(None if self.folder is None else str(self.folder / "checkpoint"))
            self._items_folder = None if where is None else Path(where)
        tables = (self.encoder.item_embedding, self.encoder.scored_items)
        for table in tables:
            table.sparse = self._loss.plan.sampled
        try:
            self._train()
        finally:
            for table in tables:
                table.sparse = False
        if self._best:
            self.encoder.load_state_dict(self._best)
        elif self._average:
            average = self._average.values(self.progress.global_step)
            self.encoder.load_state_dict(average, strict=False)
        if self._sharded is not None:
            self._sharded.put_together()
        self.encoder.eval()
        # Whoever was killed between a checkpoint and this file left it an epoch behind.
        self._write_metrics()
        self.reporter.finished(self.progress)
        return self.progress

    def restore(self, checkpoint: Path) -> None:
        """Take up where a checkpoint stands; nothing is written.

        Args:
            checkpoint: folder that :func:`~recsys.training.checkpoint.save_checkpoint` wrote.

        Raises:
            RunError: none there, damaged, or of another configuration, loss or data.
        """
        self.share_items()
        own = (0, 1) if self._sharded is None else (self._processes.rank, self._processes.size)
        progress, tensors = load_checkpoint(checkpoint, self._identity(), own)
        if not progress.global_step:
            tensors = {**self.tensors(), **tensors}
        # More patience takes up a run that had stopped.
        progress.stopped &= progress.bad_evaluations >= self.config.patience
        self.start_from(progress, tensors)
        self._resumed = True

    def start_from(self, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
        """Let training stand where it is said to stand, with tensors named as those of `tensors`.

        Raises:
            RunError: the tensors are not those of this encoder.
        """
        self.progress = progress
        average, self._best = unpack(tensors, self.encoder, self._optimizer)
        self._average.load(average)

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps: weights, moments, averages and the best weights, by name."""
        return pack(self.encoder, self._optimizer, self._average.state(), self._best)

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.epoch >= self.config.epochs or self.progress.stopped

    @property
    def loss_name(self) -> str:
        """Which loss is trained, as `LossPlan` names it."""
        return self._loss.plan.name

    def save_checkpoint(self) -> None:
        """Write a checkpoint into the folder, as far as training stands; of shared items each its rows.

        Before the first step process 0 alone writes one, without rows: each draws its own again.
        """
        tensors: dict[str, Tensor] = self.tensors()
        files: list[ItemFile] = []
        if self._sharded is not None:
            files, tensors = self._sharded.save(self._items_folder, self.progress.place, tensors)
        if self.folder is not None:
            folder, identity = self.folder / "checkpoint", self._identity()
            save_checkpoint(folder, self.progress, tensors, identity, self.notes, files)

    def _train(self) -> None:
        plan = self._plan(self.progress.epoch)
        if self._resumed:
            self.reporter.explained(f"Resuming after epoch {self.progress.epoch}, step {self.progress.step}")
        self.reporter.explained(self._loss.plan.line)
        passed = None if self._shown is None else self._shown.line()
        for left_out in (passed, unpredicted(self.store, self._unread)):
            if left_out is not None:
                self.reporter.explained(left_out)
        if self._precision.line is not None:
            self.reporter.explained(self._precision.line)
        self.reporter.started(self._estimate(plan), self.progress, self.config.epochs)
        try:
            while not self.done:
                self._run_epoch(plan)
                if not self.done:
                    plan = self._plan(self.progress.epoch)
        finally:
            self.reporter.closed()

    def loss(self, plan: Plan, epoch: int, step: int) -> tuple[Tensor, float]:
        """Mean loss of one batch, with gradients, and what its events together count.

        Everything random in it is addressed by (seed, epoch, step).
        """
        prepared = self._prepare(plan, epoch, step)
        return self._loss_of(prepared), prepared.task.total_weight

    def _prepare(self, plan: Plan, epoch: int, step: int) -> Prepared:
        seeds = np.random.SeedSequence([self.config.seed, self._epochs_before + epoch, step])
        for_task, for_negatives, for_inputs = seeds.spawn(3)
        batch = plan.batch(self.store, step)
        further = None if self._unread is None else self._unread(batch, plan, step)
        task = make_task(self.encoder, batch, np.random.default_rng(for_task), further)
        task = self._substitute(task, for_inputs)
        if self._propensities is not None:
            task = self._propensities.weigh(task)
        drawn = int(for_negatives.generate_state(1, np.uint64)[0])
        if self._shown is not None:
            task, slates = self._shown(task, batch, plan, step)
            negatives = slates if task.n_targets else None
        else:
            negatives = self._loss.draw(task.targets, drawn) if task.n_targets else None
        return Prepared(task, negatives, int(seeds.generate_state(1, np.uint64)[0] >> 1))

    def _loss_of(self, prepared: Prepared) -> Tensor:
        self._generator.manual_seed(prepared.seed)
        task = prepared.task
        inputs = task.batch.to(self._device)
        targets = task.targets.to(self._device, non_blocking=True)
        with contextlib.ExitStack() as held:
            with self._precision.encoder():
                scored = self._loss.scored(targets, prepared.negatives)
                held.enter_context(self.encoder.items_held(inputs.items, scored, seed=prepared.seed))
                hidden = self.encoder(inputs, generator=self._generator)
                if task.rows is not None:
                    hidden = hidden[task.rows.to(self._device, non_blocking=True)]
            repeats = None if task.repeats is None else task.repeats.to(self._device)
            later = not self.encoder.looks_back(self._generator)
            if not task.n_targets:  # context alone
                nothing: Tensor = hidden.sum()
                return nothing
            weights = None if task.weights is None else task.weights.to(self._device)
            with self._precision.loss():
                return self._loss(
                    hidden, targets, prepared.negatives, repeats, weights=weights, sees_later=later
                )

    def _run_epoch(self, plan: Plan) -> None:
        progress, started, saved = self.progress, time.perf_counter(), time.monotonic()
        self.encoder.train()
        n_events = 0
        sums, rate = LossSums(self._processes), self.config.learning_rate
        epoch, processes = progress.epoch, self._processes
        # Groups begin at multiples of `accumulate`, of which the number of processes is a divisor.
        steps = range(progress.step + processes.rank, plan.n_steps, processes.size)
        with prefetched(lambda s: self._prepare(plan, epoch, s), steps, self.config.prefetch) as batches:
            while progress.step < plan.n_steps:
                size = min(self.config.accumulate, plan.n_steps - progress.step)
                group = list(islice(batches, len(range(processes.rank, size, processes.size))))
                counts, unsaved = self._in_all(group, size, time.monotonic() - saved)
                done = (epoch + progress.step / plan.n_steps) / self.config.epochs
                self._optimize(group, counts, sums, done)
                n_events += self._supervised(plan, progress.step, counts)
                progress.step += size
                progress.global_step += 1
                if len(sums) >= 16 or progress.step == plan.n_steps:
                    sums.collect(progress, rate)
                    self.reporter.stepped(progress, plan.n_steps)
                if unsaved > self._checkpoint_seconds:
                    sums.collect(progress, rate)
                    self._checkpoint()
                    saved = time.monotonic()
        seconds = time.perf_counter() - started
        self._finish_epoch(seconds, n_events / max(seconds, 1e-9))

    def _supervised(self, plan: Plan, first: int, counts: list[float]) -> int:
        """Events that a group of batches learned from; of a weighted log those that it read."""
        if not is_weighted(self.store, self.config):
            return int(sum(counts))
        return sum(plan.step_events(step) for step in range(first, first + len(counts)))

    def _in_all(self, group: list[Prepared], size: int, unsaved: float) -> tuple[list[float], float]:
        """What the targets of each batch of a group count, by place, and process 0's `unsaved`."""
        own: list[float] = [prepared.task.total_weight for prepared in group]
        if self._processes.rank == 0:
            own.append(unsaved)
        *counts, unsaved = self._processes.in_order(own, [*self._processes.owners(size), 0])
        return [int(n) if float(n).is_integer() else n for n in counts], unsaved

    def _optimize(self, group: list[Prepared], counts: Sequence[float], sums: LossSums, done: float) -> None:
        """Take one optimization step on the mean loss over all targets of a group of batches.

        Args:
            group: the batches of this process.
            counts: what the targets of all batches of the group count, in the order of their places.
            sums: where the losses are added.
            done: share of all epochs that lies behind.
        """
        self._optimizer.zero_grad(set_to_none=True)
        in_all, losses = sum(counts) or 1, []
        sharded = self._sharded
        for prepared in group if sharded is None else sharded.rounds(group, len(counts)):
            if prepared is None:
                assert sharded is not None
                with self._precision.loss():
                    sharded.idle(1 / in_all)
                continue
            loss = self._loss_of(prepared)
            scale = prepared.task.total_weight / in_all
            (loss if len(counts) == 1 else loss * scale).backward()
            losses.append(loss.detach())
            if self._gradients is not None:
                self._gradients.take()
            if sharded is not None:
                sharded.give_back()
        if self._gradients is not None:
            self._gradients.give(len(counts))
        if sharded is not None:
            sharded.give()
        sums.add(losses, counts)
        if self.config.gradient_clip and self.config.shard_items:
            clip_with_items(self.encoder, self.config.gradient_clip, self._table, self._processes)
        elif self.config.gradient_clip:
            clip_gradients(self.encoder, self.config.gradient_clip)
        step = self.progress.global_step
        set_learning_rate(self._optimizer, self.config, step, done)
        touched = touched_rows(self._table) if self._average else None
        self._average.before_step(step, touched)
        self._optimizer.step()
        self._average.after_step(step, touched)

    def _finish_epoch(self, seconds: float, events_per_second: float) -> None:
        progress = self.progress
        progress.epoch += 1
        record: dict[str, Any] = {
            "epoch": progress.epoch,
            "loss": progress.loss_sum / (progress.n_targets or 1),
            "seconds": seconds,
            "events_per_second": events_per_second,
        }
        due = progress.epoch % self.config.evaluate_every == 0 or progress.epoch == self.config.epochs
        if self._validate is not None and due:
            started = time.perf_counter()
            # Ranks of floats may differ between machines; the decision may not.
            metrics = dict(self._processes.tell(dict(self._evaluate())))
            if VALIDATION_LOSS in metrics:
                record["validation_loss"] = metrics.pop(VALIDATION_LOSS)
            record |= {"valid": metrics, "validation_seconds": time.perf_counter() - started}
            self._select(metrics[self.config.select])
        progress.history.append(record)
        progress.step, progress.loss_sum, progress.n_targets = 0, 0.0, 0
        self._checkpoint()
        self._write_metrics()
        self.reporter.epoch_ended(record, progress)

    def _checkpoint(self) -> None:
        parts = () if self._sharded is None else (TABLE,)
        check_same_weights(self.encoder, self._processes, but=parts)
        self.save_checkpoint()

    def _write_metrics(self) -> None:
        if self.folder is not None:
            lines = [json.dumps(line) + "\n" for line in self.progress.history]
            write_text(self.folder / "metrics.jsonl", "".join(lines))

    def _evaluate(self) -> Mapping[str, float]:
        assert self._validate is not None
        self.encoder.eval()
        with self._average.in_place(self.progress.global_step):
            return self._validate(self.encoder)

    def _select(self, score: float) -> None:
        progress = self.progress
        if progress.best is None or score > progress.best:
            progress.best, progress.best_epoch, progress.bad_evaluations = score, progress.epoch, 0
            with self._average.in_place(self.progress.global_step):
                self._best = {n: v.detach().clone() for n, v in self.encoder.state_dict().items()}
        else:
            progress.bad_evaluations += 1
            progress.stopped = progress.bad_evaluations >= self.config.patience

    def _plan(self, epoch: int) -> Plan:
        return plan_of(
            self.store,
            max_length=self.encoder.config.max_length,
            causal=self.encoder.causal,
            batch_events=self.config.batch_events,
            seed=self.config.seed,
            epoch=self._epochs_before + epoch,
            accumulate=self.config.accumulate,
            processes=self._processes,
        )

    def _estimate(self, plan: Plan) -> Estimate:
        self.encoder.train()
        epoch = self.progress.epoch
        copies = 2 + (1 if self._average else 0) + (1 if self._validate else 0)
        return estimate(
            self.encoder,
            lambda step: self.loss(plan, epoch, step)[0],
            plan,
            self.encoder.config.max_length,
            copies,
        )

    def _identity(self) -> Identity:
        return Identity(
            encoder={"class": type(self.encoder).__qualname__, **to_dict(self.encoder.config)},
            training=to_dict(self.config),
            dataset=self.store.fingerprint,
            loss=self._loss.plan.name,
        )
