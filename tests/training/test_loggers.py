"""Loggers write to what the libraries offer: stand-ins of their calls, and the libraries where installed."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from recsys.errors import ConfigError, MissingDependencyError
from recsys.training.loggers import MLflowLogger, TensorBoardLogger, WandbLogger, flat_metrics, make_logger

CONFIG = {"model": "sasrec", "users": 3, "encoder": {"d_model": 16}, "training": {"betas": [0.9, 0.98]}}
RECORD = {
    "epoch": 2,
    "loss": 3.5,
    "seconds": 1.5,
    "valid": {"ndcg@10": 0.25, "hr@10": 0.5},
    "validation_loss": 3.75,
}
FLAT = {
    "loss": 3.5,
    "seconds": 1.5,
    "valid/ndcg_at_10": 0.25,
    "valid/hr_at_10": 0.5,
    "validation_loss": 3.75,
}
RESULT = {"epochs": 2, "best": 0.25, "best_epoch": 2, "stopped_early": False, "seconds": 3.0}


def _use(logger: Any, result: Any = RESULT) -> None:
    logger.on_fit_start(CONFIG)
    logger.on_epoch_end(RECORD)
    logger.on_fit_end(result)


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_numbers_are_flat_and_without_signs_that_loggers_refuse() -> None:
    assert flat_metrics(RECORD) == FLAT


class _Mlflow:
    def __init__(self, active: object = None) -> None:
        self.calls: list[Any] = []
        self.active = active

    def members(self) -> dict[str, Any]:
        return {
            "active_run": lambda: self.active,
            "set_tracking_uri": lambda uri: self.calls.append(("uri", uri)),
            "set_experiment": lambda name: self.calls.append(("experiment", name)),
            "start_run": lambda *, run_name=None: self.calls.append(("start", run_name)),
            "log_params": lambda params: self.calls.append(("params", params)),
            "log_metrics": lambda metrics, step=None: self.calls.append(("metrics", metrics, step)),
            "end_run": lambda status="FINISHED": self.calls.append(("end", status)),
        }


def test_mlflow_gets_parameters_metrics_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _Mlflow()
    _module(monkeypatch, "mlflow", **fake.members())
    _use(MLflowLogger("films", run_name="first", tracking_uri="file:somewhere"))
    assert fake.calls[:3] == [("uri", "file:somewhere"), ("experiment", "films"), ("start", "first")]
    params = {"model": "sasrec", "users": 3, "encoder/d_model": 16, "training/betas": [0.9, 0.98]}
    assert fake.calls[3] == ("params", params)
    assert fake.calls[4] == ("metrics", FLAT, 2)
    assert fake.calls[5][1]["best"] == 0.25
    assert fake.calls[6] == ("end", "FINISHED")


def test_mlflows_own_run_is_left_open_and_a_failed_one_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _Mlflow(active=object())
    _module(monkeypatch, "mlflow", **fake.members())
    _use(MLflowLogger("films"))
    assert {call[0] for call in fake.calls} == {"params", "metrics"}
    fake = _Mlflow()
    _module(monkeypatch, "mlflow", **fake.members())
    _use(MLflowLogger(), result=None)
    assert fake.calls[-1] == ("end", "FAILED")


def test_wandb_gets_settings_metrics_and_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run = SimpleNamespace(
        log=lambda data, step=None: calls.append((data, step)),
        summary=SimpleNamespace(update=calls.append),
        finish=lambda exit_code=None: calls.append(exit_code),
    )

    def init(project: str | None = None, config: Any = None, mode: str | None = None) -> Any:
        calls.append((project, config, mode))
        return run

    _module(monkeypatch, "wandb", init=init)
    _use(WandbLogger("films", mode="offline"))
    assert calls == [("films", CONFIG, "offline"), (FLAT, 2), RESULT, 0]
    calls.clear()
    _use(WandbLogger(), result=None)
    assert calls[-1] == 1


def test_tensorboard_gets_scalars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []

    class Writer:
        def __init__(self, log_dir: str) -> None:
            calls.append(log_dir)

        def add_text(self, tag: str, text: str, step: int) -> None:
            calls.append((tag, step, '"d_model": 16' in text))

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            calls.append((tag, value, step))

        def close(self) -> None:
            calls.append("closed")

    _module(monkeypatch, "tensorboard")
    _module(monkeypatch, "torch.utils.tensorboard", SummaryWriter=Writer)
    _use(TensorBoardLogger(tmp_path))
    scalars = [(name, value, 2) for name, value in FLAT.items()]
    assert calls == [str(tmp_path), ("config", 0, True), *scalars, "closed"]


def test_the_tensorboard_that_is_installed_reads_what_was_written(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _use(TensorBoardLogger(tmp_path / "logs"))
    read = events.EventAccumulator(str(tmp_path / "logs"))
    read.Reload()
    assert sorted(read.Tags()["scalars"]) == sorted(FLAT)
    assert [(e.step, e.value) for e in read.Scalars("valid/ndcg_at_10")] == [(2, 0.25)]


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_the_mlflow_that_is_installed_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    try:
        _use(MLflowLogger("films", tracking_uri=uri))
    except ModuleNotFoundError as error:
        pytest.skip(f"MLflow without a database: {error}")
    (run,) = mlflow.search_runs(experiment_names=["films"], output_format="list")
    assert run.data.metrics["valid/ndcg_at_10"] == 0.25
    assert run.data.params["encoder/d_model"] == "16"
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_library_that_is_missing_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=f"{name} is not installed: pip install {name}"):
        make_logger(f"{name}:somewhere").on_fit_start(CONFIG)


def test_a_logger_is_made_of_its_name(tmp_path: Path) -> None:
    board, flow, weights = map(make_logger, (f"tensorboard:{tmp_path}/a:b", "mlflow", "wandb:films"))
    assert isinstance(board, TensorBoardLogger)
    assert board.folder == tmp_path / "a:b"
    assert isinstance(flow, MLflowLogger)
    assert flow.experiment is None
    assert isinstance(weights, WandbLogger)
    assert weights.project == "films"
    with pytest.raises(ConfigError, match="unknown logger 'tensorbord'; did you mean 'tensorboard'"):
        make_logger("tensorbord:x")
