"""The models that the protocol offers: what every run in service is asked, under a name and with a version.

`recommend` is asked of whichever run answers the user, as /v1/recommend is; `NAME.recommend` of the run NAME.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from recsys.serving.engine.asking import ModelInfo
from recsys.serving.oip.errors import ProtocolError

Kind = Literal["recommend", "recommend_history", "similar", "encode"]
KINDS: tuple[Kind, ...] = ("recommend", "recommend_history", "similar", "encode")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output as metadata names it; -1 is a size that a request sets."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model of the protocol.

    Attributes:
        name: by which it is asked.
        kind: what it does.
        run: the run that its metadata are of.
        asked: name of the run that must answer; None where the user decides.
        versions: that `name` may be asked for by.
    """

    name: str
    kind: Kind
    run: ModelInfo
    asked: str | None
    versions: tuple[str, ...]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes; a run whose histories need times takes them, too."""
        ids = "INT64" if self.run.ids_are_int else "BYTES"
        if self.kind == "recommend":
            return (TensorSpec("user", "INT64" if self.run.user_ids_are_int else "BYTES"),)
        if self.kind == "similar":
            return (TensorSpec("item", ids),)
        times = (TensorSpec("times", "INT64"),) if self.run.needs_times else ()
        return (TensorSpec("history", ids), TensorSpec("lengths", "INT64"), *times)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it answers."""
        if self.kind == "encode":
            return (TensorSpec("state", "FP32", (-1, self.run.width)),)
        return (
            TensorSpec("item", "INT64" if self.run.ids_are_int else "BYTES", (-1, -1)),
            TensorSpec("score", "FP32", (-1, -1)),
            TensorSpec("count", "INT32"),
        )

    def metadata(self) -> dict[str, Any]:
        """As the protocol has it."""
        return {
            "name": self.name,
            "versions": list(self.versions),
            "platform": f"recsys_{self.run.encoder}",
            "inputs": [_described(spec) for spec in self.inputs],
            "outputs": [_described(spec) for spec in self.outputs],
        }


def offered_models(runs: Sequence[ModelInfo]) -> list[OfferedModel]:
    """All models of the runs in service, the unnamed ones first; empty while none is loaded."""
    if not runs:
        return []
    versions = tuple(dict.fromkeys(run.version for run in runs if run.weight > 0 or run is runs[0]))
    unnamed = [OfferedModel(kind, kind, runs[0], None, versions) for kind in KINDS]
    return unnamed + [
        OfferedModel(f"{run.name}.{kind}", kind, run, run.name, (run.version,))
        for run in runs
        for kind in KINDS
    ]


def find_model(runs: Sequence[ModelInfo], name: str, version: str | None = None) -> OfferedModel:
    """A model by its name; with a version, the run that has it answers.

    Raises:
        ProtocolError: no model or version is called so (404), or none is loaded yet (503).
    """
    if not runs:
        raise ProtocolError("the first model is still loading", status=503)
    found = next((model for model in offered_models(runs) if model.name == name), None)
    if found is None:
        raise ProtocolError(f"no model is called '{name}': see GET /v2/models", status=404)
    if version is None:
        return found
    if version not in found.versions:
        raise ProtocolError(
            f"model '{name}' has no version '{version}': it has {', '.join(found.versions)}", status=404
        )
    run = next(run for run in runs if run.version == version and found.asked in (None, run.name))
    return OfferedModel(name, found.kind, run, run.name, (version,))


def _described(spec: TensorSpec) -> dict[str, Any]:
    """A tensor of metadata."""
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
