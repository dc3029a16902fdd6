"""One writer at a time, and folders that take each other's place in one step."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recsys.errors import RecsysError, RunError
from recsys.files import lock_on, write_error
from recsys.run_folder.layout import RunFolder, State, foreign, state_of
from recsys.run_folder.model import read_manifest

STARTING = "starting"
"""A new run until its first checkpoint."""
OVERWRITING = "overwriting"
"""What is trained to replace a run."""
RESUMING = "resuming"
"""More epochs of a whole run."""
SAVING = "saving"
"""A model that is being saved."""
EXCHANGING = "exchanging"
"""A run whose successor is about to take its place, where that takes two steps."""
LEAVING = "leaving"
"""A run that was replaced, on its way out."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def writing(run: RunFolder) -> Iterator[RunFolder]:
    """Be the only writer of a run; what killed writers left is put in order first.

    Yields:
        The run in its real place, where ``run`` may be a symbolic link.

    Raises:
        RunError: another process writes it, or its parent folder cannot be written.
    """
    real = RunFolder(Path(os.path.realpath(run.path)))
    if not real.path.name:
        raise RunError(f"{run.path}: is the root of the disk; name a folder inside it")
    missing = [folder for folder in (real.path.parent, *real.path.parent.parents) if not folder.exists()]
    try:
        real.path.parent.mkdir(parents=True, exist_ok=True)
        with lock_on(real.beside("lock").path, wait=False):
            _tidy(real)
            yield real
    except BlockingIOError:
        raise RunError(
            f"{run.path}: another process is writing this run; wait until it has ended, or choose another "
            "folder"
        ) from None
    except OSError as error:
        raise write_error(run.path, error) from None
    finally:
        for folder in missing:
            with suppress(OSError):  # made for nothing, or not empty
                folder.rmdir()


def refuse_occupied(run: RunFolder, state: State, *, overwrite: bool, resumable: bool) -> None:
    """Refuse a place that holds something, unless it may be replaced; resumable where that is another way.

    Raises:
        RunError: it holds a run and ``overwrite`` is false, or something that no run is made of.
    """
    if state is State.EMPTY:
        return
    if not overwrite:
        on = "go on with resume=True, " if resumable and state is not State.BEGUN else ""
        raise RunError(
            f"{run.path}: holds {state.value}; {on}replace it with overwrite=True, or choose another folder"
        )
    stranger = next(foreign(run.path), None)
    if stranger is not None:
        raise RunError(
            f"{run.path}: is not replaced, because {stranger.relative_to(run.path)} is no part of a run; "
            "move it away, or choose another folder"
        )
    refuse_unmovable(run)


def refuse_unmovable(run: RunFolder) -> None:
    """Refuse to replace a folder that cannot change places.

    Raises:
        RunError: it is the current folder, or the root of a disk.
    """
    if _held(run):
        raise RunError(
            f"{run.path}: is the current folder or the root of a disk and cannot be replaced; name a folder "
            "inside it"
        )


def workplace(run: RunFolder, what: str) -> RunFolder:
    """An empty folder to write a run in: hidden beside it, or itself where it is empty and cannot move."""
    place = run if _held(run) else run.beside(what)
    if place.path != run.path:
        discard(place, run)
    place.path.mkdir(exist_ok=True)
    place.mark.touch()
    return place


def publish(made: RunFolder, run: RunFolder) -> None:
    """Put a folder that is whole in its place; what was there goes, but for what is no part of a run.

    Index, report and pictures of the run before come along if the weights are the same.
    """
    if made.path != run.path:
        if state_of(run) is State.EMPTY:
            made.path.rename(run.path)
        else:
            # Whoever was killed here may have left half of them, of weights that are others by now.
            _remove_parts(made.path, of_weights=True)
            _carry(run, made)
            _exchange(made.path, run.path)
    run.mark.unlink(missing_ok=True)
    if made.path != run.path:
        discard(made, run)


def discard(place: RunFolder, run: RunFolder) -> None:
    """Remove what a run is made of; anything else moves over to the run, or stays."""
    if not place.path.is_dir():
        return
    leaving = run.beside(LEAVING)
    if place.path != run.path and not leaving.path.exists():
        # Under this name nobody takes half of it for a run.
        place.path.rename(leaving.path)
        place = leaving
    _remove_parts(place.path)
    for entry in sorted(place.path.iterdir()) if place.path != run.path else ():
        if run.path.is_dir() and not (run.path / entry.name).exists():
            entry.rename(run.path / entry.name)
    with suppress(OSError):
        if place.path != run.path:
            place.path.rmdir()


