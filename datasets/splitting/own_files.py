"""The split that own files state: the log trains, a second file validates, a third tests."""

from dataclasses import dataclass
from typing import Any

from recsys.datasets.splitting.parts import Division, SortedLog
from recsys.datasets.splitting.registry import register_split
from recsys.datasets.splitting.stated import stated
from recsys.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFiles:
    """Files beside the log.

    Attributes:
        valid: file or frame of validation events; None for none.
        test: file or frame of test events; None for none.
    """

    valid: Any = None
    test: Any = None

    def __post_init__(self) -> None:
        if self.valid is None and self.test is None:
            raise ArgumentError("split='files' needs valid or test: pass the file of one at least")


@register_split("files", OwnFiles)
def own_files(log: SortedLog, config: OwnFiles) -> Division:
    """Events have the part of their file."""
    return stated(log)
