"""Examples under each command's help: what is typed most often."""

import typer

EXAMPLES = {
    "prepare": (
        "recsys prepare log.csv --out data",
        "recsys prepare clicks.parquet --out data --user-column visitor --item-column sku --min-events 5",
    ),
    "imitate": ("recsys imitate log.csv --out made.csv --seed 1",),
    "train": (
        "recsys train ml-100k --out run",
        "recsys train log.csv --encoder mamba --out run --set training.epochs=50",
        "recsys train log.csv --out run --resume",
    ),
    "tune": ("recsys tune log.csv --out study",),
    "evaluate": (
        "recsys evaluate run --k 5,10 --json",
        "recsys evaluate run --floor item-knn",
    ),
    "compare": ("recsys compare run other-run",),
    "recommend": (
        "recsys recommend run --user 42",
        "recsys recommend run --history 50,181,174 --k 5 --json",
    ),
    "score": (
        "recsys score run --out answers --k 20",
        "recsys score run --out answers --engine ray --workers 8",
    ),
    "clock": ("recsys clock run --user 42", "recsys clock run --against run-without-clock"),
    "build": ("recsys index run --kind hnsw --set ef_search=200",),
    "add": ("recsys index add run new-item --like 50,181",),
    "remove": ("recsys index remove run 50 181",),
    "serve": (
        "recsys serve run",
        "recsys serve --model now=run:90 --model new=run-2:10 --workers 2 --keys keys.toml --host 0.0.0.0",
    ),
    "new": ("recsys keys new shop --scopes read,write --file keys.toml",),
    "export": ("recsys events export run.events.db --log log.csv --out log-2.parquet",),
    "exposures": ("recsys events exposures run.events.db --out exposures.parquet",),
    "check": ("recsys events check run.events.db",),
    "erase": ("recsys events erase run.events.db --user 42",),
    "warm-up": ("recsys warm-up run",),
    "doctor": ("recsys doctor --json > doctor.json",),
}
"""Lines by the command's own name."""


def show_examples(app: typer.Typer) -> None:
    """Put the examples under the help of the commands of an app and of its groups."""
    for command in app.registered_commands:
        lines = EXAMPLES.get(str(command.name or getattr(command.callback, "__name__", "")), ())
        if lines:
            # The mark keeps the lines from being filled as a paragraph.
            command.epilog = "\n".join((f"Example{'s' if len(lines) > 1 else ''}:\n\n\b", *lines))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            show_examples(group.typer_instance)
