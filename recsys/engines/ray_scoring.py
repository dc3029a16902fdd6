"""Scoring everybody by a Ray cluster: Ray carries parts' numbers, each worker opens the run and writes parts.

No history, vector or answer moves through Ray. What is claimed, which parts are missing and `_SUCCESS` are
the affair of `recsys.answering.offline_scoring`, as without Ray: the same files, byte for byte, and a call
that was cut short goes on. Ray gives the part of a worker that died to another one.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.answering.answers import QueryOptions
from recsys.answering.offline_scoring import Scoring, ScoringReport
from recsys.console.progress import track
from recsys.engines.ray_cluster import ray_cluster
from recsys.engines.ray_workers import each_by_workers
from recsys.engines.scoring_request import ScoringRequest
from recsys.errors import ArgumentError, RecsysError, RunError
from recsys.files import user_path
from recsys.kernels.shared.backends import prefer_backend

if TYPE_CHECKING:
    from recsys.recommender import Recommender

_FILES = ("users", "allow", "deny")


def score_with_ray(
    model: "Recommender",
    out: str | Path,
    request: ScoringRequest,
    *,
    device: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> ScoringReport:
    """Recommend for many users into Parquet parts, as `Recommender.score` does, by workers of a Ray cluster.

    Args:
        model: as `Recommender.load` opened it; its folder, and all files that the request names, have to
            be where every machine of the cluster finds them under the same path.
        out: folder of the parts, as well.
        request: what is to be scored.
        device: ``"cpu"``, ``"cuda"`` (a GPU for each worker), or ``"auto"``: GPUs if the cluster has any.
        workers: how many; None for one a processor, or one a GPU.
        address: of a running cluster, ``"auto"`` or ``"HOST:PORT"``; None starts one on this machine.
        overwrite: begin anew where the folder holds parts of another call.
        progress: whether a bar may be drawn.

    Raises:
        MissingDependencyError: Ray is not installed.
        ArgumentError: the model lies in no folder, or an option is out of range.
        RunError: the folder holds something else, a worker sees other files, or Ray gave up.
    """
    if model._folder is None:
        raise ArgumentError("this model lies in no folder: save(PATH) it first, and load PATH")
    folder = user_path(out)
    with prefer_backend(model.backend):
        scoring = scoring_of(model, request)
        missing = scoring.claim(folder, overwrite)
    if missing:
        files = {name: str(user_path(path)) for name in _FILES if (path := getattr(request, name))}
        what = {
            "run": str(model._folder),
            "out": str(folder),
            "request": asdict(request) | files,
            "index": model.index,
            "backend": model.backend,
        }
        scoring.remove_leftovers(folder)
        with ray_cluster(address, cpus=workers) as ray:
            _write_parts(ray, missing, what, device, workers, progress)
        scoring.remove_leftovers(folder)
    return scoring.finish(folder, scoring.count - len(missing))


def scoring_of(model: "Recommender", request: ScoringRequest) -> Scoring:
    """The scoring that a request asks of a model; raises as `Recommender.score` does."""
    arguments = request.arguments()
    outside = {name: arguments.pop(name) for name in ("users", "at", "context", "time_zone", "part_users")}
    return model._scoring(wanted=QueryOptions(**arguments), **outside)


class _PartWriter:
    """Opens the run in a process of its own and writes the parts whose numbers it is given.

    What the user can mend comes back as text: an error raised here would be a traceback of Ray's over there.
    """

    def __init__(
        self, *, run: str, out: str, request: dict[str, Any], device: str, index: str, backend: str
    ) -> None:
        self._run, self._out, self._request = run, Path(out), request
        self._device, self._index, self._backend = device, index, backend

    def open(self) -> str:
        """Open the run and find that it is the one that is scored; what is wrong, or nothing."""
        from recsys.recommender import Recommender

        try:
            model = Recommender.load(self._run, device=self._device, index=self._index, backend=self._backend)
            with prefer_backend(self._backend):
                self._scoring = scoring_of(model, ScoringRequest(**self._request))
            self._scoring.check(self._out)
        except RecsysError as error:
            return str(error)
        return ""

    def work(self, number: int) -> str:
        """Write a part; what is wrong, or nothing."""
        try:
            # It is there if a worker before died between writing it and saying so.
            if not self._scoring.is_there(self._out, number):
                with prefer_backend(self._backend):
                    self._scoring.write(self._out, number)
        except RecsysError as error:
            return str(error)
        return ""


def _write_parts(
    ray: Any, missing: list[int], what: dict[str, Any], device: str, workers: int | None, progress: bool
) -> None:
    """Have every missing part written.

    Raises:
        RunError: a worker could not, or a part ended one worker after the other.
    """
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    on_gpu = device == "cuda" or (device == "auto" and gpus > 0)
    if on_gpu and not gpus:
        raise RunError("the Ray cluster has no GPU: use device='cpu'")
    count = workers or max(1, gpus if on_gpu else int(resources.get("CPU", 1)))
    what["device"] = "cuda" if on_gpu else device.replace("auto", "cpu")
    done = each_by_workers(
        ray, missing, _PartWriter, what, workers=count, num_cpus=1, num_gpus=1 if on_gpu else 0
    )
    for _ in track(missing, "Scoring", shown=progress):
        _, error = next(done)
        if error:
            raise RunError(error)
