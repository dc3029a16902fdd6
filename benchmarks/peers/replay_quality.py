# mypy: disable-error-code="import-not-found,import-untyped"
"""RePlay's SasRec trained whole: one Lightning fit, held up for the states of its users.

Runs in RePlay's environment.
"""

from typing import Any

import torch

from .held_out import read_events
from .pace import serve_quality
from .protocol import Task
from .replay_side import ITEM, RePlaySide
from .vectors import last_windows, save_vectors

ROWS = 256


class RePlayQualitySide(RePlaySide):
    """RePlay's side, which gives its states and item vectors."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._log = task.log

    def measure(self, split: str, path: str) -> dict[str, Any]:
        """Write the states at the last events; items that were never trained on are not known."""
        histories = self.encoded(read_events(self._log, held_out=1 if split == "test" else 2))
        padding, body = len(self.known), self.network.body
        rows = torch.from_numpy(last_windows(list(histories), self.max_length, padding=padding))
        self.network.eval()
        with torch.no_grad():
            states = [body({ITEM: part}, part != padding)[:, -1] for part in rows.split(ROWS)]
            vectors = body.embedder.get_item_weights(None).numpy().copy()
        self.network.train()
        users = histories.index.to_numpy()
        save_vectors(path, self._log, users, torch.cat(states).numpy(), self.known, vectors)
        return {}


if __name__ == "__main__":
    serve_quality(lambda task: RePlayQualitySide(Task(**task)))
