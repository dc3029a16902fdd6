"""Recipes: what is trained on which log, with which seeds, and what was published for it.

A folder per dataset holds ``dataset.toml`` and a TOML file per recipe; README.md says what each key means.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recsys.baselines.registry import baseline_configs, baseline_names
from recsys.config import build, nearest, require, to_dict
from recsys.datasets.preparing.options import OPTIONS
from recsys.encoders.registry import choices_for, encoder_config, encoder_names, preset
from recsys.encoders.suited import LogStatistics
from recsys.errors import ConfigError, DataError
from recsys.files import sha256_of
from recsys.training.config import TrainingConfig
from recsys.training.identity import deciding_settings

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FOLDER", "DatasetFile", "Figure", "Recipe", "find_items", "find_log", "read_recipes"]

FOLDER = Path(__file__).parent / "recipes"
DATASET_FILE = "dataset.toml"
_PREPARE = {one.name for kind in OPTIONS for one in fields(kind)} - {"valid", "test"} | {"time_zone"}
_ITEMS = {"item_tags", "item_words"}
_SUFFIXES = (".parquet", ".inter", ".csv", ".tsv", ".txt", ".jsonl", ".dat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A pair of figures at 10 that ours are set beside."""

    hr: float
    """HR@10."""
    ndcg: float
    """NDCG@10."""
    seen: Literal["kept", "removed"] = "removed"
    """Whether items of the history stay in the ranking."""
    name: str = ""
    """Whose figure it is."""
    source: str = ""
    """Where it was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """One exact log.

    Attributes:
        name: folder's name, and the log's known name where it has one.
        about: one line for people.
        sha256: of the log's bytes; another file is refused.
        prepare: options of `recsys.datasets.preparing.prepare.prepare`.
        items_file: where a recipe's items stand: ``file`` in the folder of logs, and the ``item_column`` that
            has this log's ids; empty for an items file beside the log.
        tie_orders: orders of tied events that figures are averaged over beside the file's own; 0 for none.
        statistics: of its training events, which the preset `tuned` chooses by; None if no recipe asks.
    """

    name: str
    about: str
    sha256: str
    prepare: Mapping[str, Any]
    items_file: Mapping[str, str] = field(default_factory=dict)
    tie_orders: int = 0
    statistics: LogStatistics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One line of the tables: an encoder with a preset, or a floor, on one log.

    Attributes:
        dataset: the log.
        name: file's name, unique within the dataset.
        model: an encoder's or a floor's name.
        preset: of the encoder; "" for a floor.
        seeds: one training run each; a floor has one.
        encoder, training: values that differ from the preset.
        floor: options of a floor; a list of values is tried out on the validation events.
        items: columns of the items that are read besides their ids, as `prepare` names them: ``item_tags``,
            ``item_words``.
        suited: the preset's own choices for this log are taken, as `recsys train` takes them.
        published: the strongest comparable figures first.
        bar: what has to be reached, or None.
        aim: what would pass everybody, or None.
        note: one sentence for the table.
    """

    dataset: DatasetFile
    name: str
    model: str
    preset: str
    seeds: tuple[int, ...]
    encoder: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    floor: Mapping[str, Any] = field(default_factory=dict)
    items: Mapping[str, Any] = field(default_factory=dict)
    suited: bool = False
    published: tuple[Figure, ...] = ()
    bar: Figure | None = None
    aim: Figure | None = None
    note: str = ""

    @property
    def id(self) -> str:
        """Dataset and name with a slash between, as the command line takes it."""
        return f"{self.dataset.name}/{self.name}"

    @property
    def is_baseline(self) -> bool:
        """Whether nothing is trained by gradients."""
        return self.model in baseline_names()

    def matches(self, configuration: Mapping[str, Any] | None, seed: int) -> bool:
        """Whether a record's configuration is this recipe's; settings that came later must be at default."""
        wanted = self.configuration(seed)
        if configuration is None or self.is_baseline:
            return configuration == wanted
        defaults = {
            "encoder": to_dict(encoder_config(self.model, {})),
            "training": to_dict(TrainingConfig()),
        }
        found = {part: {**values, **configuration.get(part, {})} for part, values in defaults.items()}
        if "items" in configuration:
            found["items"] = configuration["items"]
        return wanted == found

    def configuration(self, seed: int) -> dict[str, Any]:
        """Every value that decides the outcome, defaults included.

        Raises:
            ConfigError: an unknown model, preset or key, or a value out of range.
        """
        if self.is_baseline:
            return {"floor": [to_dict(config) for config in baseline_configs(self.model, self.floor)]}
        parts = {
            part: dict(preset(self.model, self.preset).get(part, {})) for part in ("encoder", "training")
        }
        if self.suited and self.dataset.statistics is not None:
            for choice in choices_for(self.model, self.preset, self.dataset.statistics):
                parts["encoder"] |= choice.encoder
                parts["training"] |= choice.training
        encoder = encoder_config(self.model, {**parts["encoder"], **self.encoder})
        chosen = {**parts["training"], **self.training, "seed": seed}
        found: dict[str, Any] = {
            "encoder": to_dict(encoder),
            "training": to_dict(build(TrainingConfig, chosen, where="training")),
        }
        return {**found, "items": dict(self.items)} if self.items else found

    def run_name(self, seed: int) -> str:
        """Name of the run folder: one for each configuration that a checkpoint can go on with."""
        settings = self.configuration(seed)
        if not self.is_baseline:
            encoder = encoder_config(self.model, settings["encoder"])
            training = build(TrainingConfig, settings["training"], where="training")
            settings = {
                **settings,
                "encoder": deciding_settings(to_dict(encoder)),
                "training": deciding_settings(to_dict(training)),
            }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:8]}-seed{seed}"


