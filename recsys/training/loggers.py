"""Training runs in TensorBoard, MLflow and Weights & Biases; none of them is required.

Each logger writes the settings once and the numbers of every epoch under its number. ``@`` is written
``_at_``, since MLflow and TensorBoard take no such sign: ``valid/ndcg_at_10``.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from recsys.config import nearest
from recsys.errors import ConfigError, MissingDependencyError
from recsys.training.callbacks import Callback

__all__ = ["LOGGERS", "MLflowLogger", "TensorBoardLogger", "WandbLogger", "make_logger"]


class TensorBoardLogger(Callback):
    """Writes event files for TensorBoard; needs the package ``tensorboard``.

    Args:
        folder: of the event files, made if missing.

    Raises:
        MissingDependencyError: when training starts and TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._writer: Any = None

    def on_fit_start(self, config: Mapping[str, Any]) -> None:
        """Open the event file and write the settings as text."""
        _import("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder))
        self._writer.add_text("config", f"```json\n{json.dumps(config, indent=1, default=str)}\n```", 0)

    def on_epoch_end(self, record: Mapping[str, Any]) -> None:
        """Write the epoch's numbers."""
        for name, value in flat_metrics(record).items():
            self._writer.add_scalar(name, value, record["epoch"])

    def on_fit_end(self, result: Mapping[str, Any] | None) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class MLflowLogger(Callback):
    """Writes parameters and metrics of a run of MLflow; needs the package ``mlflow``.

    A run that is active already is written to and left open; otherwise one is started and ended.

    Args:
        experiment: name of the experiment; None takes MLflow's own choice.
        run_name: of the run that is started.
        tracking_uri: where MLflow keeps its runs; None takes MLflow's own choice.

    Raises:
        MissingDependencyError: when training starts and MLflow is not installed.
    """

    def __init__(
        self, experiment: str | None = None, *, run_name: str | None = None, tracking_uri: str | None = None
    ) -> None:
        self.experiment = experiment
        self.run_name = run_name
        self.tracking_uri = tracking_uri
        self._mlflow: Any = None
        self._started = False

    def on_fit_start(self, config: Mapping[str, Any]) -> None:
        """Start a run and write the settings as its parameters."""
        self._mlflow = mlflow = _import("mlflow")
        if self.tracking_uri is not None:
            mlflow.set_tracking_uri(self.tracking_uri)
        self._started = mlflow.active_run() is None
        if self._started:
            if self.experiment is not None:
                mlflow.set_experiment(self.experiment)
            mlflow.start_run(run_name=self.run_name)
        mlflow.log_params(flat_config(config))

    def on_epoch_end(self, record: Mapping[str, Any]) -> None:
        """Write the epoch's numbers."""
        self._mlflow.log_metrics(flat_metrics(record), step=record["epoch"])

    def on_fit_end(self, result: Mapping[str, Any] | None) -> None:
        """Write what was reached, and end the run that was started."""
        if self._mlflow is None:
            return
        if result is not None:
            self._mlflow.log_metrics(_numbers(result))
        if self._started:
            self._mlflow.end_run("FAILED" if result is None else "FINISHED")


class WandbLogger(Callback):
    """Writes a run of Weights & Biases; needs the package ``wandb``.

    Args:
        project: name of the project; None takes W&B's own choice.
        options: what else ``wandb.init`` is given, for example ``mode="offline"``.

    Raises:
        MissingDependencyError: when training starts and W&B is not installed.
    """

    def __init__(self, project: str | None = None, **options: Any) -> None:
        self.project = project
        self.options = options
        self._run: Any = None

    def on_fit_start(self, config: Mapping[str, Any]) -> None:
        """Start a run with the settings."""
        self._run = _import("wandb").init(project=self.project, config=dict(config), **self.options)

    def on_epoch_end(self, record: Mapping[str, Any]) -> None:
        """Write the epoch's numbers."""
        self._run.log(flat_metrics(record), step=record["epoch"])

    def on_fit_end(self, result: Mapping[str, Any] | None) -> None:
        """Write what was reached, and end the run."""
        if self._run is None:
            return
        if result is not None:
            self._run.summary.update(dict(result))
        self._run.finish(exit_code=1 if result is None else 0)


LOGGERS: dict[str, Callable[[str | None], Callback]] = {
    "mlflow": MLflowLogger,
    "tensorboard": lambda folder: TensorBoardLogger(folder or "runs"),
    "wandb": WandbLogger,
}
"""What ``--log-to`` names, made of what stands behind its colon."""


def make_logger(text: str) -> Callback:
    """The logger of ``tensorboard:FOLDER``, ``mlflow:EXPERIMENT`` or ``wandb:PROJECT``.

    What stands behind the colon may be left out: TensorBoard then writes to ``runs``, its own default.

    Raises:
        ConfigError: no logger has that name.
    """
    name, _, where = text.partition(":")
    if name not in LOGGERS:
        raise ConfigError(f"--log-to {text!r}: unknown logger {name!r}{nearest(name, list(LOGGERS))}")
    return LOGGERS[name](where or None)


def flat_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of an epoch's record by name, those of the validation under ``valid/``."""
    return _numbers({key: value for key, value in record.items() if key != "epoch"})


def flat_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name, those of encoder and training under ``encoder/`` and ``training/``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}/{name}": inner for name, inner in value.items()}
        else:
            found[key] = value
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        key.replace("@", "_at_"): float(value)
        for key, value in flat_config(values).items()
        if isinstance(value, int | float)
    }


def _import(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise
        raise MissingDependencyError(f"{name} is not installed: pip install {name}") from None
