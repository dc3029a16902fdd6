"""Small tables as HTML."""

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["html_table"]


def html_table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[object]], notes: Sequence[str] = ()
) -> str:
    """A table with its title above and notes below; whatever is text in it stays text.

    Args:
        title: of the table.
        header: of each column; empty for none.
        rows: cells; those after the first are aligned to the right.
        notes: one line each.
    """

    def line(tag: str, cells: Sequence[object]) -> str:
        written = [
            f'<{tag} style="text-align: {"right" if place else "left"}">{escape(str(cell))}</{tag}>'
            for place, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(written)}</tr>"

    head = f"<thead>{line('th', header)}</thead>" if header else ""
    body = "".join(line("td", row) for row in rows)
    below = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    return f"<div><b>{escape(title)}</b><table>{head}<tbody>{body}</tbody></table>{below}</div>"
