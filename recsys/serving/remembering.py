"""Which models were in service last: kept beside the runs that may be loaded, for the next start.

What was loaded, rolled back or unloaded while serving outlives the service: the same command begins with it.
Another command, with other models, begins with those.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from recsys.errors import RunError
from recsys.files import read_json, user_path
from recsys.serving.settings import ServeSettings


def resumed(settings: ServeSettings, say: Callable[[str], None]) -> ServeSettings:
    """Settings of a service that goes on with the models that were in service last.

    Args:
        settings: of the command line.
        say: told in one line of models that are not the command line's.
    """
    if settings.models_dir is None:
        return settings
    file = _file_of(settings)
    settings = replace(settings, kept=str(file))
    try:
        models = _read(file)
    except RunError as error:
        say(f"Warning: {error}; beginning with the models of the command line")
        return settings
    if not models or models == _asked(settings):
        return settings
    for name, path, _, _ in models:
        if not Path(path).is_dir():
            say(
                f"Warning: {path}, in service last as {name}, is gone; "
                "beginning with the models of the command line"
            )
            return settings
    shown = ", ".join(f"{name}={path}" for name, path, _, _ in models)
    say(f"Beginning with what was in service last: {shown} ({_remedy(file)})")
    return replace(settings, resumed=models)


def said_with_remedy(failure: str, settings: ServeSettings) -> str:
    """Why a service cannot begin, and what helps if it went on with models of before."""
    if not settings.resumed or settings.kept is None:
        return failure
    return f"{failure}; it was in service last: {_remedy(Path(settings.kept))}"


def _remedy(file: Path) -> str:
    return f"remove {file} to begin with the models of the command line"


def _file_of(settings: ServeSettings) -> Path:
    """A file for each set of models that a command line may name."""
    digest = hashlib.blake2b(json.dumps(_asked(settings)).encode(), digest_size=6).hexdigest()
    return user_path(str(settings.models_dir)) / f".in-service-{digest}.json"


def _asked(settings: ServeSettings) -> tuple[tuple[str, str, float, float], ...]:
    return (
        *((name, _whole(path), float(weight), 0.0) for name, path, weight in settings.models),
        *((name, _whole(path), 0.0, float(percent)) for name, path, percent in settings.shadows),
    )


def _read(file: Path) -> tuple[tuple[str, str, float, float], ...]:
    if not file.exists():
        return ()
    try:
        return tuple(
            (str(own["name"]), _whole(str(own["path"])), float(own["weight"]), float(own["shadow"]))
            for own in read_json(file)["models"]
        )
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{file}: is damaged") from None


def _whole(path: str) -> str:
    return str(user_path(path).resolve())
