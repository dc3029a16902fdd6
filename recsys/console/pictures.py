"""Pictures: a figure without a window, its text as it is, its file written whole or not at all."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import ArgumentError
from recsys.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")


def picture_format(path: str | Path) -> str:
    """The format that a picture's ending names.

    Raises:
        ArgumentError: it is none of `FORMATS`.
    """
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ArgumentError(
            f"{path}: cannot draw {kind or 'a file without ending'!r}, choose .png, .svg or .pdf"
        )
    return kind


@contextmanager
def picture(path: str | Path, width: float, height: float) -> "Iterator[Figure]":
    """Yield an empty figure; what was drawn is written when the block ends.

    Args:
        path: file to write; its ending says the format.
        width: inches.
        height: inches.

    Raises:
        ArgumentError: an unknown format.
        RunError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = picture_format(path)
    # A name of the data with dollar signs is no formula.
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with replacing(path) as temporary, warnings.catch_warnings():
            # The font has no such letter: the picture shows a box, and the table has the name.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(temporary, format=kind)
