"""RecTools' FlatSASRecNet trained whole, held up for the states of its users; see `rectools_fast_side`.

Runs in RecTools' environment.
"""

from typing import Any

import numpy as np
import torch

from .held_out import read_events
from .pace import serve_quality
from .protocol import Task
from .rectools_fast_side import RecToolsFastSide
from .vectors import last_windows, save_vectors

ROWS = 256


class RecToolsFastQualitySide(RecToolsFastSide):
    """RecTools' fast side, which gives its states and item vectors."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._log, self._length = task.log, task.max_length
        # PyTorch's fast path of evaluation gives NaN for padding in front, and NaN times no weight is NaN.
        torch.backends.mha.set_fastpath_enabled(False)

    def measure(self, split: str, path: str) -> dict[str, Any]:
        """Write the states at the last events; items that were never trained on are not known."""
        events = read_events(self._log, held_out=1 if split == "test" else 2)
        events = events[events["item_id"].isin(self.known)]
        codes = np.searchsorted(self.known, events["item_id"].to_numpy()) + 1  # 0 is padding
        users, begin = np.unique(events["user_id"].to_numpy(), return_index=True)
        rows = last_windows(np.split(codes, begin[1:]), self._length, padding=0)
        self.net.eval()
        with torch.no_grad():
            states = [self.net.encode_last(part) for part in torch.from_numpy(rows).split(ROWS)]
            vectors = self.net.all_item_embeddings().numpy()
        self.net.train()
        save_vectors(path, self._log, users, torch.cat(states).numpy(), self.known, vectors)
        return {}


if __name__ == "__main__":
    serve_quality(lambda task: RecToolsFastQualitySide(Task(**task)))
