# mypy: disable-error-code="import-not-found"
"""RecTools' ``fast_transformers``: build_sequences, SequenceBatchDataset and FlatSASRecNet.

Runs in RecTools' environment. The library ships no training loop for this network, so the loop here
is the leanest one: no Lightning, no logging. The loss is the one of its UniSRecLightning ("softmax").
All non-padding positions are supervised.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from .held_out import read_events
from .protocol import Slice, Task, serve

IGNORED = -100


class RecToolsFastSide:
    """Left-padded sequence tensors and a FlatSASRecNet."""

    def __init__(self, task: Task) -> None:
        import rectools
        from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences

        torch.set_num_threads(task.threads)
        torch.manual_seed(task.seed)
        if task.d_ff != 4 * task.d_model:
            raise ValueError(f"FlatSASRecNet's feed-forward width is {4 * task.d_model}, not {task.d_ff}")
        frame = read_events(task.log, held_out=2)
        columns = [torch.from_numpy(frame[c].to_numpy()) for c in ("user_id", "item_id", "position")]
        x, y, items, _ = build_sequences(*columns, max_len=task.max_length)
        self.known = items.numpy()
        self._dataset = SequenceBatchDataset(x, y)
        self.net = FlatSASRecNet(
            n_items=len(items),
            n_factors=task.d_model,
            n_blocks=task.n_layers,
            n_heads=task.n_heads,
            session_max_len=task.max_length,
            dropout=task.dropout,
        )
        self._optimizer = torch.optim.Adam(self.net.parameters(), lr=task.learning_rate)
        self._batches: dict[int, Iterator[dict[str, torch.Tensor]]] = {}
        self.facts: dict[str, Any] = {
            "versions": {"rectools": rectools.VERSION, "torch": torch.__version__},
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "items": len(items),
            "training_events": int((y != 0).sum()),
            "batch_unit": "sequences",
        }

    def train(self, part: Slice, batch_size: int) -> None:
        """Take steps until the slice is over."""
        if batch_size not in self._batches:
            loader = DataLoader(self._dataset, batch_size=batch_size, shuffle=True)
            self._batches[batch_size] = itertools.chain.from_iterable(itertools.repeat(loader))
        self.net.train()
        for batch in self._batches[batch_size]:
            loss = self._loss(batch)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            if part.count(int((batch["y"] != 0).sum()), loss.item()):
                return

    def _loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = self.net(batch)  # (B, L, items); column i is item i + 1
        targets = batch["y"] - 1
        targets[targets < 0] = IGNORED
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=IGNORED)


if __name__ == "__main__":
    serve(RecToolsFastSide)
