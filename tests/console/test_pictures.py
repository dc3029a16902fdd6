import warnings
from pathlib import Path

import pytest

from recsys.console.pictures import picture
from recsys.errors import ArgumentError


@pytest.mark.parametrize("name", ["cost $x", "a $5$ film", r"$\frac{$", "映画"])
def test_names_of_the_data_are_no_formulas(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with picture(tmp_path / "made.svg", 3, 2) as figure:
            axes = figure.subplots()
            axes.plot([1, 2], label=name)
            axes.legend()
            axes.set_title(name)
            assert not axes.title.get_parse_math()
    assert (tmp_path / "made.svg").stat().st_size > 1000


def test_an_unknown_format_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"cannot draw 'jpg', choose .png, .svg or .pdf"):
        picture(tmp_path / "made.jpg", 3, 2).__enter__()
