"""The project's exceptions: one line each, saying what is wrong, where, and the remedy.

The command line prints the line and leaves with exit code 2. A remedy that is written differently in Python
and on the command line is given for both. This module imports nothing.
"""


class RecsysError(Exception):
    """Something the caller can mend; the message is one line that names it and the remedy.

    Args:
        message: what is wrong and where; with the remedy if it reads alike everywhere.
        python: the remedy in Python's words, as in ``"pass overwrite=True"``.
        command: the remedy in the command line's words, as in ``"replace it with --overwrite"``; or several,
            the first of which is shown whose options the command at hand has. Options of another command
            stand in backticks: ``"prepare it with `recsys prepare --time-unit ms`"``.
    """

    def __init__(self, message: str = "", *, python: str = "", command: str | tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.python = python
        self.command = (command,) if isinstance(command, str) else command

    def __str__(self) -> str:
        """The message with Python's remedy."""
        return _joined(super().__str__(), self.python)

    def for_command(self, options: tuple[str, ...] | list[str] = ()) -> str:
        """The message with a remedy that a command has.

        Args:
            options: spellings of the command's options, such as ``--overwrite``.
        """
        fitting = (remedy for remedy in self.command if set(_options_in(remedy)) <= set(options))
        return _joined(super().__str__(), next(fitting, ""))


def _joined(message: str, remedy: str) -> str:
    return f"{message}; {remedy}" if remedy else message


def _options_in(remedy: str) -> list[str]:
    """Options that a remedy names outside backticks."""
    own = " ".join(remedy.split("`")[::2])
    words = (word.strip(".,;:()'\"") for word in own.split())
    return [word.partition("=")[0] for word in words if word.startswith("--")]


class DataError(RecsysError):
    """A log or a prepared dataset is missing, malformed or does not fit what was asked of it."""


class ConfigError(RecsysError, ValueError):
    """A configuration file, key or value is not understood or out of range."""


class ArgumentError(RecsysError, ValueError):
    """A function was called with a tensor, shape, dtype or option that it does not accept."""


class UnknownIdError(RecsysError, LookupError):
    """A user or item id is not in the vocabulary."""


class RunError(RecsysError):
    """A run folder, checkpoint or saved model is missing, incomplete or corrupt."""


class RetrievalError(RecsysError):
    """An item index is missing, corrupt or belongs to another model."""


class MissingDependencyError(RecsysError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


class NotFittedError(RecsysError):
    """The recommender has not been fitted or loaded."""
