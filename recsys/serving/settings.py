"""Settings of a service, as the command line gives them to every worker."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """Everything that a worker needs to know.

    Attributes:
        models: (name, run folder, weight) of each; weights share the users out.
        shadows: (name, run folder, percent) of those that are asked beside, and whose answers are not sent.
        resumed: (name, run folder, weight, percent) of the models that were in service last, in the place of
            `models` and `shadows`; empty for those.
        kept: file that names the models in service, for the next start; None keeps none.
        models_dir: folder under which runs may be loaded while serving; None allows none.
        host: address.
        port: of it.
        workers: processes.
        events: path of a SQLite file or a postgresql:// URL; None keeps no events.
        durability: "power" (what is acknowledged survives a loss of power) or "process" (survives kill -9).
        keys: file of keys; None for a service without.
        insecure: whether an address that others reach may be bound without keys.
        metrics_host: address of the metrics.
        metrics_port: of it; 0 for none.
        queue: most requests that wait in a worker.
        batch: most requests computed together; None is 16 on a CPU, 64 on a GPU.
        batch_events: most events of them.
        cache_bytes: most bytes of users' vectors and answers kept in a worker; a quarter is for answers.
        deadline: seconds after which a request that waits is given up.
        drain: seconds between "not ready" and the end of listening.
        grace: seconds until requests in flight are cut.
        cors: origins that may ask from a browser, exactly.
        page: whether the page for people is served.
        log_users: whether lines name users, who are hashed otherwise.
        device: as of `Recommender.load`.
        plugins: modules of encoders of one's own, imported by every worker.
    """

    models: tuple[tuple[str, str, float], ...]
    shadows: tuple[tuple[str, str, float], ...] = ()
    resumed: tuple[tuple[str, str, float, float], ...] = ()
    kept: str | None = None
    models_dir: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    events: str | None = None
    durability: str = "power"
    keys: str | None = None
    insecure: bool = False
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9000
    queue: int = 256
    batch: int | None = None
    batch_events: int = 8192
    cache_bytes: int = 256 * 2**20
    deadline: float = 2.0
    drain: float = 5.0
    grace: float = 30.0
    cors: tuple[str, ...] = ()
    page: bool = True
    log_users: bool = False
    device: str = "auto"
    plugins: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As a worker is handed it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ServeSettings":
        """What `to_json` wrote."""
        found = json.loads(text)
        for name in ("models", "shadows", "resumed"):
            found[name] = tuple(tuple(row) for row in found[name])
        for name in ("cors", "plugins"):
            found[name] = tuple(found[name])
        return cls(**found)
