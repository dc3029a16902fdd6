"""`recsys tune`: settings for one's own log, by validation alone.

OUT/data/            the prepared log, which all trials share
OUT/trials/NAME/     a run of each trial, named after its settings, which goes on after a stop
OUT/study.db         Optuna's study
OUT/tune.json        what is searched, and every finished trial
OUT/best.toml        the best settings, for `recsys train --config`
"""

import hashlib
import json
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from recsys.config import own_names, to_dict
from recsys.datasets.prepared.link import link_or_copy
from recsys.datasets.prepared.store import SequenceStore, is_prepared, open_store
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders.registry import canonical_name
from recsys.errors import ConfigError, RunError
from recsys.files import lock_on, read_json, user_path, write_json, write_text
from recsys.recommender import Recommender
from recsys.tuning.choices import Choices, read_choices, sections, start_within
from recsys.tuning.study import run_study

__all__ = ["SPACE", "tune", "tune_table"]

SPACE: dict[str, dict[str, Any]] = {
    "encoder": {
        "d_model": [32, 64, 128],
        "n_layers": [1, 2, 3],
        "dropout": {"low": 0.1, "high": 0.6},
        "max_length": [50, 100, 200],
    },
    "training": {
        "learning_rate": {"low": 3e-4, "high": 5e-3, "log": True},
        "batch_events": [1024, 2048, 4096],
    },
}
"""What is searched unless a file says otherwise."""
RECORD = "tune.json"
BEST = "best.toml"


