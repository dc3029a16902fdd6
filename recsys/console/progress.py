"""A progress bar for long passes, shown on a terminal only and only past two seconds."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TypeVar

Step = TypeVar("Step")
PATIENCE_S = 2.0


def track(steps: Sequence[Step], description: str, *, shown: bool = True) -> Iterator[Step]:
    """Yield the steps; on a terminal, draw a bar on stderr once two seconds have passed.

    Args:
        steps: what to go through.
        description: words before the bar.
        shown: False never draws.
    """
    if not shown or not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console
    from rich.progress import Progress

    began = time.monotonic()
    with ExitStack() as stack:
        progress: Progress | None = None
        task = None
        for done, step in enumerate(steps):
            if progress is None and time.monotonic() - began > PATIENCE_S:
                progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
                task = progress.add_task(description, total=len(steps), completed=done)
            yield step
            if progress is not None and task is not None:
                progress.update(task, completed=done + 1)
