"""RecTools' transformers trained whole: one Lightning fit, held up for the states of its users.

Runs in RecTools' environment.
"""

from typing import Any

import numpy as np

from .pace import serve_quality
from .protocol import Task
from .rectools_side import RecToolsSide, as_dataset, read_events

ROWS = 256


class RecToolsQualitySide(RecToolsSide):
    """RecTools' side, which gives its states and item vectors."""

    def __init__(self, task: Task, model: str = "SASRecModel") -> None:
        super().__init__(task, model)
        self._log = task.log
        ids = np.load(task.log)
        self._users, self._items = int(ids[:, 0].max()), int(ids[:, 1].max())

    def measure(self, split: str, path: str) -> dict[str, Any]:
        """Write the states that `recommend` would rank by; items that were never trained on are not known."""
        preparator, module = self._model.data_preparator, self._model.lightning_model
        data = as_dataset(read_events(self._log, held_out=1 if split == "test" else 2))
        users = np.arange(1, self._users + 1)
        asked = preparator.transform_dataset_u2i(data, users)
        loader = preparator.get_dataloader_recommend(asked, ROWS)
        hidden, vectors = module._get_user_item_embeddings(loader, "cpu")
        module.train()
        # A user without any known item has no state; RecTools recommends nothing to it.
        states = np.zeros((self._users, hidden.shape[1]), dtype=np.float32)
        states[np.asarray(asked.user_id_map.get_external_sorted_by_internal(), dtype=np.int64) - 1] = (
            hidden.numpy()
        )
        items = np.zeros((self._items, hidden.shape[1]), dtype=np.float32)
        known = np.zeros(self._items, dtype=bool)
        places = np.asarray(preparator.get_known_item_ids(), dtype=np.int64) - 1
        known[places] = True
        items[places] = vectors[preparator.get_known_items_sorted_internal_ids()].detach().numpy()
        np.savez(path, states=states, items=items, known=known)
        return {}


if __name__ == "__main__":
    serve_quality(lambda task: RecToolsQualitySide(Task(**task)))
