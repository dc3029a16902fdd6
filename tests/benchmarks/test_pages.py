"""Pages say what the records say: tables byte for byte, and every figure in a sentence."""

from pathlib import Path

import pytest

from recsys.benchmarks.pages.claims import Claims, pages, sentence, uncovered, wrong
from recsys.benchmarks.pages.sections import stale
from recsys.benchmarks.pages.values import value_of
from recsys.errors import DataError

ROOT = Path(__file__).parents[2]
SASREC = "accuracy/ml-100k/sasrec-tuned-seed0.json"
EPOCHS = {"page": "docs/page.md", "text": "after {.0f} epochs", "values": [f"{SASREC}#epochs"]}


def test_every_table_is_that_of_the_records() -> None:
    assert list(stale(ROOT)) == []


def test_every_sentence_with_a_figure_is_that_of_the_records() -> None:
    assert list(wrong(ROOT, Claims.read())) == []


@pytest.mark.parametrize("page", pages(ROOT))
def test_every_figure_has_a_record_or_a_reason(page: str) -> None:
    assert list(uncovered(ROOT, Claims.read(), page)) == []


def test_reasons_are_given_and_pages_are_there() -> None:
    claims = Claims.read()
    for entry in (*claims.exempt, *claims.stated):
        assert entry["why"]
    assert {e["page"] for e in (*claims.figures, *claims.exempt, *claims.stated)} <= set(pages(ROOT))


def test_figures_are_read_combined_and_written_as_told() -> None:
    pair = "accuracy/ml-100k/comparisons.json#pairs[a=mamba-tuned;b=sasrec-tuned;seen=kept]/p_value"
    assert value_of(f"{SASREC}#epochs") == 74
    assert 0 < value_of(pair) < 1
    assert value_of({"ratio": [6, 4]}) == 1.5
    assert value_of({"percent": {"difference": [1, {"mean": [0.25, 0.75]}]}}) == 50
    assert sentence({"text": "{~.2f}, {.1f}, {,.0f}", "values": [0.5, 0.25, 1234]}) == ".50, 0.2, 1,234"
    for places, values in (("{.0f}", []), ("{.0f}", [1, 2])):
        with pytest.raises(DataError, match="than"):
            sentence({"text": places, "values": values})
    for source, message in (
        ("nothing.json#a", "no such record"),
        (f"{SASREC}#result/nothing", "has no 'nothing'"),
        (f"{SASREC}#recipe", "is no number"),
        (pair.replace("seen=kept", "seen=never"), "has no"),
    ):
        with pytest.raises(DataError, match=message):
            value_of(source)


def test_a_page_that_disagrees_or_tells_more_is_found(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("# One\n\nIt ended after\n74 epochs.\n\n## Two\n\nIt took 3.5 ms, not `4.5 ms`.\n")
    claims = Claims([EPOCHS], [], [])
    assert list(wrong(tmp_path, claims)) == []
    (found,) = uncovered(tmp_path, claims, "docs/page.md")
    assert found.startswith("docs/page.md, Two: 3.5 has no record in figures.toml")
    exempt = {"page": "docs/page.md", "section": "Two", "why": "made up"}
    assert list(uncovered(tmp_path, Claims([EPOCHS], [exempt], []), "docs/page.md")) == []
    stated = {"page": "docs/page.md", "texts": ["took 3.5 ms"], "why": "made up"}
    assert list(uncovered(tmp_path, Claims([EPOCHS], [], [stated]), "docs/page.md")) == []
    page.write_text("# One\n\nIt ended after 75 epochs.\n")
    assert list(wrong(tmp_path, claims)) == ["docs/page.md: does not say 'after 74 epochs'"]
    gone = list(uncovered(tmp_path, Claims([], [exempt], [stated]), "docs/page.md"))
    assert gone == [
        "docs/page.md: has no section 'Two' to exempt",
        "docs/page.md: does not say 'took 3.5 ms'",
    ]
