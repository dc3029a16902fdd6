"""Sentences with figures, held to the records: what ``figures.toml`` says and what the pages say."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.benchmarks.pages.values import value_of
from recsys.errors import DataError

__all__ = ["Claims", "pages", "uncovered", "wrong"]

FIGURES = Path(__file__).parent / "figures.toml"
_UNIT = r"(?: ?(?:times\b|%|ms\b|MB|MiB|GB|[uµ]s\b)| events/s)"
_FIGURE = re.compile(rf"(?<![\w.,/#@=-])[+-]?(?:\d*\.\d+(?![\w/]|\.\d)|(?!95 ?%)\d[\d,]*(?={_UNIT}))")
"""Decimals, and whole numbers with a unit of what is measured, but for the 95% of an interval."""
_PLACE = re.compile(r"\{(~?)([^{}]*)\}")
_MADE = re.compile(r"<!-- (table:)?([\w-]+) -->.*?<!-- /(table:)?\2 -->", re.S)
_CODE = re.compile(r"```.*?```|`[^`\n]*`|^ {4}\S[^\n]*$|\]\([^)]*\)|https?://\S+|arXiv:\S+", re.S | re.M)


@dataclass(frozen=True, slots=True)
class Claims:
    """What is claimed, and what is not held to a record and why.

    Attributes:
        figures: page, the sentence with a place ``{FORMAT}`` for each figure (``{~FORMAT}`` writes .5, not
            0.5), and the figures' sources as `values.value_of` reads them.
        exempt: page, heading of a section ("" for what stands before the first), and why.
        stated: page, texts whose figures are settings, versions, limits or aims, and why.
    """

    figures: Sequence[Mapping[str, Any]]
    exempt: Sequence[Mapping[str, str]]
    stated: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path = FIGURES) -> "Claims":
        """From a TOML file with ``[[figure]]``, ``[[exempt]]`` and ``[[stated]]``."""
        whole = tomllib.loads(path.read_text(encoding="utf-8"))
        return cls(whole.get("figure", []), whole.get("exempt", []), whole.get("stated", []))


def pages(root: Path) -> list[str]:
    """README and every page of docs and benchmarks, by their places below the root."""
    found = [root / "README.md", *(root / "docs").glob("*.md"), *(root / "docs" / "tutorials").glob("*.md")]
    found += [root / "benchmarks" / "README.md", *(root / "benchmarks").glob("*/README.md")]
    return sorted(str(path.relative_to(root)) for path in found)


def sentence(claim: Mapping[str, Any]) -> str:
    """A claim with its figures as the records have them now.

    Raises:
        DataError: there are more or fewer sources than places.
    """
    values = iter([value_of(source) for source in claim["values"]])

    def put(place: re.Match[str]) -> str:
        text = format(next(values), place[2])
        return re.sub(r"^([+-]?)0\.", r"\1.", text) if place[1] else text

    try:
        text = _PLACE.sub(put, claim["text"])
    except StopIteration:
        raise DataError(f"{claim['text']!r}: has more places than sources") from None
    if next(values, None) is not None:
        raise DataError(f"{claim['text']!r}: has more sources than places")
    return text


def wrong(root: Path, claims: Claims) -> Iterator[str]:
    """A line for every claim that its page does not make as the records have it."""
    for claim in claims.figures:
        told, page = sentence(claim), _flat((root / claim["page"]).read_text(encoding="utf-8"))
        if _flat(told) not in page:
            yield f"{claim['page']}: does not say {told!r}"


def uncovered(root: Path, claims: Claims, page: str) -> Iterator[str]:
    """A line for every figure of a page that no record, table or exemption stands behind."""
    text = _MADE.sub(" ", (root / page).read_text(encoding="utf-8"))
    exempt = {entry["section"] for entry in claims.exempt if entry["page"] == page}
    headings = set(_sections(text))
    for section in sorted(exempt - headings):
        yield f"{page}: has no section {section!r} to exempt"
    told = [sentence(claim) for claim in claims.figures if claim["page"] == page]
    stated = [each for entry in claims.stated if entry["page"] == page for each in entry["texts"]]
    for each in stated:
        if _flat(each) not in _flat(text):
            yield f"{page}: does not say {each!r}"
    told += stated
    for section, body in _sections(text).items():
        if section in exempt:
            continue
        rest = _flat(_CODE.sub(" ", body))
        for words in told:
            rest = rest.replace(_flat(_CODE.sub(" ", words)), " ")
        for figure in _FIGURE.finditer(rest):
            around = rest[max(0, figure.start() - 40) : figure.end() + 30]
            place = f"{page}, {section or 'its beginning'}"
            yield f"{place}: {figure[0]} has no record in figures.toml: ... {around} ..."


def _sections(text: str) -> dict[str, str]:
    """Heading to what stands below it, "" for what comes before the first; bold leads count as headings."""
    found: dict[str, str] = {"": ""}
    name = ""
    fenced = False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        title = None if fenced else re.match(r"#+ (.+?)\s*$|\*\*(.+?)\*\*", line)
        if title:
            name = (title[1] or title[2]).rstrip(".")
            found.setdefault(name, "")
        found[name] += line
    return found


def _flat(text: str) -> str:
    return " ".join(text.split())
