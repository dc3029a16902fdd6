"""`recsys serve`: the answers of a run over HTTP; `recsys keys`: who may ask."""

import importlib
import re
from pathlib import Path
from typing import Annotated

import typer

from recsys.commands.output import Device, say, tell
from recsys.commands.plugins import loaded
from recsys.errors import ConfigError, MissingDependencyError, RunError

keys_app = typer.Typer(
    help="Keys of a service: a file of their hashes, names and scopes.", rich_markup_mode=None
)

_LIBRARIES = ("fastapi", "granian", "prometheus_client", "apsw", "jinja2", "pythonjsonlogger")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")
_DEFAULT = "default"
_DAY = 86_400


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("serve")(serve)
    keys_app.command("new")(new_key)
    # A group of one command keeps its name.
    keys_app.callback()(lambda: None)
    app.add_typer(keys_app, name="keys")


def serve(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RUN:SHARE",
            help="Instead of RUN, again for each: users are shared out among them, always the same way.",
        ),
    ] = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RUN:PERCENT",
            help="Asked beside for this share; its answers are compared, not sent.",
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(help="Folder under which runs may be loaded while serving; none by default."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address; others than this machine's own need --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; each holds the models.")] = 1,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL", help="SQLite file or postgresql:// database of events; else RUN.events.db."
        ),
    ] = None,
    no_events: Annotated[bool, typer.Option("--no-events", help="Keep no events.")] = False,
    durability: Annotated[
        str,
        typer.Option(
            metavar="power|process", help="What events survive: a loss of power, or of the process."
        ),
    ] = "power",
    keys: Annotated[Path | None, typer.Option(help="File of keys, see `recsys keys new`.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let others reach a service that asks for no key.")
    ] = False,
    metrics_host: Annotated[str, typer.Option(help="Address of /metrics.")] = "127.0.0.1",
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of /metrics; 0 is none.")] = 9000,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that wait in a worker; more are refused.")
    ] = 256,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Requests computed together at most.", show_default="16 on a CPU, 64 on a GPU"
        ),
    ] = None,
    deadline: Annotated[float, typer.Option(help="Seconds until a request that waits is given up.")] = 2.0,
    drain: Annotated[
        float, typer.Option(help="Seconds from SIGTERM, while /readyz says no, until nothing new is taken.")
    ] = 5.0,
    grace: Annotated[float, typer.Option(help="Seconds from SIGTERM until all is over.")] = 30.0,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="Site whose scripts may ask, as https://shop.example; again for more."
        ),
    ] = None,
    no_page: Annotated[bool, typer.Option("--no-page", help="Leave out the page for people.")] = False,
    log_users: Annotated[
        bool, typer.Option("--log-users", help="Name users in the log; they are hashed otherwise.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Answer over HTTP what comes next, with the events that come in since.

    Logs go to standard output, a JSON object a line. SIGTERM ends in order, Ctrl+C at once, SIGHUP reads the
    keys again.
    """
    _require_libraries()
    if (run is None) == (not model):
        raise ConfigError("pass either RUN or --model NAME=RUN:SHARE")
    if durability not in ("power", "process"):
        raise ConfigError(f"--durability {durability!r}: choose power or process")
    if not 0 < deadline <= _DAY:
        raise ConfigError(f"--deadline {deadline:g}: has to be above 0 and not more than a day ({_DAY})")
    if not 0 <= drain <= _DAY:
        raise ConfigError(f"--drain {drain:g}: has to be 0 or more and not more than a day ({_DAY})")
    if not drain + 1 <= grace <= 2 * _DAY:
        raise ConfigError(
            f"--grace {grace:g}: has to be a second more than --drain {drain:g}, and at most {2 * _DAY}"
        )
    if events is not None and no_events:
        raise ConfigError("pass either --events or --no-events")
    if events == "":
        raise ConfigError("--events '': name a file or a postgresql:// database, or pass --no-events")
    if models is not None and not models.expanduser().is_dir():
        raise ConfigError(f"--models {models}: no such folder; name the one that holds the runs")
    named = [(_DEFAULT, str(run), 1.0)] if run else [_model(text, "--model") for text in model or ()]
    shadows = [_model(text, "--shadow") for text in shadow or ()]
    _check_models(named, shadows)
    for origin in cors or ():
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"--cors {origin!r}: write an origin as https://shop.example, without a path")
    from recsys.serving.process import serve as serve_forever
    from recsys.serving.settings import ServeSettings

    first = Path(named[0][1])
    place = None if no_events else events or str(first.with_name(f"{first.resolve().name}.events.db"))
    settings = ServeSettings(
        models=tuple(named),
        shadows=tuple(shadows),
        models_dir=None if models is None else str(models),
        host=host,
        port=port,
        workers=workers,
        events=place,
        durability=durability,
        keys=None if keys is None else str(keys),
        insecure=insecure,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        queue=queue,
        batch=batch,
        deadline=deadline,
        drain=drain,
        grace=grace,
        cors=tuple(cors or ()),
        page=not no_page,
        log_users=log_users,
        device=device,
        plugins=loaded.get(),
    )
    serve_forever(settings, say)


def new_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; it stands in the log.")],
    scopes: Annotated[
        str, typer.Option(help="What it may: read (ask), write (events, items, erasure), admin (models).")
    ] = "read,write",
    file: Annotated[Path, typer.Option(help="File of keys; made where there is none.")] = Path("keys.toml"),
) -> None:
    """Make a key: its secret is printed once, its hash is added to the file."""
    from recsys.serving.http.keys import new_key as add

    secret = add(file, name, tuple(part.strip() for part in scopes.split(",") if part.strip()))
    say(f"Written: {file}; the secret is shown this once")
    tell(secret)


def _require_libraries() -> None:
    for library in _LIBRARIES:
        try:
            importlib.import_module(library)
        except ImportError:
            raise MissingDependencyError(
                f"{library} is not installed, which `recsys serve` needs: pip install 'recsys-engine[serve]'"
            ) from None


def _model(text: str, option: str) -> tuple[str, str, float]:
    name, equals, rest = text.partition("=")
    path, colon, share = rest.rpartition(":")
    if not colon:
        path, share = rest, "1" if option == "--model" else "100"
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not equals or not _NAME.fullmatch(name) or not path or not 0 < number <= 1e6:
        raise ConfigError(f"{option} {text!r}: write NAME=RUN:SHARE, as new=run-2:10")
    if option == "--shadow" and number > 100:
        raise ConfigError(f"{option} {text!r}: a share of requests is at most 100 percent")
    return name, path, number


def _check_models(models: list[tuple[str, str, float]], shadows: list[tuple[str, str, float]]) -> None:
    names = [name for name, _, _ in (*models, *shadows)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models are called {name!r}; give each its own name")
    for _, path, _ in (*models, *shadows):
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise RunError(f"{path}: no such run folder; train one: recsys train DATA --out {path}")
        if not (folder / "run.json").is_file():
            raise RunError(f"{path}: not a finished run (run.json is missing); name the folder of one")
