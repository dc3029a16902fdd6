"""A run on disk: configuration, weights, data, report. Everything needed to answer is inside.

    config.toml          [encoder] and [training], ready for --config
    run.json             format, encoder's name, catalog size, sha256 of the weights
    model.safetensors    best weights
    data/                the prepared dataset: sequences, vocabularies, titles
    metrics.jsonl, checkpoint/, report.json, plots/, index/

``run.json`` is written last: a folder without it is an unfinished run.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsys import __version__
from recsys.config import build, read_toml, to_dict
from recsys.encoders.registry import (
    build_encoder,
    encoder_config,
    encoder_module,
    encoder_name,
    registration,
)
from recsys.errors import ConfigError, RunError
from recsys.files import read_json, replacing, sha256_of, write_json
from recsys.training.config import TrainingConfig

if TYPE_CHECKING:
    from recsys.encoders.base import EncoderConfig, SequenceEncoder

FORMAT = 1


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """Configuration, TOML."""
        return self.path / "config.toml"

    @property
    def manifest(self) -> Path:
        """What says that the run is whole, JSON."""
        return self.path / "run.json"

    @property
    def weights(self) -> Path:
        """Best weights."""
        return self.path / "model.safetensors"

    @property
    def data(self) -> Path:
        """The prepared dataset."""
        return self.path / "data"

    @property
    def report(self) -> Path:
        """Test figures and protocol card, JSON."""
        return self.path / "report.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def plots(self) -> Path:
        """Pictures."""
        return self.path / "plots"

    @property
    def index(self) -> Path:
        """The item index."""
        return self.path / "index"


def write_config(run: RunFolder, encoder: "EncoderConfig", training: TrainingConfig) -> None:
    """Write ``config.toml``."""
    import tomli_w

    with replacing(run.config) as temporary:
        text = tomli_w.dumps({"encoder": to_dict(encoder), "training": to_dict(training)})
        temporary.write_text(text, encoding="utf-8")


def write_model(run: RunFolder, encoder: "SequenceEncoder", *, preset: str) -> None:
    """Write the weights and then the manifest that makes the run whole."""
    from safetensors.torch import save_file

    with replacing(run.weights) as temporary:
        save_file({n: t.detach().cpu().contiguous() for n, t in encoder.state_dict().items()}, temporary)
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "encoder": encoder_name(encoder),
        "preset": preset,
        "n_items": encoder.n_items,
        "sha256": sha256_of(run.weights),
    }
    module = encoder_module(encoder)
    if module is not None:
        manifest["encoder_module"] = module
    write_json(run.manifest, manifest)


def read_run(path: str | Path) -> "tuple[SequenceEncoder, TrainingConfig, str]":
    """Rebuild the encoder of a finished run.

    Returns:
        The encoder in evaluation mode on the CPU, how it was trained, and its preset's name.

    Raises:
        RunError: not a run folder, an unfinished or damaged run, or one of another format.
    """
    from safetensors.torch import load_file

    run = RunFolder(Path(path))
    if not run.path.is_dir():
        raise RunError(f"{path}: no such run folder; train one with `recsys train DATA --out {path}`")
    if not run.manifest.exists():
        hint = "training has not finished; go on with --resume" if run.config.exists() else "not a run folder"
        raise RunError(f"{path}: {hint} ({run.manifest.name} is missing)")
    manifest = read_json(run.manifest)
    try:
        if manifest["format"] != FORMAT:
            raise RunError(f"{run.manifest}: run format {manifest['format']} is not {FORMAT}; train anew")
        name, n_items, expected = str(manifest["encoder"]), int(manifest["n_items"]), manifest["sha256"]
        preset = str(manifest["preset"])
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{run.manifest}: not a run's manifest; the file is damaged") from None
    if not run.weights.exists() or sha256_of(run.weights) != expected:
        raise RunError(f"{run.weights}: missing or damaged (its sha256 is not the recorded one); train anew")
    _require_encoder(run, name, manifest.get("encoder_module"))
    try:
        sections = read_toml(run.config)
        config = encoder_config(name, sections["encoder"])
        training = build(TrainingConfig, sections["training"], where="training")
    except ConfigError as error:
        raise RunError(f"{run.config}: damaged ({error})") from None
    encoder = build_encoder(name, n_items, config)
    try:
        encoder.load_state_dict(load_file(run.weights))
    except RuntimeError:
        raise RunError(f"{run.config}: does not fit {run.weights.name}; one of them was edited") from None
    return encoder.eval(), training, preset


def _require_encoder(run: RunFolder, name: str, module: object) -> None:
    """Say what an encoder that is not built in needs; nothing is imported because a folder names it."""
    try:
        registration(name)
    except ConfigError as error:
        if not isinstance(module, str):
            raise RunError(f"{run.path}: {error}; import the module that registers it first") from None
        raise RunError(
            f"{run.path}: its encoder {name!r} is not built in: pass --plugin {module}, or in Python "
            f"import {module} before recsys.load"
        ) from None


def fingerprint(encoder: "SequenceEncoder") -> str:
    """Hex sha256 over an encoder's weights, by which an index knows its model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
