"""How a command ends that does not come to its end: interrupted, unread, without space, at fault."""

import gc
import io
import os
import pty
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.commands import failures
from recsys.commands.app import main
from recsys.recommender import Recommender

ENTRY = [sys.executable, "-c", "from recsys.commands.app import main; main()"]
TINY = ["--set=encoder.d_model=16", "--set=encoder.n_layers=1", "--set=training.batch_events=256"]
LONG = ["--set=training.epochs=100000", "--set=training.patience=100000"]


def _said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    sys.argv = ["recsys", *map(str, arguments)]
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0), capsys.readouterr().err


def _raised_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("first\nsecond"), 1, "fault of recsys, not of yours (ValueError: first second)"),
        (RecursionError("too deep"), 1, "RecursionError"),
        (AssertionError(), 1, "(AssertionError)"),
        (MemoryError(), 2, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), 2, "out of"),
        (PermissionError(13, "Permission denied", "/some/file"), 2, "/some/file: Permission denied"),
        (OSError(28, "No space left on device", "/some/file"), 2, "/some/file: the disk is full"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (
            _raised_from(SystemError("f returned a result with an exception set"), KeyboardInterrupt()),
            130,
            "Int",
        ),
        (_raised_from(SystemError("f"), failures.Terminated(signal.SIGTERM)), 143, "Terminated"),
        (SystemError("f"), 1, "(SystemError: f)"),
        (failures.Terminated(signal.SIGTERM), 143, "Terminated"),
        (BrokenPipeError(), 0, ""),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, BaseException) else None,
)
def test_whatever_is_raised_becomes_one_line(
    error: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Recommender, "load", fail)
    found, said = _said(capsys, "evaluate", "run")
    assert found == code
    assert said.count("\n") == (1 if words else 0)
    assert words in said
    assert "Traceback" not in said
    monkeypatch.setenv("RECSYS_DEBUG", "1")
    assert ("Traceback" in _said(capsys, "evaluate", "run")[1]) is (code != 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_to_end_cleans_up_and_says_so(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned: list[bool] = []

    def load(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(Recommender, "load", load)
    before, collecting = signal.getsignal(number), gc.get_threshold()
    assert _said(capsys, "score", "run", "--out", "parts") == (
        128 + number,
        "Terminated; the same command goes on where it stopped.\n",
    )
    assert cleaned == [True]
    assert signal.getsignal(number) == before
    assert gc.get_threshold() == collecting
    assert not isinstance(sys.stdout, io.TextIOWrapper) or sys.stdout.errors != "backslashreplace"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_that_comes_where_nothing_can_be_raised_is_not_lost(
    number: signal.Signals, times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached: list[int] = []

    class Held:
        pass

    def load(*_: Any, **__: Any) -> None:
        def remove(_: Any) -> None:
            reached.append(len(reached))
            if len(reached) == 1:
                os.kill(os.getpid(), number)
            time.sleep(1)  # the signal that is sent once more finds the next callback

        for _time in range(times):
            held = Held()
            dead = weakref.ref(held, remove)
            del held
            assert dead() is None
        time.sleep(10)

    monkeypatch.setattr(Recommender, "load", load)
    before, handled = sys.unraisablehook, signal.getsignal(number)
    word = "Interrupted" if number == signal.SIGINT else "Terminated"
    assert _said(capsys, "score", "run", "--out", "parts") == (
        128 + number,
        f"{word}; the same command goes on where it stopped.\n",
    )
    assert 1 <= len(reached) <= times  # on a busy machine the second may find the loop
    assert (sys.unraisablehook, signal.getsignal(number)) == (before, handled)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory, log: pl.DataFrame) -> Path:
    path = tmp_path_factory.mktemp("endings") / "log.csv"
    log.write_csv(path)
    return path


def test_an_interrupt_ends_training_in_one_line_with_the_cursor_shown(log_file: Path, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    training = subprocess.Popen(
        [*ENTRY, "train", str(log_file), "--out", str(tmp_path / "run"), *TINY, *LONG],
        stdout=subprocess.DEVNULL,
        stderr=follower,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(follower)
    said = b""
    deadline = time.monotonic() + 120
    while b"loss" not in said.split(b"Training:")[-1] or b"Training:" not in said:
        assert time.monotonic() < deadline, said
        said += os.read(leader, 65536)
    training.send_signal(signal.SIGINT)
    try:
        while True:
            said += os.read(leader, 65536)
    except OSError:  # closed at its end
        pass
    os.close(leader)
    assert training.wait(60) == 130
    text = said.decode()
    last = text.strip().splitlines()[-1]
    assert last == "Interrupted; the same command with --resume goes on from the last checkpoint."
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0
    assert "Traceback" not in text


def test_nobody_reading_is_no_fault_and_a_full_disk_is_one_line() -> None:
    for command in (["--help"], ["datasets"], ["datasets", "--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        assert _ended(command, writing) == (0, ""), command
        if Path("/dev/full").exists():
            code, said = _ended(command, os.open("/dev/full", os.O_WRONLY))
            assert code == 2
            assert said.startswith("Error: standard output: the disk is full")
            assert said.count("\n") == 1


def _ended(command: list[str], output: int) -> tuple[int, str]:
    """Exit code and messages of a command that writes to this descriptor."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*ENTRY, *command], stdout=output, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    os.close(output)
    return ended.returncode, ended.stderr
