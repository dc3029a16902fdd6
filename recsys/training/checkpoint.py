"""What a run needs to go on as if it had never stopped.

Batches, masks and dropout are addressed by (seed, epoch, step), so a checkpoint holds no random
state: weights, averaged weights, the best weights so far, AdamW's moments, and where training stood.

On disk: ``checkpoint/tensors-<epoch>-<step>.safetensors`` and ``checkpoint/state.json``, which names that
file and its sha256 and is renamed into place last; the file of an earlier state is removed after. Rows of an
item table that lies on W processes are in a file of each, ``items-<epoch>-<step>-<r>-of-<W>.safetensors``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys.errors import RunError
from recsys.files import read_json, replacing, save_tensors, sha256_of, write_json
from recsys.training.identity import VERSION, Identity, refuse_another, upgraded
from recsys.training.item_files import ItemFile, load_rows, own_rows


@dataclass(slots=True)
class Progress:
    """Where a training run stands.

    Attributes:
        epoch: epochs finished.
        step: batches finished in the running epoch.
        global_step: optimization steps finished in all.
        loss_sum, n_targets: over the running epoch's steps so far; of weighted events the sum of weights.
        best: best validation score, or None before the first evaluation.
        best_epoch: epoch of the best score, counted from 1.
        bad_evaluations: evaluations since the best.
        stopped: early stopping has ended the run.
        history: one record per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    loss_sum: float = 0.0
    n_targets: float = 0
    best: float | None = None
    best_epoch: int = 0
    bad_evaluations: int = 0
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Epochs and optimization steps finished, by which files of a checkpoint are named.

        After the last step of an epoch training stands at two places: before and behind its validation.
        """
        return f"{self.epoch}-{self.global_step}"


def save_checkpoint(
    folder: Path,
    progress: Progress,
    tensors: Mapping[str, Tensor],
    identity: Identity,
    notes: Mapping[str, Any],
    items: Sequence[ItemFile] = (),
) -> None:
    """Write a checkpoint; the earlier one stays valid until this one is whole.

    Args:
        folder: the run's ``checkpoint`` folder.
        progress: where training stands.
        tensors: everything to be restored, by name.
        identity: what must be equal for the checkpoint to be resumed (configuration, data).
        notes: what the run wants to find again.
        items: files of the item table's rows, which are written.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    path = folder / f"tensors-{progress.place}.safetensors"
    with replacing(path) as temporary:
        save_tensors(tensors, temporary)
    state = {
        "format": VERSION,
        "tensors": path.name,
        "sha256": sha256_of(path),
        "items": [file.to_json() for file in items],
        "identity": asdict(identity),
        "notes": dict(notes),
        "progress": {name: getattr(progress, name) for name in Progress.__dataclass_fields__},
    }
    write_json(folder / "state.json", state)
    kept = {path.name, *(file.name for file in items)}
    for pattern in ("tensors-*.safetensors", "items-*.safetensors"):
        for other in folder.glob(pattern):
            if other.name not in kept:
                other.unlink(missing_ok=True)


def load_checkpoint(
    folder: Path, identity: Identity, rows: tuple[int, int] = (0, 1)
) -> tuple[Progress, dict[str, Tensor]]:
    """Read the newest checkpoint.

    Args:
        folder: the run's ``checkpoint`` folder.
        identity: of the run that wants to go on.
        rows: (r, W): of the item table the rows r, r + W, ... alone.

    Raises:
        RunError: none there, damaged, or made with another configuration or other data.
    """
    from safetensors.torch import load_file

    state_path = folder / "state.json"
    if not state_path.exists():
        raise RunError(f"{folder}: no checkpoint to go on from; leave resume=True out to start anew")
    state = read_json(state_path)
    try:
        state = upgraded(state, state_path, identity)
        path = folder / str(state["tensors"])
        refuse_another(folder, Identity(**state["identity"]), identity)
        if not path.exists() or sha256_of(path) != state["sha256"]:
            raise RunError(f"{path}: missing or damaged (its sha256 is not the recorded one); train anew")
        progress = Progress(**state["progress"])
        items = load_rows(folder, state["items"], *rows)
    except (KeyError, TypeError, AttributeError):
        raise RunError(f"{state_path}: not a checkpoint of this project; the file is damaged") from None
    rest = load_file(path)
    return progress, {**(rest if rows == (0, 1) else own_rows(rest, *rows)), **items}


def pack(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """All tensors of a run under distinct names."""
    packed = {f"model/{name}": value for name, value in model.state_dict().items()}
    packed |= {f"average/{name}": value for name, value in average.items()}
    packed |= {f"best/{name}": value for name, value in best.items()}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                packed[f"optimizer/{names[parameter]}/{key}"] = value
    return packed


def unpack(
    packed: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Restore model and optimizer in place; returns the averaged and the best weights.

    Raises:
        RunError: the tensors are not those of this model.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}, "optimizer": {}}
    for name, value in packed.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    try:
        model.load_state_dict(parts["model"])
    except RuntimeError:
        raise RunError("the checkpoint's tensors are not those of this encoder; train anew") from None
    parameters = dict(model.named_parameters())
    for name, value in parts["optimizer"].items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        # Moments follow the parameter; the step count does too for AdamW, and goes back for its row updates.
        optimizer.state[parameter][key] = value.to(parameter.device)
    device = next(iter(parameters.values())).device
    return (
        {name: value.to(device) for name, value in parts["average"].items()},
        {name: value.to(device) for name, value in parts["best"].items()},
    )
