import sys
from io import StringIO

import pytest

from recsys.console import progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("patience_s", "shown", "terminal", "drawn"),
    [
        (-1.0, True, True, True),
        (60.0, True, True, False),
        (-1.0, False, True, False),
        (-1.0, True, False, False),
    ],
)
def test_a_bar_is_drawn_on_a_terminal_past_the_patience_only(
    patience_s: float, shown: bool, terminal: bool, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal() if terminal else StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE_S", patience_s)
    assert list(progress.track(range(5), "Ranking", shown=shown)) == [0, 1, 2, 3, 4]
    assert ("Ranking" in stream.getvalue()) is drawn
