import io
import os
import sys
from pathlib import Path

import pytest

from recsys.console.streams import ReaderLeftError, standard_streams
from recsys.errors import RunError


def _stream(encoding: str, descriptor: int | None = None) -> io.TextIOWrapper:
    raw = io.BytesIO() if descriptor is None else os.fdopen(descriptor, "wb", buffering=0)
    return io.TextIOWrapper(raw, encoding=encoding, line_buffering=True)


def _closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_character_that_the_encoding_lacks_is_an_escape(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = _stream(encoding), _stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with standard_streams():
        print("фильм")
        print("映", file=sys.stderr)
    assert (sys.stdout, out.errors) == (out, "strict")
    assert out.buffer.getvalue() == rb"\u0444\u0438\u043b\u044c\u043c" + b"\n"  # type: ignore[attr-defined]
    assert err.buffer.getvalue() == rb"\u6620" + b"\n"  # type: ignore[attr-defined]


def _print(text: str) -> None:
    with standard_streams():
        print(text)


def test_a_reader_who_left_and_a_full_disk_end_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    with _stream("utf-8", _closed_pipe()) as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(ReaderLeftError):
            _print("nobody reads this")
    if Path("/dev/full").exists():
        with _stream("utf-8", os.open("/dev/full", os.O_WRONLY)) as out:
            monkeypatch.setattr(sys, "stdout", out)
            with pytest.raises(RunError, match="standard output: the disk is full"):
                _print("no place for this")


def test_messages_that_nobody_reads_stop_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with _stream("utf-8", _closed_pipe()) as err:
        monkeypatch.setattr(sys, "stderr", err)
        with standard_streams():
            for _ in range(3):
                print("nobody reads this", file=sys.stderr, flush=True)
            done = True
    assert done