def read_recipes(names: Sequence[str] = (), folder: Path = FOLDER) -> list[Recipe]:
    """Recipes by name, in the order of datasets and files.

    Args:
        names: ``dataset``, ``dataset/recipe`` or paths of TOML files that lie in such a folder; none means
            all.
        folder: where the datasets' folders lie.

    Raises:
        ConfigError: an unknown name, or a recipe that cannot be read.
    """
    paths = sorted(p for p in folder.glob("*/*.toml") if p.name != DATASET_FILE)
    known = {f"{p.parent.name}/{p.stem}": p for p in paths}
    if not names:
        return [_read(path) for path in paths]
    chosen: list[Path] = []
    for name in names:
        as_file = Path(name)
        if as_file.suffix == ".toml" and as_file.is_file():
            found = [as_file]
        else:
            found = [p for key, p in known.items() if name in (key, p.parent.name)]
        if not found:
            raise ConfigError(f"no recipe {name!r}{nearest(name, list(known))}")
        chosen += [path for path in found if path not in chosen]
    return [_read(path) for path in chosen]


def find_log(dataset: DatasetFile, data: Path | None) -> str | Path:
    """The log of a dataset: a file, a file in a folder of logs, or a known name.

    Args:
        dataset: which log.
        data: the file itself; or a folder with ``NAME/interactions.parquet`` or ``NAME.parquet`` (or another
            format's suffix); None for a log known by name.

    Raises:
        DataError: it is not there, or its bytes are not the recipe's.
    """
    from recsys.datasets.sources.known import KNOWN

    found: Path | None = None
    if data is not None and data.is_file():
        found = data
    elif dataset.name in KNOWN:
        return dataset.name
    elif data is not None:
        for stem in (f"{dataset.name}/interactions", dataset.name):
            candidates = [data / (stem + suffix) for suffix in _SUFFIXES]
            found = found or next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise DataError(
            f"{dataset.name}: no log; pass --data PATH, the file or a folder with "
            f"{dataset.name}/interactions.parquet"
        )
    if sha256_of(found) != dataset.sha256:
        raise DataError(
            f"{found}: not the file that the recipes of {dataset.name} are for (its sha256 is not "
            f"{dataset.sha256[:12]}...); figures of another file say nothing beside theirs"
        )
    return found


