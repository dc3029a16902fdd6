import pickle

import pytest

from recsys.errors import ArgumentError, RunError


def test_a_remedy_is_told_in_the_words_of_the_place() -> None:
    error = RunError(
        "run: exists",
        python="pass overwrite=True",
        command=("replace it with --overwrite", "make another with `recsys train --out OTHER`"),
    )
    assert str(error) == "run: exists; pass overwrite=True"
    assert error.for_command(["--out", "--overwrite"]) == "run: exists; replace it with --overwrite"
    assert error.for_command(["--out"]) == "run: exists; make another with `recsys train --out OTHER`"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("remedy", ["write --k=3", "write (--k 3)", "take --k: 3"])
def test_options_are_found_however_they_are_written(remedy: str) -> None:
    error = ArgumentError("k = 0", command=remedy)
    assert error.for_command(["--k"]) == f"k = 0; {remedy}"
    assert error.for_command(["--kind"]) == "k = 0"


def test_a_plain_message_is_the_same_everywhere() -> None:
    assert str(RunError("x: damaged")) == RunError("x: damaged").for_command() == "x: damaged"
