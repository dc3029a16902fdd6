"""A study that is logged and goes on: Optuna's, in one database file, with the same draws after a stop."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recsys.errors import MissingDependencyError, RunError
from recsys.tuning.choices import Choices, suggest

__all__ = ["run_study"]

_FIRST_RANDOM = 6
_MOST_FAILURES = 3
"""Trials in a row that may fail: more have another reason than their settings."""


def run_study(
    name: str,
    folder: Path,
    choices: Choices,
    trials: int,
    *,
    seed: int,
    start: Mapping[str, Any] | None,
    train: Callable[[dict[str, Any]], tuple[float, dict[str, Any]]],
    finished: Callable[[list[dict[str, Any]]], None],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Go on with a study until it has so many trials; the caller holds the folder's lock.

    A trial that was interrupted is taken up first, with the same settings. One that raises RunError, as where
    its loss is not finite, has failed and does not count.

    Args:
        name: of the study.
        folder: where its database lies.
        choices: what varies.
        trials: how many finished ones there are to be in all.
        seed: of the draws.
        start: settings of the first trial, or None.
        train: gives the score, which is to be high, and facts of a trial's settings.
        finished: called with all finished trials after each.
        say: told what happens.

    Returns:
        The finished trials: number, settings, score and facts.

    Raises:
        MissingDependencyError: Optuna is not installed.
        RunError: several trials in a row failed; it is the last one's.
    """
    try:
        import optuna
        from optuna.trial import TrialState
    except ModuleNotFoundError:
        raise MissingDependencyError("optuna is not installed: pip install 'recsys-engine[search]'") from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{folder / 'study.db'}",
        direction="maximize",
        load_if_exists=True,
    )
    if not study.trials and start is not None:
        study.enqueue_trial(dict(start))
    for left in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL)
        study.enqueue_trial(left.params)
    failures = 0
    while len(found := _complete(study)) < trials:
        # A sampler for each trial, seeded by its number: its draws are the same after a stop.
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=_FIRST_RANDOM, seed=seed + len(study.trials)
        )
        trial = study.ask()
        settings = {key: suggest(trial, key, choices[key]) for key in choices}
        say(f"{name}, trial {len(found) + 1} of {trials}: {trial.params}")
        try:
            score, facts = train(settings)
        except RunError as error:
            study.tell(trial, state=TrialState.FAIL)
            failures += 1
            if failures == _MOST_FAILURES:
                raise
            say(f"{name}: the trial failed: {error}")
            continue
        failures = 0
        trial.set_user_attr("facts", facts)
        study.tell(trial, score)
        finished(_complete(study))
    return found


def _complete(study: Any) -> list[dict[str, Any]]:
    from optuna.trial import TrialState

    return [
        {
            "number": trial.number,
            "settings": trial.params,
            "score": trial.value,
            "facts": trial.user_attrs["facts"],
        }
        for trial in study.get_trials(states=(TrialState.COMPLETE,))
    ]
