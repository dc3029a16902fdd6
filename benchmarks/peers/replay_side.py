# mypy: disable-error-code="import-not-found,import-untyped"
"""RePlay's SasRec: its own Parquet loader, network and Lightning module, cut into slices.

Runs in RePlay's environment. Every item of a sequence is supervised, its first one too, after padding.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from .held_out import read_events
from .lightning_slices import UntilEnd
from .protocol import Slice, Task, serve

ITEM = "item_id"
TRAIN = Path("train.parquet")


class RePlaySide:
    """RePlay with its sequences in a Parquet file, as its loader wants them."""

    def __init__(self, task: Task) -> None:
        import replay
        from replay.nn.lightning import LightningModule as RePlayModule
        from replay.nn.lightning.optimizer import OptimizerFactory
        from replay.nn.sequential import SasRec

        torch.set_num_threads(task.threads)
        warnings.filterwarnings("ignore")
        seed_everything(task.seed, verbose=False)
        events = read_events(task.log, held_out=2)
        self.known = np.unique(events[ITEM].to_numpy())
        sequences = self.encoded(events)
        # A user with one event has no pair of position and target.
        sequences = sequences[sequences.str.len() > 1]
        pd.DataFrame({ITEM: sequences}).to_parquet(TRAIN)
        self.max_length = task.max_length
        self.network = SasRec.from_params(
            schema(len(self.known), task.d_model),
            embedding_dim=task.d_model,
            num_heads=task.n_heads,
            num_blocks=task.n_layers,
            max_sequence_length=task.max_length,
            dropout=task.dropout,
            hidden_dim=task.d_ff,
        )
        self._module = RePlayModule(self.network, OptimizerFactory(learning_rate=task.learning_rate))
        self._loaders: dict[int, Any] = {}
        longest = task.max_length + 1
        self.facts: dict[str, Any] = {
            "versions": {"replay-rec": replay.__version__, "torch": torch.__version__},
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "items": len(self.known),
            # A sequence that leaves room for padding has its first item predicted as well.
            "training_events": int(sequences.str.len().clip(upper=task.max_length).sum()),
            "longest_sequence": longest,
            "batch_unit": "sequences",
        }

    def encoded(self, events: pd.DataFrame) -> "pd.Series[Any]":
        """Each user's known items in order, as the network counts them."""
        events = events[events[ITEM].isin(self.known)]
        codes = pd.Series(np.searchsorted(self.known, events[ITEM].to_numpy()), index=events.index)
        return codes.groupby(events["user_id"].to_numpy()).agg(list)

    def train(self, part: Slice, batch_size: int) -> None:
        """Fit with Lightning, as RePlay's examples do, stopped by a callback."""
        trainer = Trainer(
            max_epochs=-1,
            callbacks=[_Until(part)],
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            limit_val_batches=0,
            devices=1,
            accelerator="cpu",
        )
        self._module.train()
        trainer.fit(self._module, datamodule=self._loader(batch_size))

    def _loader(self, batch_size: int) -> Any:
        from replay.data.nn.parquet.parquet_module import ParquetModule
        from replay.nn.transform.template.sasrec import make_default_sasrec_transforms

        if batch_size not in self._loaders:
            items = len(self.known)
            self._loaders[batch_size] = ParquetModule(
                batch_size,
                {"train": {ITEM: {"shape": self.max_length + 1, "padding": items}}},
                make_default_sasrec_transforms(schema(items, 1)),
                train_path=str(TRAIN),
            )
        return self._loaders[batch_size]


def schema(items: int, width: int) -> Any:
    """RePlay's description of one sequence of items, padded by the first id that is none."""
    from replay.data import FeatureHint, FeatureSource, FeatureType
    from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema

    return TensorSchema(
        [
            TensorFeatureInfo(
                ITEM,
                is_seq=True,
                feature_type=FeatureType.CATEGORICAL,
                embedding_dim=width,
                padding_value=items,
                cardinality=items,
                feature_hint=FeatureHint.ITEM_ID,
                feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, ITEM)],
            )
        ]
    )


class _Until(UntilEnd, Callback):  # type: ignore[misc]
    """Counts the targets that are no padding."""

    def __init__(self, part: Slice) -> None:
        super().__init__(part, lambda batch: int(batch["target_padding_mask"].sum()))


if __name__ == "__main__":
    serve(RePlaySide)