def tune(
    data: Any,
    out: str | Path,
    trials: int = 20,
    *,
    encoder: str = "sasrec",
    preset: str = "tuned",
    encoder_options: Mapping[str, object] | None = None,
    training_options: Mapping[str, object] | None = None,
    space: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    backend: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Search settings on a log; a search that was stopped goes on where it was.

    The preset's own settings are the first trial where they lie within what is searched. Trials are compared
    by ``training.select`` on the validation events; the test events are not looked at.

    Args:
        data: a prepared folder, a log file, a known name or a frame.
        out: folder of the search.
        trials: how many there are to be in all.
        encoder: name of the encoder.
        preset: where the search starts.
        encoder_options: fields that differ from the preset and are not searched.
        training_options: likewise.
        space: TOML file with [encoder] and [training], for each setting a list of values or
            ``{ low, high, log }``; None takes `SPACE`.
        seed: of the training runs and of the draws.
        device: auto, cpu or cuda.
        backend: kernels to run on.
        say: told what happens.

    Returns:
        The record, as in ``tune.json``.

    Raises:
        ConfigError: an unknown setting, or a value out of range.
        MissingDependencyError: Optuna is not installed.
        RunError: the folder holds another search or something else, or another process is at it.
    """
    folder = user_path(out)
    given: dict[str, dict[str, Any]] = {
        "encoder": dict(encoder_options or {}),
        "training": dict(training_options or {}),
    }

    def model(settings: Mapping[str, Any]) -> Recommender:
        parts = sections(settings)
        return Recommender(
            encoder,
            preset=preset,
            encoder_options={**given["encoder"], **parts["encoder"]},
            training_options={"seed": seed, **given["training"], **parts["training"]},
            device=device,
            backend=backend,
        )

    given = {part: own_names(part, values) for part, values in given.items()}
    fixed = {f"{part}.{key}" for part, values in given.items() for key in values}
    choices = _choices(space, fixed, lambda key, value: model({key: value}).configs())
    _refuse_others(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock_on(folder, wait=False):
            store = _data(data, folder, say)
            encoder_settings, training = model({}).configs(store)
            base = {"encoder": to_dict(encoder_settings), "training": to_dict(training)}
            kept = {part: {key: base[part][key] for key in given[part]} for part in given}
            searched = {
                "encoder": canonical_name(encoder),
                "preset": preset,
                "seed": seed,
                "data": store.fingerprint,
                "select": training.select,
                "base": base,
                "searched": {key: dict(v) if isinstance(v, Mapping) else v for key, v in choices.items()},
            }
            defaults = {"encoder": _defaults(encoder_settings), "training": _defaults(training)}
            _same_search(folder / RECORD, searched, defaults)

            def train(settings: dict[str, Any]) -> tuple[float, dict[str, Any]]:
                place = folder / "trials" / _name(settings)
                fitted = model(settings)
                resume = (place / "checkpoint" / "state.json").exists()
                fitted.fit(store, out=place, resume=resume, quiet=False, notify=say)
                best = fitted.history_.best
                if best is None:
                    raise ConfigError(f"{folder}: the log has no validation events to compare trials by")
                facts = {
                    "run": str(place.relative_to(folder)),
                    "valid": best["valid"],
                    "best_epoch": best["epoch"],
                    "epochs": len(fitted.history_),
                    "training_seconds": sum(record["seconds"] for record in fitted.history_),
                }
                return float(best["valid"][training.select]), facts

            def finished(done: list[dict[str, Any]]) -> None:
                write_json(folder / RECORD, {**searched, "trials": [_flat(trial) for trial in done]})
                _write_best(folder / BEST, kept, done)

            found = run_study(
                folder.name,
                folder,
                choices,
                trials,
                seed=seed,
                start=start_within(choices, base),
                train=train,
                finished=finished,
                say=say,
            )
            finished(found)
    except BlockingIOError:
        raise RunError(f"{folder}: another process is at this search") from None
    finally:
        with suppress(OSError):  # refused before anything was written: nothing is left
            folder.rmdir()
    return read_json(folder / RECORD)


def tune_table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the trials, best first."""
    keys, select = list(record["searched"]), record["select"]
    rows = [
        [
            *(_short(trial["settings"][key]) for key in keys),
            f"{trial['score']:.4f}",
            f"{trial['best_epoch']} of {trial['epochs']}",
            f"{trial['training_seconds']:,.0f} s",
        ]
        for trial in sorted(record["trials"], key=lambda trial: -float(trial["score"]))
    ]
    return [*(key.partition(".")[2] for key in keys), f"valid {select}", "epoch", "training"], rows


def _choices(space: str | Path | None, fixed: set[str], check: Callable[[str, Any], object]) -> Choices:
    """What is searched: the default space without what was set, or a file's."""
    if space is None:
        left = {
            part: {key: value for key, value in values.items() if f"{part}.{key}" not in fixed}
            for part, values in SPACE.items()
        }
        if not any(left.values()):
            raise ConfigError("nothing is left to search: leave out some of the settings, or pass space=")
        return read_choices(left, "the default space", check)
    path = user_path(space)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the search space ({error.strerror or error})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    unknown = sorted(set(raw) - {"encoder", "training"})
    if unknown or not any(raw.values()):
        what = f"not {', '.join(unknown)}" if unknown else "and at least one setting"
        raise ConfigError(f"{path}: a search space has the sections [encoder] and [training], {what}")
    choices = read_choices(raw, str(path), check)
    if both := sorted(fixed & set(choices)):
        raise ConfigError(f"{path}: {both[0]} is searched and set as well; leave out one of the two")
    return choices


def _data(data: Any, folder: Path, say: Callable[[str], None]) -> SequenceStore:
    """The log, prepared once; that a search goes on with the same one is checked by its digest."""
    place = folder / "data"
    if not place.exists():
        if is_prepared(data):
            return link_or_copy(open_store(data), place)
        return prepare(data, place, notify=say)
    kept = SequenceStore.open(place)
    if is_prepared(data):
        fingerprint = open_store(data).fingerprint
    else:
        with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
            fingerprint = prepare(data, Path(scratch) / "data").fingerprint
    if kept.fingerprint != fingerprint:
        raise RunError(f"{folder}: holds a search on another log; choose another folder")
    return kept


def _refuse_others(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file; name a folder")
    if folder.exists() and not (folder / RECORD).exists() and any(folder.iterdir()):
        raise RunError(f"{folder}: exists and is not a search; choose an empty folder")


def _same_search(path: Path, searched: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Begin a record, or find that it is of the same search; settings that came later had their defaults."""
    if not path.exists():
        write_json(path, {**searched, "trials": []})
        return
    before = read_json(path)
    wanted, later = (json.loads(json.dumps(own)) for own in (searched, defaults))
    if isinstance(before.get("base"), dict):
        before["base"] = {part: {**later.get(part, {}), **own} for part, own in before["base"].items()}
    for key, value in wanted.items():
        if before.get(key) != value:
            raise RunError(
                f"{path.parent}: holds a search with another {key}; go on with the same one, or choose "
                "another folder"
            )


def _defaults(config: Any) -> dict[str, Any]:
    return {field.name: field.default for field in fields(config) if field.default is not MISSING}


def _write_best(path: Path, kept: Mapping[str, Mapping[str, Any]], done: list[dict[str, Any]]) -> None:
    import tomli_w

    best = max(done, key=lambda trial: float(trial["score"]))
    parts = sections(best["settings"])
    text = {section: {**kept[section], **parts[section]} for section in ("encoder", "training")}
    write_text(path, tomli_w.dumps(text))


def _flat(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": trial["number"],
        "settings": trial["settings"],
        "score": trial["score"],
        **trial["facts"],
    }


def _name(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
