"""A training gives the same bits on one process and on several; what they exchange on the way."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.processes import cases
from tests.training.processes.launching import all_well, launch

# Of every case 12 batches or so: groups of 2 and 4 leave a last one that is not full for some.
TWO = [*(f"{case}:2" for case in cases.CASES), "sasrec, full:4", "mamba, sampled, stopped:2"]
THREE = ["sasrec, full:6", "bert4rec, hashed, sampled:3"]

pytestmark = pytest.mark.usefixtures("one_thread")


def _together(size: int, wanted: list[str], folder: Path) -> list[dict[str, Any]]:
    """What each of so many processes came to, by rank."""
    out = folder / str(size)
    all_well(launch(size, "-m", "tests.training.processes.cases", str(out), *wanted))
    return [json.loads(Path(f"{out}-{rank}").read_text(encoding="utf-8")) for rank in range(size)]


def _check(wanted: list[str], together: list[dict[str, Any]], folder: Path) -> None:
    for number, one in enumerate(wanted):
        case, _, accumulate = one.rpartition(":")
        alone = cases.train(case.removesuffix(cases.STOPPED), int(accumulate), folder / f"data-{number}")
        assert alone["steps"] > 2
        assert [facts[one] for facts in together] == [alone] * len(together), one


def test_two_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    _check(TWO, _together(2, TWO, tmp_path), tmp_path)


def test_three_processes_give_the_bits_of_one_and_hear_each_other(tmp_path: Path) -> None:
    found = _together(3, [*THREE, "exchange:1"], tmp_path)
    exchanged = [facts["exchange:1"] for facts in found]
    _check_said(exchanged)
    _check_moved(exchanged)
    _check_failures(exchanged)
    _check_ranking([facts["ranking"] for facts in exchanged])
    _check(THREE, found, tmp_path)


def _check_said(found: list[dict[str, Any]]) -> None:
    for rank, facts in enumerate(found):
        assert facts["rank and size"] == [rank, 3]
        assert facts["tell"] == {"rank": 0, "text": "", "number": 0.1}
        assert facts["values"] == [[0, None], [1, None], [2, None]]
        assert facts["in order"] == [0.0, 10.0, 20.0, 1.0, 11.0, 21.0]
        assert facts["in order, one with none"] == [7.0]


def _check_moved(found: list[dict[str, Any]]) -> None:
    for rank, facts in enumerate(found):
        assert facts["gather"] == [[], [[1.0] * 3] * 2, [[2.0] * 3] * 4]
        assert facts["gather nothing"] == [[0, 3]] * 3
        # From process q come q + rank rows of the number 10 q + rank.
        wanted = [[[10 * q + rank] * 2] * (q + rank) for q in range(3)]
        assert facts["exchange"] == facts["exchange, lengths known"] == wanted
        assert facts["add"] == [4, 5, 6]


def _check_failures(found: list[dict[str, Any]]) -> None:
    for rank, facts in enumerate(found):
        for who in (0, 1):
            kind = "ConfigError" if rank == who else "RunError"
            assert facts[f"process {who} fails"] == [kind, "mine alone"]
        kind, line = facts["other weights"]
        assert kind == "RunError"
        assert line.startswith("process 2 came to other weights than process 0")


def _check_ranking(found: list[dict[str, Any]]) -> None:
    """A validation that is shared gives the numbers of one process."""
    asked = [ranking["shared"].pop("asked") for ranking in found]
    everybody = found[0]["alone"]["asked"]
    assert len(everybody) > 50
    assert sorted(row for rows in asked for row in rows) == everybody
    assert min(map(len, asked)) >= 16
    for ranking in found:
        for kind in ("alone", "alone, one batch", "shared, one batch"):
            del ranking[kind]["asked"]
        assert ranking["shared"] == ranking["alone"]
        # Of one batch two processes have nobody to ask for.
        assert ranking["shared, one batch"] == ranking["alone, one batch"]
        assert ranking["shared"]["ranks"] == ranking["shared, one batch"]["ranks"]
