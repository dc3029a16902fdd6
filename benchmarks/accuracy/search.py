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
from recsys.errors import ConfigError
from recsys.files import read_json, write_json
from recsys.tuning.choices import read_choices, sections, start_within
from recsys.tuning.study import run_study

__all__ = ["RESULTS", "SPACES", "Space", "read_space", "search", "search_table"]

SPACES = Path(__file__).parent / "spaces"
RESULTS = folders.RESULTS / "search"


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
        parts = sections(settings)
        return dataclasses.replace(
            self.recipe,
            name=self.name,
            encoder={**self.recipe.encoder, **parts["encoder"]},
            training={**self.recipe.training, **parts["training"]},
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
    space = Space(name=path.stem, recipe=found[0], seed=int(raw.get("seed", 0)), choices={})
    choices = read_choices(
        raw, str(path), lambda key, value: space.with_settings({key: value}).configuration(space.seed)
    )
    return dataclasses.replace(space, choices=choices)


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
    store = prepared_log(space.recipe, data, runs, say)
    folder = runs / "search" / space.name
    path = results / f"{space.name}.json"

    def run(settings: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        recipe = space.with_settings(settings)
        place = folder / recipe.run_name(space.seed)
        with locked(place):
            _, facts = train(recipe, space.seed, store, place, device=device, backend=backend, say=say)
        return float(facts["valid"]["ndcg@10"]), facts

    with locked(folder):
        found = run_study(
            space.name,
            folder,
            space.choices,
            trials,
            seed=space.seed,
            start=start_within(space.choices, space.recipe.configuration(space.seed)),
            train=run,
            finished=lambda done: write_json(path, _record(space, done)),
            say=say,
        )
    record = _record(space, found)
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


def _record(space: Space, done: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "search": space.name,
        "recipe": space.recipe.id,
        "seed": space.seed,
        **stamp(),
        "settings": dict(space.choices),
        "trials": [
            {"number": trial["number"], "settings": trial["settings"], **trial["facts"]} for trial in done
        ],
    }


def read_searches(results: Path = RESULTS) -> list[dict[str, Any]]:
    """All records, by name."""
    return [read_json(path) for path in sorted(results.glob("*.json"))]