@contextmanager
def named_as(place: RunFolder, run: RunFolder) -> Iterator[None]:
    """Let errors of what is written in a hidden folder name the run that it is for."""
    try:
        yield
    except RecsysError as error:
        error.args = (str(error).replace(str(place.path), str(run.path)),)
        raise


def waiting(run: RunFolder, what: str) -> RunFolder | None:
    """Training that was killed beside a run and can go on."""
    place = run.beside(what)
    return place if place.mark.exists() and (place.checkpoint / "state.json").exists() else None


def copy_of(run: RunFolder, what: str) -> RunFolder:
    """A folder beside a run with what it goes on from, as hard links where the disk has them."""
    place = workplace(run, what)
    link(run.data, place.data)
    link(run.config, place.config)
    if run.metrics.exists():
        link(run.metrics, place.metrics)
    # The state comes last: without it the folder is nothing to go on from.
    link(run.checkpoint, place.checkpoint, last="state.json")
    return place


def link(source: Path, target: Path, *, last: str = "") -> None:
    """Put a file, or a folder of files, into another place without copying bytes where the disk allows."""
    if source.is_dir():
        target.mkdir()
        for entry in sorted(source.iterdir(), key=lambda entry: entry.name == last):
            link(entry, target / entry.name)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _carry(old: RunFolder, new: RunFolder) -> None:
    """Take over what belongs to the weights, if they are the same, and is not there yet."""
    try:
        same = read_manifest(old).sha256 == read_manifest(new).sha256
    except RunError:
        return
    if not same:
        return
    for name in ("index", "report.json", "plots", "metrics.jsonl", "checkpoint"):
        source, target = old.path / name, new.path / name
        if not source.exists():
            continue
        if not target.exists():
            link(source, target, last="state.json")
        elif name == "plots":
            for picture in source.iterdir():
                if not (target / picture.name).exists():
                    link(picture, target / picture.name)


def _tidy(run: RunFolder) -> None:
    """Put in order what killed writers left."""
    before = run.beside(EXCHANGING)
    if before.path.is_dir() and not run.path.exists():
        before.path.rename(run.path)
    for what in (EXCHANGING, LEAVING, STARTING, SAVING):
        discard(run.beside(what), run)
    for what in (OVERWRITING, RESUMING):
        # Without a mark it is what an exchange took out of the run's place.
        if waiting(run, what) is None:
            discard(run.beside(what), run)
    if run.mark.exists():
        if not run.manifest.exists() and not (run.checkpoint / "state.json").exists():
            _remove_parts(run.path)
        run.mark.unlink(missing_ok=True)


def _remove_parts(folder: Path, *, of_weights: bool = False) -> None:
    """Remove what a run is made of, or what belongs to its weights alone; nothing else."""
    strangers = set(foreign(folder))
    if not of_weights:
        # What makes a run of it goes first.
        for name in ("run.json", "checkpoint/state.json"):
            (folder / name).unlink(missing_ok=True)
    for entry in list(folder.iterdir()):
        if entry in strangers or (of_weights and entry.name not in ("index", "report.json", "plots")):
            continue
        if not entry.is_dir() or entry.is_symlink():
            entry.unlink(missing_ok=True)
            continue
        _remove_files(entry, strangers | ({entry / "training.png"} if of_weights else set()))


def _remove_files(folder: Path, kept: set[Path]) -> None:
    """Remove the files of a folder and of those in it, and the folders that are then empty."""
    for entry in list(folder.iterdir()):
        if entry in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            _remove_files(entry, kept)
        else:
            entry.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _held(run: RunFolder) -> bool:
    """Whether a folder cannot be renamed without harm."""
    return run.path.is_dir() and (os.path.ismount(run.path) or run.path == Path(os.path.realpath(".")))


def _exchange(new: Path, target: Path) -> None:
    """Swap two folders in one step; where the system cannot, by renames that `_tidy` can complete."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise OSError(number, os.strerror(number), str(target))
    aside = RunFolder(target).beside(EXCHANGING).path
    target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise
    aside.rename(new)