def find_items(dataset: DatasetFile, log: str | Path, data: Path | None) -> "Path | pl.DataFrame | None":
    """The items of a log, for a recipe that reads more of them than ids; None for a known log.

    Args:
        dataset: which log.
        log: as `find_log` found it.
        data: as `find_log` took it.

    Raises:
        DataError: there are none, or the column of ids is not theirs.
    """
    if isinstance(log, str):
        return None
    if dataset.items_file:
        from recsys.datasets.reading.item_metadata import read_item_file

        folder = data if data is not None and data.is_dir() else log.parent.parent
        where = folder / dataset.items_file["file"]
        return read_item_file(where, item_column=dataset.items_file["item_column"]).frame
    found = next(
        (place for suffix in _SUFFIXES if (place := log.with_name(f"items{suffix}")).is_file()), None
    )
    if found is None:
        raise DataError(f"{log}: no items.parquet or items.csv beside it, whose columns the recipe reads")
    return found


def _read(path: Path) -> Recipe:
    raw = _toml(path)
    where = f"{path.parent.name}/{path.name}"
    dataset = _read_dataset(path.parent / DATASET_FILE)
    known = {"model", "preset", "seeds", "note", "encoder", "training", "floor", "items", "suited"}
    known |= {"published", "bar", "aim"}
    _known_keys(raw, known, where)
    _known_keys(raw.get("items", {}), _ITEMS, f"{where} [items]")
    model = str(raw.get("model", ""))
    if model not in (*encoder_names(), *baseline_names()):
        raise ConfigError(f"{where}: model {model!r}{nearest(model, [*encoder_names(), *baseline_names()])}")
    seeds = raw.get("seeds", [0])
    numbers = isinstance(seeds, list) and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    require(bool(seeds) and numbers, f"{where}: seeds", seeds, "a list of whole numbers from 0")
    require(
        model not in baseline_names() or len(seeds) == 1, f"{where}: seeds", seeds, "one seed, for a floor"
    )
    require(
        not raw.get("suited") or dataset.statistics is not None,
        f"{where}: suited",
        True,
        f"left out where {DATASET_FILE} has no [statistics]",
    )
    figures = tuple(build(Figure, entry, where=f"{where}: published") for entry in raw.get("published", []))
    bar, aim = (
        build(Figure, raw[key], where=f"{where}: {key}") if key in raw else None for key in ("bar", "aim")
    )
    recipe = Recipe(
        dataset=dataset,
        name=path.stem,
        model=model,
        preset="" if model in baseline_names() else str(raw.get("preset", "tuned")),
        seeds=tuple(seeds),
        encoder=raw.get("encoder", {}),
        training=raw.get("training", {}),
        floor=raw.get("floor", {}),
        items=raw.get("items", {}),
        suited=bool(raw.get("suited", False)),
        published=figures,
        bar=bar,
        aim=aim,
        note=str(raw.get("note", "")),
    )
    try:
        for seed in recipe.seeds:
            recipe.configuration(seed)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return recipe


def _read_dataset(path: Path) -> DatasetFile:
    raw = _toml(path)
    where = f"{path.parent.name}/{path.name}"
    _known_keys(raw, {"name", "about", "sha256", "prepare", "items_file", "tie_orders", "statistics"}, where)
    prepare = dict(raw.get("prepare", {}))
    _known_keys(prepare, _PREPARE, f"{where} [prepare]")
    items_file = raw.get("items_file", {})
    require(
        not items_file or set(items_file) == {"file", "item_column"},
        f"{where}: items_file",
        items_file,
        "a file and an item_column",
    )
    require("sha256" in raw, f"{where}: sha256", None, "the sha256 of the log's bytes")
    orders = raw.get("tie_orders", 0)
    require(isinstance(orders, int) and orders >= 0, f"{where}: tie_orders", orders, "a whole number from 0")
    return DatasetFile(
        name=str(raw.get("name", path.parent.name)),
        about=str(raw.get("about", "")),
        sha256=str(raw["sha256"]),
        prepare=prepare,
        items_file=items_file,
        tie_orders=orders,
        statistics=build(LogStatistics, raw["statistics"], where=where) if "statistics" in raw else None,
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe ({error.strerror or error})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None


def _known_keys(raw: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in raw:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key}{nearest(key, sorted(known))}")
