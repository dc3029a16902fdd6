"""Lines are put aside and written in order, by a thread or on demand, and a stuck reader holds nobody up."""

import io
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from recsys.serving.http.line_writer import SECONDS, LineWriter, flush_lines


class Gate(io.StringIO):
    """A stream whose reader may not read."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.asked = threading.Event()
        self.writes = 0

    def write(self, text: str) -> int:
        self.asked.set()
        self.open.wait(20)
        self.writes += 1
        return super().write(text)


@pytest.fixture
def stream() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def _log(handler: LineWriter) -> logging.Logger:
    log = logging.Logger("lines")
    log.addHandler(handler)
    return log


def test_lines_are_written_together_and_in_order(stream: Gate) -> None:
    stream.open.set()
    handler = LineWriter(stream)
    log = _log(handler)
    for number in range(100):
        log.info("line %d", number)
    flush_lines(log)
    handler.close()
    assert stream.getvalue().splitlines() == [f"line {number}" for number in range(100)]
    assert stream.writes < 20


def test_nobody_has_to_ask_for_it(stream: Gate) -> None:
    stream.open.set()
    handler = LineWriter(stream)
    _log(handler).info("alone")
    until = time.monotonic() + 100 * SECONDS
    while not stream.getvalue() and time.monotonic() < until:
        time.sleep(0.01)
    handler.close()
    assert stream.getvalue() == "alone\n"


def test_a_reader_that_does_not_read_holds_nobody_up(stream: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.serving.http.line_writer.END_SECONDS", 0.05)
    handler = LineWriter(stream, room=3)
    log = _log(handler)
    log.info("first")
    assert stream.asked.wait(20)
    # The thread hangs in its write; each of these returns.
    for number in range(5):
        log.info("line %d", number)
    # Neither does the end of the process wait for it.
    flush_lines(log)
    handler.close()
    assert stream.writes == 0
    stream.open.set()
    monkeypatch.undo()
    handler._thread.join(20)
    lines = stream.getvalue().splitlines()
    assert lines == ["first", "line 0", "line 1", "line 2", "2 lines were dropped: nobody reads the log"]


def test_a_stream_that_is_closed_is_no_reason_to_stop(stream: Gate) -> None:
    stream.open.set()
    handler = LineWriter(stream)
    stream.close()
    _log(handler).info("lost")
    handler.close()


def test_a_record_that_cannot_be_told_takes_no_other_with_it(stream: Gate) -> None:
    class Untold:
        def __str__(self) -> str:
            raise RuntimeError("untold")

    stream.open.set()
    handler = LineWriter(stream)
    log = _log(handler)
    for what in ("before", Untold(), "after"):
        log.info("%s", what)
    flush_lines(log)
    log.info("later")
    handler.close()
    assert stream.getvalue().splitlines() == ["before", "after", "later"]
