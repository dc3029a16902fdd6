"""Paths as users write them, and messages that name them."""

from pathlib import Path
from typing import Any

import pytest

import recsys
from recsys.errors import RecsysError, RunError, UnknownIdError
from recsys.files import user_path


@pytest.mark.parametrize("path", ["", None, 7, "a\0b"])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(RunError, match="is not a path"):
        user_path(path)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [RecsysError, RunError, UnknownIdError])
def test_a_message_is_one_line_whatever_it_names(kind: type[RecsysError]) -> None:
    assert str(kind("a\nb\r\nc: no such folder")) == r"a\nb\nc: no such folder"
    assert str(kind()) == ""


def test_a_folder_whose_name_holds_a_line_end_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        recsys.load(tmp_path / "a\nb")
    assert "\n" not in str(caught.value)
    assert r"a\nb: no such run folder" in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda path, log: recsys.prepare(path, log.parent / "out"),
        lambda path, log: recsys.prepare(log, path),
        lambda path, log: recsys.prepare(log, log.parent / "out", items=path),
        lambda path, log: recsys.Recommender().fit(path),
        lambda path, log: recsys.load(path),
        lambda path, log: recsys.Recommender().fit(log, out=path),
    ],
)
def test_the_home_folder_of_nobody_is_one_line(call: Any, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\n1,2,1600000000\n")
    with pytest.raises(RecsysError, match="home directory.*; write the path in full"):
        call("~nobody_of_this_name/x", log)
    assert sorted(tmp_path.iterdir()) == [log]
