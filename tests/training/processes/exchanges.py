"""What processes exchange, and what each of them got."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.encoders import build_encoder, encoder_config
from recsys.errors import ConfigError, RunError
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.evaluation.sharing import Sharing
from recsys.evaluation.target_loss import TargetLoss
from recsys.training.gradient_sums import check_same_weights
from recsys.training.processes import Processes
from tests.training.processes.cases import SMALL, made_store


def _said(processes: Processes) -> dict[str, Any]:
    rank = processes.rank
    return {
        "rank and size": [rank, processes.size],
        "tell": processes.tell({"rank": rank, "text": "ä" * rank, "number": 0.1}),
        "values": processes.values([rank, None]),
        "in order": processes.in_order([10.0 * rank, 10.0 * rank + 1], [0, 1, 2, 0, 1, 2]),
        "in order, one with none": processes.in_order([] if rank else [7.0], [0]),
    }


def _moved(processes: Processes) -> dict[str, Any]:
    rank = processes.rank
    rows = torch.full((rank * 2, 3), float(rank))
    sent = [torch.full((rank + to, 2), 10 * rank + to) for to in range(processes.size)]
    return {
        "gather": [part.tolist() for part in processes.gather(rows)],
        "gather nothing": [list(part.shape) for part in processes.gather(rows[:0], [0, 0, 0])],
        "exchange": [part.tolist() for part in processes.exchange(sent)],
        "exchange, lengths known": [
            part.tolist() for part in processes.exchange(sent, [rank, rank + 1, rank + 2])
        ],
        "add": processes.add_disjoint(torch.eye(3, dtype=torch.int64)[rank] * (rank + 4)).tolist(),
    }


def _failures(processes: Processes) -> dict[str, Any]:
    found = {}
    for who in (0, 1):
        try:
            with processes.agreeing():
                if processes.rank == who:
                    raise ConfigError("mine alone")
        except (ConfigError, RunError) as error:
            found[f"process {who} fails"] = [type(error).__name__, str(error)]
    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.weight, 1.0)
    torch.nn.init.constant_(model.bias, 1.0)
    check_same_weights(model, processes)
    with torch.no_grad():
        model.bias[processes.rank // 2] = -1.0
    try:
        check_same_weights(model, processes)
    except RunError as error:
        found["other weights"] = [type(error).__name__, str(error)]
    return found


def _ranked(processes: Processes, folder: Path) -> dict[str, Any]:
    """Metrics and loss of a validation in batches of 8 users, shared and alone."""
    store = made_store(folder, features=False)
    model = build_encoder("sasrec", store.n_items, encoder_config("sasrec", {**SMALL, "repeat_bias": 3}))
    model.eval()
    weight, bias = model.item_vectors(), bias_function(model, store)

    def ranked(sharing: Sharing | None, batch: int) -> dict[str, Any]:
        loss = TargetLoss(hidden_function(model, store), weight, bias, sharing)
        asked: list[int] = []

        def states(rows: Any, targets: Any) -> torch.Tensor:
            asked.extend(rows.tolist())
            return loss(rows, targets)

        result = evaluate_hidden(
            states,
            weight,
            store,
            bias_fn=bias,
            split="valid",
            batch_rows=batch,
            progress=False,
            lists=False,
            resamples=0,
            sharing=sharing,
        )
        ranks = {name: np.asarray(found).tolist() for name, found in result.ranks.items()}
        return {"metrics": result.metrics, "ranks": ranks, "loss": loss.mean(result.rows), "asked": asked}

    return {
        "alone": ranked(None, 8),
        "shared": ranked(processes, 8),
        "alone, one batch": ranked(None, 1000),
        "shared, one batch": ranked(processes, 1000),
    }


def exchange(processes: Processes, folder: Path) -> dict[str, Any]:
    """Let three processes exchange whatever they can; what this one got."""
    found = {**_said(processes), **_moved(processes), **_failures(processes)}
    return {**found, "ranking": _ranked(processes, folder)}
