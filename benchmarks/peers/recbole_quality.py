"""RecBole's SASRec trained whole: `Trainer._train_epoch` held up for the states of its held-out prefixes.

Runs in RecBole's environment.
"""

from typing import Any

import numpy as np
import torch

from .pace import serve_quality
from .protocol import Task
from .recbole_side import RecBoleSide

ROWS = 256


class RecBoleQualitySide(RecBoleSide):
    """RecBole's side, which gives its states and item vectors."""

    def measure(self, split: str, path: str) -> dict[str, Any]:
        """Write the states after the histories that RecBole's own loaders hold for the split."""
        events = (self._test if split == "test" else self._valid)._dataset
        rows = events.inter_feat
        model = self._model
        users = _ids(events, "user_id", rows["user_id"])
        states = np.zeros((events.user_num - 1, model.hidden_size), dtype=np.float32)
        model.eval()
        with torch.no_grad():
            for start in range(0, len(users), ROWS):
                part = slice(start, start + ROWS)
                hidden = model.forward(rows[model.ITEM_SEQ][part], rows[model.ITEM_SEQ_LEN][part])
                states[users[part]] = hidden.numpy()
            weight = model.item_embedding.weight.numpy()
        model.train()
        items = np.empty((events.item_num - 1, weight.shape[1]), dtype=np.float32)
        # RecBole's id 0 is padding.
        items[_ids(events, "item_id", torch.arange(1, events.item_num))] = weight[1:]
        np.savez(path, states=states, items=items, known=np.ones(len(items), dtype=bool))
        return {}


def _ids(events: Any, field: str, ids: torch.Tensor) -> np.ndarray[Any, Any]:
    """The log's ids, from 0, of RecBole's."""
    found: np.ndarray[Any, Any] = events.id2token(field, ids.numpy()).astype(np.int64) - 1
    return found


if __name__ == "__main__":
    serve_quality(lambda task: RecBoleQualitySide(Task(**task)))
