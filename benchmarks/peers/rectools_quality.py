"""RecTools' transformers trained whole: one Lightning fit, held up for the states of its users.

Runs in RecTools' environment.
"""

from typing import Any

import numpy as np

from .held_out import read_events
from .pace import serve_quality
from .protocol import Task
from .rectools_side import RecToolsSide, as_dataset
from .vectors import save_vectors

ROWS = 256


class RecToolsQualitySide(RecToolsSide):
    """RecTools' side, which gives its states and item vectors."""

    def __init__(self, task: Task, model: str = "SASRecModel") -> None:
        super().__init__(task, model)
        self._log = task.log

    def measure(self, split: str, path: str) -> dict[str, Any]:
        """Write the states that `recommend` would rank by; items that were never trained on are not known."""
        preparator, module = self._model.data_preparator, self._model.lightning_model
        data = as_dataset(read_events(self._log, held_out=1 if split == "test" else 2))
        users = np.unique(np.load(self._log)[:, 0])
        asked = preparator.transform_dataset_u2i(data, users)
        loader = preparator.get_dataloader_recommend(asked, ROWS)
        hidden, vectors = module._get_user_item_embeddings(loader, "cpu")
        module.train()
        # A user without any known item has no state; RecTools recommends nothing to it.
        with_state = np.asarray(asked.user_id_map.get_external_sorted_by_internal(), dtype=np.int64)
        known = np.asarray(preparator.get_known_item_ids(), dtype=np.int64)
        own = vectors[preparator.get_known_items_sorted_internal_ids()].detach().numpy()
        save_vectors(path, self._log, with_state, hidden.numpy(), known, own)
        return {}


if __name__ == "__main__":
    serve_quality(lambda task: RecToolsQualitySide(Task(**task)))
