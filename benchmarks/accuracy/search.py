"""``recsys bench search``: a logged, resumable search for a recipe's settings, by validation alone.

A space is a TOML file in ``spaces/``: the recipe that it starts from, and for each setting a list of choices
or a range. Trials are Optuna's (TPE); each is an ordinary run folder named after its configuration, so that a
trial that was interrupted goes on, and one drawn twice is trained once. Test events are never looked at.
"""

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.benchmarks import folders
from recsys.benchmarks.accuracy.places import locked, prepared_log
from recsys.benchmarks.accuracy.recipes import Recipe, read_recipes
from recsys.benchmarks.accuracy.running import train
from recsys.benchmarks.machine import stamp
from recsys.errors import ConfigError, MissingDependencyError
from recsys.files import read_json, write_json

__all__ = ["RESULTS", "SPACES", "Space", "read_space", "search", "search_table"]

SPACES = Path(__file__).parent / "spaces"
RESULTS = folders.RESULTS / "search"
_FIRST_RANDOM = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What is searched.

    Attributes:
        name: of the file.
        recipe: where the search starts; its own settings are the first trial.
        seed: of the training runs and of the sampler.
        choices: ``section.field`` to a list of values, or to ``{"low", "high", "log"}``.
    """

    name: str
    recipe: Recipe
    seed: int
    choices: Mapping[str, Any]

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """The recipe with some settings replaced; ``section.field`` to value."""
        parts: dict[str, dict[str, Any]] = {
            "encoder": dict(self.recipe.encoder),
            "training": dict(self.recipe.training),
        }
        for key, value in settings.items():
            section, _, name = key.partition(".")
            parts[section][name] = value
        return dataclasses.replace(
            self.recipe, name=self.name, encoder=parts["encoder"], training=parts["training"]
        )


def read_space(name: str, folder: Path = SPACES, recipes: Path | None = None) -> Space:
    """Read a space by its name or the path of its file.

    Args:
        name: a file's name in `folder` without suffix, or a path.
        folder: where spaces lie.
        recipes: folder of the recipes; None for the checkout's.

    Raises:
        ConfigError: it cannot be read, or a setting is unknown or cannot take a value of its range.
    """
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise ConfigError(f"no search space {name!r}; known: {known}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    unknown = set(raw) - {"recipe", "seed", "encoder", "training"}
    if unknown or "recipe" not in raw:
        raise ConfigError(f"{path}: holds recipe, seed, [encoder] and [training]; not {sorted(unknown)}")
    found = read_recipes([raw["recipe"]], *([] if recipes is None else [recipes]))
    if len(found) != 1 or found[0].is_baseline:
        raise ConfigError(f"{path}: recipe {raw['recipe']!r} is not one encoder's recipe")
    choices = {
        f"{section}.{field}": values
        for section in ("encoder", "training")
        for field, values in raw.get(section, {}).items()
    }
    space = Space(name=path.stem, recipe=found[0], seed=int(raw.get("seed", 0)), choices=choices)
    for key, values in choices.items():
        ends = values if isinstance(values, list) else [values.get("low"), values.get("high")]
        if not ends or None in ends:
            raise ConfigError(
                f"{path}: {key} takes a list of values, or {{ low = ..., high = ..., log = ... }}"
            )
        for value in ends:
            space.with_settings({key: value}).configuration(space.seed)
    return space


def search(
    space: Space,
    trials: int,
    *,
    data: Path | None,
    runs: Path,
    results: Path = RESULTS,
    device: str = "auto",
    backend: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Go on with a search until it has so many trials.

    Args:
        space: what is searched.
        trials: how many there are to be in all.
        data: where the log lies.
        runs: folder of prepared logs, runs and the study's database.
        results: folder of the record, which is written after every trial.
        device: auto, cpu or cuda.
        backend: kernels to run on.
        say: told what happens.

    Returns:
        The record: every finished trial with its settings and its validation figures.

    Raises:
        MissingDependencyError: Optuna is not installed.
        RunError: another process is at this search.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingDependencyError("optuna is not installed: pip install 'recsys-engine[search]'") from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    store = prepared_log(space.recipe, data, runs, say)
    folder = runs / "search" / space.name
    path = results / f"{space.name}.json"
    with locked(folder):
        study = optuna.create_study(
            study_name=space.name,
            storage=f"sqlite:///{folder / 'study.db'}",
            direction="maximize",
            load_if_exists=True,
        )
        _take_up(study, space)
        while (finished := len(_complete(study))) < trials:
            # A sampler for each trial, seeded by its number: its draws are the same after a stop.
            study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=_FIRST_RANDOM, seed=space.seed + len(study.trials)
            )
            trial = study.ask()
            recipe = space.with_settings(
                {key: _suggest(trial, key, space.choices[key]) for key in space.choices}
            )
            say(f"{space.name}, trial {finished + 1} of {trials}: {trial.params}")
            place = folder / recipe.run_name(space.seed)
            with locked(place):
                _, facts = train(recipe, space.seed, store, place, device=device, backend=backend, say=say)
            trial.set_user_attr("facts", facts)
            study.tell(trial, facts["valid"]["ndcg@10"])
            write_json(path, _record(space, study))
        record = _record(space, study)
    write_json(path, record)
    return record


def search_table(record: Mapping[str, Any]) -> str:
    """A record as a Markdown table, best first."""
    keys = list(record["settings"])
    lines = [
        f"| {' | '.join(key.partition('.')[2] for key in keys)} | valid NDCG@10 | HR@10 | epoch | training |",
        "|" + "---|" * (len(keys) + 4),
    ]
    for trial in sorted(record["trials"], key=lambda t: -float(t["valid"]["ndcg@10"])):
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in map(trial["settings"].get, keys)]
        cells += [f"{trial['valid']['ndcg@10']:.4f}", f"{trial['valid']['hr@10']:.4f}"]
        cells += [f"{trial['best_epoch']} of {trial['epochs']}", f"{trial['training_seconds']:,.0f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _take_up(study: Any, space: Space) -> None:
    """Put the recipe's own settings first, and trials that never ended next."""
    from optuna.trial import TrialState

    if not study.trials:
        configuration = space.recipe.configuration(space.seed)
        own = {}
        for key, values in space.choices.items():
            section, _, field = key.partition(".")
            own[key] = configuration[section][field]
            inside = (
                own[key] in values
                if isinstance(values, list)
                else values["low"] <= own[key] <= values["high"]
            )
            if not inside:
                return
        study.enqueue_trial(own)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _suggest(trial: Any, key: str, values: Any) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(key, values)
    low, high, log = values["low"], values["high"], bool(values.get("log", False))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, log=log)
    return trial.suggest_float(key, float(low), float(high), log=log)


def _complete(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return list(study.get_trials(states=(TrialState.COMPLETE,)))


def _record(space: Space, study: Any) -> dict[str, Any]:
    return {
        "search": space.name,
        "recipe": space.recipe.id,
        "seed": space.seed,
        **stamp(),
        "settings": dict(space.choices),
        "trials": [
            {"number": trial.number, "settings": trial.params, **trial.user_attrs["facts"]}
            for trial in _complete(study)
        ],
    }


def read_searches(results: Path = RESULTS) -> list[dict[str, Any]]:
    """All records, by name."""
    return [read_json(path) for path in sorted(results.glob("*.json"))]
