"""Run folders that may be loaded while serving: those under one folder, and nothing that leads out of it."""

from pathlib import Path

from recsys.errors import ArgumentError


def runs_of(models_dir: str | None) -> list[str]:
    """Names of the run folders that lie directly under the folder of `models_dir`; none without one."""
    try:
        found = sorted(Path(models_dir).expanduser().iterdir()) if models_dir is not None else []
    except OSError:
        return []
    return [own.name for own in found if (own / "run.json").is_file()]


def run_under(models_dir: str | None, path: str) -> Path:
    """The folder of a run that a request names.

    Args:
        models_dir: under which it has to lie; None allows none.
        path: absolute, or from there.

    Raises:
        ArgumentError: no run may be loaded, it is no folder under `models_dir`, or a link of it leads out.
    """
    if models_dir is None:
        raise ArgumentError("path: no run may be loaded while serving: start the service with --models DIR")
    refused = ArgumentError("path: not a run folder under the folder of --models")
    try:
        top = Path(models_dir).expanduser().resolve(strict=True)
        found = (top / path).resolve(strict=True)
        inside = top in found.parents and found.is_dir()
        links = [entry for entry in found.rglob("*") if entry.is_symlink()] if inside else []
        leading = any(top not in entry.resolve().parents for entry in links)
    except (OSError, ValueError, RuntimeError):
        raise refused from None
    if not inside:
        raise refused
    if leading:
        raise ArgumentError("path: a link in the run folder leads out of the folder of --models")
    return found
