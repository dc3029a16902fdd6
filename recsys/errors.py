"""The project's exceptions: one line each, saying what is wrong, where, and the remedy.

What to pass is named as Python writes it (``overwrite=True``, ``time_unit='ms'``, ``out=``); the command
line, which prints the line and leaves with exit code 2, says ``--overwrite`` for it.
This module imports nothing.
"""


class RecsysError(Exception):
    """Something the caller can mend; the message is one line that names it and the remedy."""

    def __str__(self) -> str:
        # A path or a value of the data may hold line ends of its own.
        return "\\n".join(super().__str__().splitlines())


class DataError(RecsysError):
    """A log or a prepared dataset is missing, malformed or does not fit what was asked of it."""


class ConfigError(RecsysError, ValueError):
    """A configuration file, key or value is not understood or out of range."""


class ArgumentError(RecsysError, ValueError):
    """A function was called with a tensor, shape, dtype or option that it does not accept."""


class KeywordError(ArgumentError, TypeError):
    """A function was called with an argument that it does not have, or without one that it needs."""


class UnknownIdError(RecsysError, LookupError):
    """A user or item id is not in the vocabulary."""


class RunError(RecsysError):
    """A run folder, checkpoint or saved model is missing, incomplete or corrupt."""


class RetrievalError(RecsysError):
    """An item index is missing, corrupt or belongs to another model."""


class IndexServerError(RetrievalError):
    """The server that an item index lies on cannot be reached, or has lost the index."""


class MissingDependencyError(RecsysError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


class NotFittedError(RecsysError):
    """The recommender has not been fitted or loaded."""
