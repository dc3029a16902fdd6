"""What tests of the log share."""

import io
import logging
from collections.abc import Iterator

import pytest

from recsys.serving.http.line_writer import flush_lines
from recsys.serving.http.log_lines import log, write_json_lines


class Lines(io.StringIO):
    """What the service's log has been told so far."""

    def getvalue(self) -> str:
        """All lines, those that the writer has put aside too."""
        flush_lines(log)
        return super().getvalue()


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The log of the service, for the length of a test."""
    stream = Lines()
    before = log.handlers[:], log.level, log.propagate, logging.raiseExceptions
    log.handlers = []
    write_json_lines(stream)
    yield stream
    log.handlers[0].close()
    log.handlers[:], log.level, log.propagate, logging.raiseExceptions = before
